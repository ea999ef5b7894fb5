//! Amounts of the files, as exact decimals: no float is made of them.

use super::problem::Problem;
use orders::money::{Amount, Currency};

/// Whether an amount that a spreadsheet has written, such as `299.40999999999997`, is taken for the one that was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amounts {
    /// It is, if that is no further away than a thousandth of a minor unit.
    Tidied,
    /// It is refused.
    Exact,
}

/// An amount, and whether it stands in the file otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) amount: Amount,
    pub(super) is_tidied: bool,
}

/// # Errors
/// When it is no amount; the kind of what is wrong.
pub(super) fn read(text: &str, amounts: Amounts) -> Result<Read, Problem> {
    if let Some(amount) = exact(text) {
        return Ok(Read { amount, is_tidied: false });
    }
    match tidied(text) {
        Some(amount) if amounts == Amounts::Tidied => Ok(Read { amount, is_tidied: true }),
        _ => Err(problem(text)),
    }
}

/// Decimal text of at most two decimals; `None` for anything else, signs and blanks included.
fn exact(text: &str) -> Option<Amount> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "00"));
    let is_exact = is_number(whole) && is_number(decimals) && decimals.len() <= 2;
    if is_exact { minor_units(whole, decimals) } else { None }
}

/// The amount of whole minor units that is no further away than a thousandth of one.
fn tidied(text: &str) -> Option<Amount> {
    // As what is left of a difference is written: -2.8421709430404007e-14.
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let is_negative = unsigned.len() < text.len();
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    if !is_number(whole) || !is_number(decimals) {
        return None;
    }
    let amount = match exponent {
        None => nearest(whole, decimals)?,
        // Below 10 millionths, which is a thousandth of a minor unit. What is larger may be short of digits: spreadsheets
        // save what they show, such as 1.23E+03.
        Some(exponent) => {
            let tenths: u32 = exponent.strip_prefix('-').filter(|e| is_number(e))?.parse().ok()?;
            if whole.len() > 1 || tenths < 6 {
                return None;
            }
            Amount::ZERO
        }
    };
    if is_negative && amount != Amount::ZERO { None } else { Some(amount) }
}

fn nearest(whole: &str, decimals: &str) -> Option<Amount> {
    let (minor, rest) = decimals.split_at(decimals.len().min(2));
    let below = minor_units(whole, minor)?;
    let is_zero = |s: &str| s.bytes().all(|b| b == b'0');
    let rest = format!("{rest:0<3}");
    match rest.split_at(3) {
        ("000", _) => Some(below),
        ("001", more) if is_zero(more) => Some(below),
        ("999", _) => below.checked_add(Amount(1)),
        _ => None,
    }
}

fn minor_units(whole: &str, decimals: &str) -> Option<Amount> {
    let decimals: i64 = format!("{decimals:0<2}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(100)?.checked_add(decimals).map(Amount)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// What is wrong with a text that is no amount.
fn problem(text: &str) -> Problem {
    let unsigned = text.strip_prefix('-');
    match text {
        "" => Problem::Empty,
        _ if has_currency(text) => Problem::AmountWithCurrency,
        _ if unsigned.is_some_and(|unsigned| decimals(unsigned).is_some()) => Problem::AmountNegative,
        _ if decimals(text).is_some_and(|decimals| decimals.len() > 2) => Problem::AmountInexact,
        _ if decimals(text).is_some() => Problem::AmountTooLarge,
        _ if is_grouped(text) => Problem::AmountWithThousandsSeparators,
        _ if !text.contains('.') && decimals(&text.replace(',', ".")).is_some() => Problem::AmountWithDecimalComma,
        _ => Problem::Amount,
    }
}

/// What an amount should have been.
pub(super) fn expected(problem: Problem) -> &'static str {
    match problem {
        Problem::AmountInexact => "an amount of whole minor units such as 109.90",
        Problem::AmountTooLarge => "small enough for the sum of its file",
        Problem::AmountWithThousandsSeparators => "an amount without thousands separators such as 1109.90",
        Problem::AmountWithDecimalComma => "an amount with a decimal point such as 109.90",
        Problem::AmountWithCurrency => "an amount without a currency such as 109.90",
        _ => "an amount such as 109.90",
    }
}

/// The decimals of digits with or without a point among them.
fn decimals(text: &str) -> Option<&str> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if is_number(whole) && is_number(decimals) { Some(decimals) } else { None }
}

