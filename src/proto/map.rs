//! A file as memory: mapped, not read, so that weights nobody touches never leave the disk.
//!
//! Invariant: only regular files are mapped. A file that somebody else shortens while it is mapped ends the process (SIGBUS); the
//! program itself never writes into a mapped file, it replaces files as a whole.

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;

use crate::{Error, Result};

/// Maps a whole file. `kind` names it in errors ("an ONNX file", "a data file").
pub(crate) fn map_file(path: &Path, kind: &str) -> Result<Bytes> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::input("no such file").file(path).help("check the path"),
        io::ErrorKind::PermissionDenied => {
            Error::input("no permission to read this file").file(path).help("change its permissions")
        }
        _ => Error::input("cannot read this file").file(path).because(error),
    };
    // Looked at before it is opened, because opening a pipe waits for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::input(format!("is a folder, not {kind}")).file(path).help("name a file inside it"));
    }
    if !metadata.is_file() {
        return Err(Error::input(format!("is not a regular file, so not {kind}"))
            .file(path)
            .help("save it to disk first"));
    }
    if metadata.len() == 0 {
        return Ok(Bytes::new());
    }
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is read-only and lives as long as the `Bytes` that owns it. Its contents change only if another
    // process writes into the file meanwhile; this program never does (see the header).
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    Ok(Bytes::from_owner(map))
}
