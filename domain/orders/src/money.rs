//! Money: integer minor units and an ISO 4217 currency. Nothing wraps, and nothing is a float.
//!
//! What a client sends is added up by the checked operations, and refused if it does not fit. The saturating ones are for
//! amounts that were checked when they were recorded: folding what has happened never fails.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An amount in minor units (cents for EUR, yen for JPY, fils for KWD). Which currency, the order says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Amount(pub i64);

impl Amount {
    pub const ZERO: Self = Self(0);

    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// As near to the sum as there are minor units.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// As near to the difference as there are minor units.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// As near to the product as there are minor units.
    pub fn saturating_mul(self, by: u32) -> Self {
        Self(self.0.saturating_mul(i64::from(by)))
    }

    pub fn checked_mul(self, by: u32) -> Option<Self> {
        self.0.checked_mul(i64::from(by)).map(Self)
    }

    /// The sum, or `None` if it does not fit.
    pub fn sum(amounts: impl IntoIterator<Item = Self>) -> Option<Self> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }

    /// As near to the sum as there are minor units, one amount after the other.
    pub fn saturating_sum(amounts: impl IntoIterator<Item = Self>) -> Self {
        amounts.into_iter().fold(Self::ZERO, Self::saturating_add)
    }

    /// The amount with its currency's decimals: `Amount(1099)` in USD is `10.99`.
    pub fn display(self, currency: Currency) -> String {
        let decimals = usize::from(currency.decimals());
        if decimals == 0 {
            return self.0.to_string();
        }
        let unit = 10_u64.pow(u32::from(currency.decimals()));
        let sign = if self.0 < 0 { "-" } else { "" };
        let abs = self.0.unsigned_abs();
        format!("{sign}{}.{:0decimals$}", abs / unit, abs % unit)
    }
}

/// An active ISO 4217 currency, such as `EUR`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(extend("pattern" = "^[A-Z]{3}$")))]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// Why a text is no currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an active ISO 4217 currency code in capitals, such as EUR")]
pub struct BadCurrency;

/// ISO 4217, active currencies of 2026 that are money to pay with, by their number of decimals.
const CURRENCIES: [(u8, &str); 3] = [
    (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"),
    (
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC \
         CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR \
         JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD \
         NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN \
         SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
];

impl Currency {
    /// How many decimals the currency has: 0 for JPY, 2 for EUR, 3 for KWD.
    pub fn decimals(self) -> u8 {
        CURRENCIES.iter().find(|(_, codes)| Self::is_listed(codes, self.as_str())).map_or(2, |(decimals, _)| *decimals)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn is_listed(codes: &str, code: &str) -> bool {
        codes.split_ascii_whitespace().any(|c| c == code)
    }
}

impl FromStr for Currency {
    type Err = BadCurrency;
    fn from_str(s: &str) -> Result<Self, BadCurrency> {
        let known = CURRENCIES.iter().any(|(_, codes)| Self::is_listed(codes, s));
        let code = s.as_bytes().try_into().map_err(|_| BadCurrency)?;
        if known { Ok(Self(code)) } else { Err(BadCurrency) }
    }
}

impl TryFrom<String> for Currency {
    type Error = BadCurrency;
    fn try_from(s: String) -> Result<Self, BadCurrency> {
        s.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_shown_with_its_currencys_decimals() {
        let shown = |amount, code: &str| Amount(amount).display(code.parse().unwrap());
        assert_eq!(shown(1099, "USD"), "10.99");
        assert_eq!(shown(-5, "EUR"), "-0.05");
        assert_eq!(shown(1099, "JPY"), "1099");
        assert_eq!(shown(1_099, "KWD"), "1.099");
        assert_eq!(shown(i64::MIN, "USD"), "-92233720368547758.08");
    }

    #[test]
    fn only_listed_currencies_are_taken() {
        assert_eq!("BRL".parse::<Currency>().unwrap().as_str(), "BRL");
        for bad in ["brl", "XXX", "EU", "EURO", "", "E R"] {
            assert_eq!(bad.parse::<Currency>(), Err(BadCurrency), "{bad}");
        }
    }

    #[test]
    fn a_sum_that_does_not_fit_is_none() {
        assert_eq!(Amount::sum([Amount(1), Amount(2)]), Some(Amount(3)));
        assert_eq!(Amount::sum([Amount(i64::MAX), Amount(1)]), None);
    }

    #[test]
    fn what_is_recorded_is_added_up_as_far_as_it_fits() {
        assert_eq!(Amount::saturating_sum([Amount(1), Amount(2)]), Amount(3));
        assert_eq!(Amount::saturating_sum([Amount(i64::MAX), Amount(1)]), Amount(i64::MAX));
        assert_eq!(Amount(i64::MIN).saturating_sub(Amount(1)), Amount(i64::MIN));
        assert_eq!(Amount(i64::MAX).saturating_mul(2), Amount(i64::MAX));
    }
}
