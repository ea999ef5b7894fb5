//! Where an export goes: to a file that is there when it is complete and on disk, or to standard output.

use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Takes lines. Dropped before it is finished, it leaves no file.
pub struct Writer {
    out: Out,
    file: Option<Unfinished>,
}

enum Out {
    Plain(BufWriter<Target>),
    Zstd(BufWriter<zstd::Encoder<'static, Target>>),
}

type Target = Box<dyn Write + Send>;

impl Writer {
    /// Writes to the file at `path`; what is there stays until the new one is complete. Only its owner may read it, for
    /// it holds what the log holds.
    ///
    /// # Errors
    /// When it cannot be made, or something else than a file is there.
    pub fn to_file(path: &Path, zstd: bool) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.new", std::process::id()));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let unfinished = Unfinished { file, temporary: temporary.into(), path: path.to_owned() };
        let target = Box::new(unfinished.file.try_clone()?);
        Ok(Self { out: Out::to(target, zstd)?, file: Some(unfinished) })
    }

    /// # Errors
    /// When zstd has no memory.
    pub fn to_stdout(zstd: bool) -> io::Result<Self> {
        Ok(Self { out: Out::to(Box::new(io::stdout()), zstd)?, file: None })
    }

    pub(super) fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let out: &mut dyn Write = match &mut self.out {
            Out::Plain(out) => out,
            Out::Zstd(out) => out,
        };
        serde_json::to_writer(&mut *out, line)?;
        out.write_all(b"\n")
    }

    /// Completes the file: when this is done, it is on disk, under its name.
    pub(super) fn finish(self) -> io::Result<()> {
        let mut target = match self.out {
            Out::Plain(out) => out.into_inner()?,
            Out::Zstd(out) => out.into_inner()?.finish()?,
        };
        target.flush()?;
        self.file.map_or(Ok(()), |file| file.finish())
    }
}

impl Out {
    fn to(target: Target, zstd: bool) -> io::Result<Self> {
        if !zstd {
            return Ok(Self::Plain(BufWriter::new(target)));
        }
        let mut encoder = zstd::Encoder::new(target, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(Self::Zstd(BufWriter::new(encoder)))
    }
}

/// A file that does not have its name yet; it goes, if it never gets it.
struct Unfinished {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    fn finish(&self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is not there any more, if it was finished.
        _ = fs::remove_file(&self.temporary);
    }
}
