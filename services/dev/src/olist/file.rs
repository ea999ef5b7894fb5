//! A CSV file with a header: its cells by column name, and errors that say which file, line and column are at fault.

use super::amount::{self, Amounts};
use super::ids::{FileId, IdOf, Ids, NoId};
use super::problem::Problem;
use chrono::{DateTime, NaiveDateTime, Utc};
use csv::ByteRecord;
use orders::id::{BadSku, Sku};
use orders::money::{Amount, BadCurrency};
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum OlistError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("{} is no CSV: {source}", path.display())]
    Csv { path: PathBuf, source: csv::Error },

    #[error("{} is UTF-16: save it as UTF-8", path.display())]
    Utf16 { path: PathBuf },

    #[error("{}, line 1: there is no column {column}", path.display())]
    NoColumn { path: PathBuf, column: &'static str },

    #[error("{}, line 1: the columns are separated by {separator:?}: save it with commas", path.display())]
    NoCommas { path: PathBuf, separator: char },

    #[error("{}, line 1: there are two columns {column}", path.display())]
    ColumnTwice { path: PathBuf, column: &'static str },

    #[error(
        "{}, line 1: there is a column {column}, but every amount is taken for BRL: if all are, take the column out",
        path.display()
    )]
    CurrencyColumn { path: PathBuf, column: String },

    #[error("{}, line {line}: a quote is opened, and never closed", path.display())]
    OpenQuote { path: PathBuf, line: usize },

    #[error("{}, line {line}: {found} fields, where the header has {expected}", path.display())]
    Fields { path: PathBuf, line: usize, found: usize, expected: usize },

    #[error(transparent)]
    Cell(#[from] CellError),

    #[error("the currency of the data set: {0}")]
    Currency(#[from] BadCurrency),
}

/// A cell that is not what its column holds.
#[derive(Debug, thiserror::Error)]
pub struct CellError {
    pub problem: Problem,
    path: PathBuf,
    line: usize,
    column: &'static str,
    /// None, if it may be personal data.
    found: Option<String>,
    expected: &'static str,
}

impl fmt::Display for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem, path, line, column, found, expected } = self;
        write!(f, "{}, line {line}, column {column}: ", path.display())?;
        match (problem, found) {
            (Problem::Empty, _) => write!(f, "it is empty, and not {expected}"),
            (_, Some(found)) => write!(f, "{found:?} is not {expected}"),
            (_, None) => write!(f, "it is not {expected}"),
        }
    }
}

/// An amount that a spreadsheet has written, and what it is taken for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TidiedAmount {
    /// The order's id, as the files write it.
    pub order: String,
    pub file: String,
    pub line: usize,
    pub column: &'static str,
    pub found: String,
    /// In centavos.
    pub amount: Amount,
}

/// What is kept from one row of a folder to the next.
pub(super) struct Reading {
    amounts: Amounts,
    ids: Ids,
}

impl Reading {
    pub(super) fn new(amounts: Amounts) -> Self {
        Self { amounts, ids: Ids::default() }
    }
}

