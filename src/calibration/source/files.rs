//! Bytes of data files, read where they are needed: nothing is mapped and nothing is kept, so that memory does not grow
//! with the size of the data.
//!
//! Invariants: at most one data file and one temporary file are open, however many files a source has; the temporary
//! file has no name, so it goes with the process, and never grows beyond its bound, whatever a compressed file declares.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::SourceOptions;
use crate::{Error, Result};

/// Where bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file of the person's.
    File(PathBuf),
    /// In the temporary file.
    Temporary,
}

/// Access to all files of a source.
#[derive(Debug)]
pub(super) struct Files {
    last: Mutex<Option<(PathBuf, File)>>,
    temporary: Mutex<Temporary>,
    folder: PathBuf,
    most: u64,
}

#[derive(Debug, Default)]
struct Temporary {
    file: Option<File>,
    used: u64,
}

impl Files {
    pub(super) fn new(options: &SourceOptions) -> Self {
        Self {
            last: Mutex::new(None),
            temporary: Mutex::new(Temporary::default()),
            folder: options.temporary.clone(),
            most: options.most_temporary_bytes,
        }
    }

    /// Fills `buffer` from `offset` on.
    pub(super) fn read(&self, place: &Place, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match place {
            Place::File(path) => {
                let mut last = lock(&self.last);
                let file = match &mut *last {
                    Some((open, file)) if open == path => file,
                    other => &mut other.insert((path.clone(), open(path)?)).1,
                };
                fill(file, offset, buffer).map_err(|e| {
                    let error = Error::input(format!("cannot read {} bytes at {offset}", buffer.len())).file(path);
                    error.because(e).help("the file has changed since it was opened, or is damaged")
                })
            }
            Place::Temporary => {
                let mut temporary = lock(&self.temporary);
                let Some(file) = &mut temporary.file else { return Err(Error::input("there is no temporary file")) };
                let read = fill(file, offset, buffer);
                read.map_err(|e| Error::input("cannot read the temporary file").because(e))
            }
        }
    }

    /// Writes the `declared` bytes that `from` must deliver to the end of the temporary file and returns where they
    /// begin. What is delivered is counted, so a file that declares less than it holds gains nothing.
    pub(super) fn keep(&self, from: &mut dyn Read, declared: u64) -> Result<u64> {
        let mut temporary = lock(&self.temporary);
        let start = temporary.used;
        if start.checked_add(declared).is_none_or(|end| end > self.most) {
            let left = self.most.saturating_sub(start);
            let what = format!("{declared} bytes when decompressed, and {left} are left for temporary data");
            return Err(Error::input(what).help("save it uncompressed, as numpy.savez does, or in smaller files"));
        }
        let failed = |e: io::Error| {
            Error::input("cannot write a temporary file").file(&self.folder).because(e).help("make room there")
        };
        let file = match &mut temporary.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.folder).map_err(failed)?),
        };
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        // One byte more than declared is enough to see that there are more.
        let written = copy(&mut from.take(declared.saturating_add(1)), file, failed)?;
        if written != declared {
            let more = if written > declared { "more" } else { "fewer" };
            let what = format!("{declared} bytes are declared, and {more} come out of decompression");
            return Err(Error::input(what).help("the file is damaged, save it again"));
        }
        temporary.used = start.saturating_add(declared);
        Ok(start)
    }
}

/// Copies in pieces; errors of reading and of writing are told apart.
fn copy(from: &mut dyn Read, to: &mut File, failed: impl Fn(io::Error) -> Error) -> Result<u64> {
    let mut piece = vec![0; 1 << 16];
    let mut written = 0u64;
    loop {
        let n = from.read(&mut piece).map_err(|e| {
            Error::input("cannot decompress").because(e).help("the file is damaged or truncated, save it again")
        })?;
        let Some(bytes) = piece.get(..n).filter(|bytes| !bytes.is_empty()) else { return Ok(written) };
        io::Write::write_all(to, bytes).map_err(&failed)?;
        written = written.saturating_add(n as u64);
    }
}

/// Opens a regular file for reading.
pub(super) fn open(path: &Path) -> Result<File> {
    let failed = |e: io::Error| Error::input("cannot open this file").file(path).because(e);
    // Looked at before it is opened, because opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::input("is not a regular file").file(path).help("save the data to disk first"));
    }
    File::open(path).map_err(failed)
}

/// The length of a file in bytes.
pub(super) fn length(path: &Path) -> Result<u64> {
    let failed = |e: io::Error| Error::input("cannot read this file").file(path).because(e);
    Ok(open(path)?.metadata().map_err(failed)?.len())
}

fn fill(file: &mut File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

/// A lock that a panic elsewhere does not close: the state behind it is valid between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn files(most: u64) -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let mut options = SourceOptions::new(folder.path());
        options.most_temporary_bytes = most;
        let files = Files::new(&options);
        (folder, files)
    }

    #[test]
    fn temporary_data_is_bounded_by_what_is_declared_and_by_what_comes() {
        let (folder, files) = files(10);
        assert_eq!(files.keep(&mut &b"abcd"[..], 4).unwrap(), 0);
        assert_eq!(files.keep(&mut &b"efg"[..], 3).unwrap(), 4);
        let error = files.keep(&mut &b"hijk"[..], 4).unwrap_err().to_string();
        assert!(error.contains("4 bytes when decompressed, and 3 are left"), "{error}");
        let error = files.keep(&mut io::repeat(b'x'), 2).unwrap_err().to_string();
        assert!(error.contains("2 bytes are declared, and more come out"), "{error}");
        let error = files.keep(&mut &b"h"[..], 2).unwrap_err().to_string();
        assert!(error.contains("2 bytes are declared, and fewer come out"), "{error}");
        assert!(files.keep(&mut &b""[..], u64::MAX).is_err());
        let mut buffer = [0; 5];
        files.read(&Place::Temporary, 1, &mut buffer).unwrap();
        assert_eq!(&buffer, b"bcdef");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the temporary file has a name");
    }

    #[test]
    fn files_are_read_in_turn_and_their_ends_noticed() {
        let (folder, files) = files(0);
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        std::fs::write(&a, "12345").unwrap();
        std::fs::write(&b, "678").unwrap();
        let read = |path: &Path, offset, n: usize| {
            let mut buffer = vec![0; n];
            files.read(&Place::File(path.to_path_buf()), offset, &mut buffer).map(|()| buffer)
        };
        assert_eq!(read(&a, 3, 2).unwrap(), b"45");
        assert_eq!(read(&b, 0, 1).unwrap(), b"6");
        assert_eq!(read(&a, 0, 1).unwrap(), b"1");
        assert!(read(&b, 2, 2).unwrap_err().to_string().contains("cannot read 2 bytes at 2"));
        assert!(open(folder.path()).unwrap_err().to_string().contains("not a regular file"));
        assert_eq!(length(&a).unwrap(), 5);
    }
}