/// Whether it is digits in groups of three, with or without decimals.
fn is_grouped(text: &str) -> bool {
    [(',', '.'), ('.', ','), (' ', ','), (' ', '.'), ('\u{a0}', ','), ('\u{202f}', ','), ('\'', '.')].into_iter().any(
        |(separator, point)| {
            let (whole, decimals) = text.split_once(point).unwrap_or((text, "0"));
            let Some((first, rest)) = whole.split_once(separator) else { return false };
            let mut rest = rest.split(separator);
            is_number(first) && first.len() <= 3 && rest.all(|g| is_number(g) && g.len() == 3) && is_number(decimals)
        },
    )
}

/// Whether a currency stands before or after it: its code, or a common sign.
fn has_currency(text: &str) -> bool {
    let (before, rest) = text.split_at(text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len()));
    let after = rest.trim_start_matches(|c: char| !c.is_alphabetic() && !matches!(c, '$' | '€' | '£' | '¥'));
    let is_sign = |word: &str| matches!(word, "R$" | "US$" | "$" | "€" | "£" | "¥");
    let is_currency = |word: &str| is_sign(word) || word.parse::<Currency>().is_ok();
    match (before.trim(), after.trim()) {
        (word, "") | ("", word) => is_currency(word) && !rest.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_read_exactly_or_not_at_all() {
        for (text, amount) in [("109.90", 10_990), ("0.07", 7), ("5", 500), ("5.1", 510), ("0.00", 0), ("007.00", 700)]
        {
            let read = read(text, Amounts::Exact);
            assert_eq!(read, Ok(Read { amount: Amount(amount), is_tidied: false }), "{text}");
            assert_eq!(super::read(text, Amounts::Tidied), read, "{text}");
        }
        let most = Read { amount: Amount(i64::MAX), is_tidied: false };
        assert_eq!(read("92233720368547758.07", Amounts::Exact), Ok(most));
    }

    #[test]
    fn an_amount_within_a_thousandth_of_a_minor_unit_is_the_whole_one_unless_exactness_is_asked_for() {
        for (text, amount) in [
            ("299.40999999999997", 29_941),
            ("317.58000000000004", 31_758),
            ("37.959999999999994", 3_796),
            ("10.500", 1_050),
            // A thousandth of a centavo below, and above.
            ("10.49999", 1_050),
            ("10.50001", 1_050),
            ("10.5000100", 1_050),
            ("9.99999", 1_000),
            ("0.999999999999999999999999999999999999999", 100),
            ("92233720368547758.06999999999999999999999999999", i64::MAX),
            ("2.8421709430404007e-14", 0),
            ("-2.8E-14", 0),
            ("9.9e-06", 0),
            ("-0.000000000000028", 0),
        ] {
            assert_eq!(read(text, Amounts::Tidied), Ok(Read { amount: Amount(amount), is_tidied: true }), "{text}");
            assert!(read(text, Amounts::Exact).is_err(), "{text}");
        }
        for text in ["10.49998", "10.498999999999", "10.500010000000001", "10.505", "1.234", "0.005"] {
            assert_eq!(read(text, Amounts::Tidied), Err(Problem::AmountInexact), "{text}");
        }
        // One more than fits.
        assert_eq!(read("92233720368547758.0799999", Amounts::Tidied), Err(Problem::AmountInexact));
    }

    #[test]
    fn what_is_no_amount_is_told_by_what_is_wrong_with_it() {
        use Problem as P;
        for (problem, texts) in [
            (P::Empty, &[""][..]),
            (P::AmountNegative, &["-1.00", "-5", "-0.01"]),
            (P::AmountTooLarge, &["92233720368547758.08", "99999999999999999999"]),
            (P::AmountWithDecimalComma, &["1,50", "1,5", "1234,50", "0,07"]),
            (P::AmountWithThousandsSeparators, &["1,234.56", "1.234,56", "1 234,56", "1'234.56", "1,234", "1.234.567"]),
            (P::AmountWithCurrency, &["R$ 10.00", "10.00 BRL", "EUR 5", "$5", "5€", "R$ 1.234,56"]),
            (
                P::Amount,
                &[
                    ".", "5.", ".50", "+1.00", "1.-5", " 1.00", "1.0.0", "٣.00", "10.9O", "ten", "1e2", "1.23E+03",
                    "BRL",
                ],
            ),
            (P::Amount, &["12e-7", "1e-5", "e", "1e", "-", "--1", "NaN", "inf", "#REF!", "1/2", "12,34,5"]),
        ] {
            for text in texts {
                assert_eq!(read(text, Amounts::Tidied), Err(problem), "{text}");
                assert_eq!(read(text, Amounts::Exact), Err(problem), "{text}");
            }
        }
    }
}
