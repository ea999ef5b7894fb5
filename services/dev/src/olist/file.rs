//! A CSV file with a header: its cells by column name, and errors that say which file, line and column are at fault.

use chrono::{DateTime, NaiveDateTime, Utc};
use csv::ByteRecord;
use orders::id::{BadSku, Sku};
use orders::money::{Amount, BadCurrency};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

#[derive(Debug, thiserror::Error)]
pub enum OlistError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("{} is no CSV: {source}", path.display())]
    Csv { path: PathBuf, source: csv::Error },

    #[error("{}, line 1: there is no column {column}", path.display())]
    NoColumn { path: PathBuf, column: &'static str },

    #[error("{}, line {line}: {found} fields, where the header has {expected}", path.display())]
    Fields { path: PathBuf, line: usize, found: usize, expected: usize },

    #[error("{}, line {line}, column {column}: {found:?} is not {expected}", path.display())]
    Cell { path: PathBuf, line: usize, column: &'static str, found: String, expected: &'static str },

    #[error("the currency of the data set: {0}")]
    Currency(#[from] BadCurrency),
}

/// Reads the file at `path` row by row: `row` is given the cells of `columns`, wherever in the file these stand.
pub(super) fn read<T, const N: usize>(
    path: &Path,
    columns: [&'static str; N],
    mut row: impl FnMut([Cell<'_>; N]) -> Result<T, OlistError>,
) -> Result<Vec<T>, OlistError> {
    let content = std::fs::read(path).map_err(|source| OlistError::Read { path: path.to_owned(), source })?;
    let not_csv = |source| OlistError::Csv { path: path.to_owned(), source };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(content.as_slice());
    let header = reader.byte_headers().map_err(not_csv)?.clone();
    let at = positions(path, &header, columns)?;
    let mut read = Vec::new();
    let mut lines = Lines { content: &content, counted: 0, line: 1 };
    for record in reader.byte_records() {
        let record = record.map_err(not_csv)?;
        let place = Place { path, line: lines.at(record.position().map_or(0, csv::Position::byte)) };
        if record.len() != header.len() {
            return Err(place.fields(record.len(), header.len()));
        }
        read.push(row(std::array::from_fn(|n| Cell { place, column: columns[n], bytes: &record[at[n]] }))?);
    }
    Ok(read)
}

/// The names of the file's columns, in their order.
pub(super) fn columns(path: &Path) -> Result<Vec<String>, OlistError> {
    let file = File::open(path).map_err(|source| OlistError::Read { path: path.to_owned(), source })?;
    let not_csv = |source| OlistError::Csv { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.byte_headers().map_err(not_csv)?;
    Ok(header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

fn positions<const N: usize>(
    path: &Path,
    header: &ByteRecord,
    columns: [&'static str; N],
) -> Result<[usize; N], OlistError> {
    let mut at = [0; N];
    for (at, column) in at.iter_mut().zip(columns) {
        *at = header
            .iter()
            .position(|name| name == column.as_bytes())
            .ok_or_else(|| OlistError::NoColumn { path: path.to_owned(), column })?;
    }
    Ok(at)
}

/// Counts lines as the records come: the reader's own count is one behind in files whose lines end in CR LF, as Olist's
/// do.
struct Lines<'a> {
    content: &'a [u8],
    /// How many bytes have been looked through.
    counted: usize,
    /// The line that these end in, from 1.
    line: usize,
}

impl Lines<'_> {
    /// The line of the record that begins at `byte`, or after the line ends there.
    fn at(&mut self, byte: u64) -> usize {
        let begin = usize::try_from(byte).unwrap_or(usize::MAX).clamp(self.counted, self.content.len());
        let line_ends = self.content[begin..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let end = begin + line_ends;
        self.line += self.content[self.counted..end].iter().filter(|b| **b == b'\n').count();
        self.counted = end;
        self.line
    }
}

/// Where a record begins.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    /// From 1.
    line: usize,
}

impl Place<'_> {
    fn fields(&self, found: usize, expected: usize) -> OlistError {
        OlistError::Fields { path: self.path.to_owned(), line: self.line, found, expected }
    }
}

/// One cell of a record.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    place: Place<'a>,
    column: &'static str,
    bytes: &'a [u8],
}

impl<'a> Cell<'a> {
    pub(super) fn text(self) -> Result<&'a str, OlistError> {
        std::str::from_utf8(self.bytes).map_err(|_| self.is_not("UTF-8"))
    }

    /// An id as Olist writes it: 32 hex digits.
    pub(super) fn id(self) -> Result<Uuid, OlistError> {
        let is_simple = self.bytes.len() == 32;
        let id = Uuid::try_parse_ascii(self.bytes).ok().filter(|_| is_simple);
        id.ok_or_else(|| self.is_not("an id of 32 hex digits"))
    }

    pub(super) fn sku(self) -> Result<Sku, OlistError> {
        Sku::new(self.text()?).map_err(|BadSku| self.is_not("1 to 64 printable ASCII characters without blanks"))
    }

    /// A number of a row within its order.
    pub(super) fn number(self) -> Result<u32, OlistError> {
        self.text()?.parse().map_err(|_| self.is_not("a whole number"))
    }

    /// A time as Olist writes it, to the second; none if the cell is empty. The files name no time zone: it is taken to
    /// be UTC.
    pub(super) fn time(self) -> Result<Option<DateTime<Utc>>, OlistError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let time = NaiveDateTime::parse_from_str(self.text()?, "%Y-%m-%d %H:%M:%S");
        Ok(Some(time.map_err(|_| self.is_not("a time such as 2017-10-02 10:56:33"))?.and_utc()))
    }

    /// A payment type: what the domain takes for the kind of a payment method.
    pub(super) fn kind(self) -> Result<String, OlistError> {
        let is_code = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
        let fits = (1..=32).contains(&self.bytes.len()) && self.bytes.iter().all(is_code);
        if fits { Ok(self.text()?.to_owned()) } else { Err(self.is_not("1 to 32 of a-z, 0-9 and underscore")) }
    }

    /// An amount, which is added to `total`.
    pub(super) fn amount(self, total: &mut Amount) -> Result<Amount, OlistError> {
        let amount = cents(self.text()?).ok_or_else(|| self.is_not("an amount such as 109.90"))?;
        *total = total.checked_add(amount).ok_or_else(|| self.is_not("small enough for the sum of its file"))?;
        Ok(amount)
    }

    pub(super) fn is_not(self, expected: &'static str) -> OlistError {
        // A quote that is never closed makes one cell of the rest of the file.
        let found = String::from_utf8_lossy(self.bytes).chars().take(60).collect();
        let Place { path, line } = self.place;
        OlistError::Cell { path: path.to_owned(), line, column: self.column, found, expected }
    }
}

/// Decimal text of at most two decimals, exactly; `None` for anything else, signs and blanks included.
fn cents(text: &str) -> Option<Amount> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "00"));
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > 2 {
        return None;
    }
    let decimals: i64 = format!("{decimals:0<2}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(100)?.checked_add(decimals).map(Amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_read_exactly_or_not_at_all() {
        for (text, amount) in [("109.90", 10_990), ("0.07", 7), ("5", 500), ("5.1", 510), ("0.00", 0), ("007.00", 700)]
        {
            assert_eq!(cents(text), Some(Amount(amount)), "{text}");
        }
        assert_eq!(cents("92233720368547758.07"), Some(Amount(i64::MAX)));
        let bad = ["", ".", "5.", ".50", "1.234", "-1.00", "+1.00", "1,50", "1.-5", " 1.00", "1e2", "1.0.0", "٣.00"];
        for text in bad.into_iter().chain(["92233720368547758.08", "99999999999999999999"]) {
            assert_eq!(cents(text), None, "{text}");
        }
    }
}