/// Reads the file at `path` row by row: `row` is given the cells of `columns`, wherever in the file these stand.
pub(super) fn read<T, const N: usize>(
    path: &Path,
    columns: [&'static str; N],
    mut row: impl FnMut([Cell<'_>; N]) -> Result<T, OlistError>,
) -> Result<Vec<T>, OlistError> {
    let content = std::fs::read(path).map_err(|source| OlistError::Read { path: path.to_owned(), source })?;
    let not_csv = |source| OlistError::Csv { path: path.to_owned(), source };
    if content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff") {
        return Err(OlistError::Utf16 { path: path.to_owned() });
    }
    // It would take the rest of the file for one cell, maybe of a column that nobody reads.
    if let Some(byte) = open_quote(&content) {
        let line = 1 + line_ends(&content[..byte]);
        return Err(OlistError::OpenQuote { path: path.to_owned(), line });
    }
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
    let path = || path.to_owned();
    let has = |byte: u8| header.iter().any(|name| name.contains(&byte));
    if let Some(separator) = [';', '\t'].into_iter().find(|s| header.len() == 1 && has(*s as u8)) {
        return Err(OlistError::NoCommas { path: path(), separator });
    }
    let names = || header.iter().map(|name| String::from_utf8_lossy(name).into_owned());
    if let Some(column) = names().find(|name| name.to_ascii_lowercase().contains("currency")) {
        return Err(OlistError::CurrencyColumn { path: path(), column });
    }
    let mut at = [0; N];
    for (at, column) in at.iter_mut().zip(columns) {
        let mut all = header.iter().enumerate().filter(|(_, name)| *name == column.as_bytes());
        (*at, _) = all.next().ok_or_else(|| OlistError::NoColumn { path: path(), column })?;
        if all.next().is_some() {
            return Err(OlistError::ColumnTwice { path: path(), column });
        }
    }
    Ok(at)
}

/// Where the quote stands that is opened and never closed, if there is one.
fn open_quote(content: &[u8]) -> Option<usize> {
    enum In {
        NewCell,
        Cell,
        Quotes(usize),
        /// Behind the closing quote, or between the two of a doubled one.
        Closed(usize),
    }
    let begin = if content.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let bytes = content.iter().enumerate().skip(begin);
    let end = bytes.fold(In::NewCell, |state, (at, byte)| match (state, byte) {
        (In::NewCell, b'"') => In::Quotes(at),
        (In::Quotes(opened), b'"') => In::Closed(opened),
        (In::Closed(opened), b'"') | (In::Quotes(opened), _) => In::Quotes(opened),
        (In::NewCell | In::Cell | In::Closed(_), b',' | b'\r' | b'\n') => In::NewCell,
        (In::NewCell | In::Cell | In::Closed(_), _) => In::Cell,
    });
    if let In::Quotes(opened) = end { Some(opened) } else { None }
}

/// How many lines end in `content`, with LF, CR LF or, as an old Mac writes them, CR.
fn line_ends(content: &[u8]) -> usize {
    let ends_line = |(at, byte): &(usize, &u8)| match byte {
        b'\n' => true,
        b'\r' => content.get(at + 1) != Some(&b'\n'),
        _ => false,
    };
    content.iter().enumerate().filter(ends_line).count()
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
        let end = begin + self.content[begin..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        self.line += line_ends(&self.content[self.counted..end]);
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
    pub(super) fn text(self) -> Result<&'a str, CellError> {
        std::str::from_utf8(self.bytes).map_err(|_| self.is_not(Problem::NotUtf8, "UTF-8"))
    }

    pub(super) fn id(self, of: IdOf, reading: &mut Reading) -> Result<FileId, CellError> {
        reading.ids.take(of, self.text()?).map_err(|e| match e {
            NoId::Malformed => {
                self.is_not(Problem::Id, "an id: 1 to 64 printable ASCII characters without blanks and without @")
            }
            NoId::SameUuid => {
                self.is_not(Problem::SameUuid, "an id with a UUID of its own: that of another is the same")
            }
        })
    }

    pub(super) fn sku(self) -> Result<Sku, CellError> {
        let expected = "1 to 64 printable ASCII characters without blanks";
        Sku::new(self.text()?).map_err(|BadSku| self.is_not(Problem::Sku, expected))
    }

    /// A number of a row within its order.
    pub(super) fn number(self) -> Result<u32, CellError> {
        self.text()?.parse().map_err(|_| self.is_not(Problem::Number, "a whole number"))
    }

    /// A time as Olist writes it, to the second; none if the cell is empty. The files name no time zone: it is taken to
    /// be UTC.
    pub(super) fn time(self) -> Result<Option<DateTime<Utc>>, CellError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let time = NaiveDateTime::parse_from_str(self.text()?, "%Y-%m-%d %H:%M:%S");
        Ok(Some(time.map_err(|_| self.no_time())?.and_utc()))
    }

    pub(super) fn no_time(self) -> CellError {
        self.is_not(Problem::Time, "a time such as 2017-10-02 10:56:33")
    }

    /// A payment type: what the domain takes for the kind of a payment method.
    pub(super) fn kind(self) -> Result<String, CellError> {
        let is_code = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
        let fits = (1..=32).contains(&self.bytes.len()) && self.bytes.iter().all(is_code);
        let expected = "1 to 32 of a-z, 0-9 and underscore";
        if fits { Ok(self.text()?.to_owned()) } else { Err(self.is_not(Problem::PaymentType, expected)) }
    }

    /// An amount of `order`, which is added to `total`. If it was tidied, that is told.
    pub(super) fn amount(
        self,
        order: &FileId,
        reading: &Reading,
        total: &mut Amount,
        tidied: &mut Vec<TidiedAmount>,
    ) -> Result<Amount, CellError> {
        let no_amount = |problem| self.is_not(problem, amount::expected(problem));
        let amount::Read { amount, is_tidied } = amount::read(self.text()?, reading.amounts).map_err(no_amount)?;
        *total = total.checked_add(amount).ok_or_else(|| no_amount(Problem::AmountTooLarge))?;
        if is_tidied {
            let Place { path, line } = self.place;
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (order, column, found) = (order.written(), self.column, self.found());
            tidied.push(TidiedAmount { order, file, line, column, found, amount });
        }
        Ok(amount)
    }

    pub(super) fn is_not(self, problem: Problem, expected: &'static str) -> CellError {
        let problem = if self.bytes.is_empty() { Problem::Empty } else { problem };
        let Place { path, line } = self.place;
        // What stands where a customer's id should may be a person's name.
        let found = (self.column != CUSTOMER).then(|| self.found());
        CellError { problem, path: path.to_owned(), line, column: self.column, found, expected }
    }

    /// A cell may be as long as its file.
    fn found(self) -> String {
        String::from_utf8_lossy(self.bytes).chars().take(60).collect()
    }
}

/// The column of a customer's id.
pub(super) const CUSTOMER: &str = "customer_id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_that_is_never_closed_is_found() {
        for (content, at) in [
            ("a,b\n1,\"2\n3,4\n", Some(6)),
            ("\u{feff}\"a,b", Some(3)),
            ("a,b\n1,\"2\"\"", Some(6)),
            ("a,b\n\"1\",\"x\"\"y, \r\n z\"\n\"\",\"\"\"\"\n", None),
            // Within a cell without quotes it is a letter.
            ("a,b\n5\" disk,5\"\" disk\n", None),
            ("", None),
        ] {
            assert_eq!(open_quote(content.as_bytes()), at, "{content:?}");
        }
    }

    #[test]
    fn lines_end_as_any_system_ends_them() {
        for (content, ends) in [("", 0), ("a", 0), ("a\nb", 1), ("a\r\nb\r\n", 2), ("a\rb\r", 2), ("\n\n\r\n", 3)] {
            assert_eq!(line_ends(content.as_bytes()), ends, "{content:?}");
        }
    }
}
