//! Reads an export: line by line, compressed or not, in batches that the log is filled with.

use super::ImportError;
use super::cloud_event::{self, Line};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use store::{Category, Position, RecordedEvent};
use uuid::Uuid;

/// What a batch may hold, in events and in bytes of lines.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The longest line, in bytes: that of the largest payload is a fifth of it.
const MAX_LINE: u64 = 1024 * 1024;
/// What a zstd frame begins with (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Events, one line after the other.
pub(super) struct Batch {
    pub(super) events: Vec<RecordedEvent>,
    /// The last position of the export that they are of.
    pub(super) announced: Position,
}

/// Reads to the end, or until `take` has had enough.
pub(super) fn read(
    input: impl Read + 'static,
    categories: &[Category],
    mut take: impl FnMut(Batch) -> bool,
) -> Result<(), ImportError> {
    let input = decompressed(input).map_err(|source| ImportError::Read { line: 0, source })?;
    let mut lines = Lines { input, number: 0, text: Vec::new() };
    let mut course = Course::default();
    loop {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < BATCH && bytes < BATCH_BYTES {
            let Some(text) = lines.next()? else { break };
            bytes += text.len();
            let line = cloud_event::read(categories, text).and_then(|line| course.check(&line).map(|()| line));
            events.push(line.map_err(|why| ImportError::Line { line: lines.number, why })?.event);
        }
        if events.is_empty() || !take(Batch { events, announced: course.announced }) {
            return Ok(());
        }
    }
}

/// The file itself, or what is in its zstd frames.
fn decompressed(mut input: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut magic = Vec::new();
    input.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut magic)?;
    let is_zstd = magic == ZSTD_MAGIC;
    let input = Cursor::new(magic).chain(input);
    match is_zstd {
        true => Ok(Box::new(BufReader::new(zstd::Decoder::new(input)?))),
        false => Ok(Box::new(BufReader::new(input))),
    }
}

struct Lines {
    input: Box<dyn BufRead>,
    /// Of the line that was read last, from 1.
    number: i64,
    text: Vec<u8>,
}

impl Lines {
    /// The next line without its end; none after the last.
    fn next(&mut self) -> Result<Option<&[u8]>, ImportError> {
        self.text.clear();
        let read = self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.text);
        let read = read.map_err(|source| ImportError::Read { line: self.number, source })?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let why = match self.text.pop() {
            Some(b'\n') => return Ok(Some(&self.text)),
            _ if read as u64 == MAX_LINE => format!("it is longer than {MAX_LINE} bytes"),
            _ => "it is cut off".to_owned(),
        };
        Err(ImportError::Line { line: self.number, why })
    }
}

/// What the lines so far say of those to come: they are of one log, and of an export that goes on to its end. After that
/// another one may follow, of the next part of the log.
#[derive(Default)]
struct Course {
    log_id: Option<Uuid>,
    position: Position,
    announced: Position,
}

impl Course {
    fn check(&mut self, line: &Line) -> Result<(), String> {
        let Line { event, log_id, last } = line;
        if self.log_id.is_some_and(|before| before != *log_id) {
            return Err("it is of another log than the lines before it".to_owned());
        }
        if self.position < self.announced && self.announced != *last {
            return Err(format!("the export before it is cut off: it was to go on to position {}", self.announced));
        }
        if event.position > *last {
            return Err(format!("its position is {}, and its export ends at {last}", event.position));
        }
        *self = Self { log_id: Some(*log_id), position: event.position, announced: *last };
        Ok(())
    }
}
