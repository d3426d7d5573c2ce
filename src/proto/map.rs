//! A file as memory: mapped, not read, so that weights nobody touches never leave the disk.
//!
//! Invariants: only regular files are mapped; pages are given back only where a map of this list holds them. A file
//! that somebody else shortens while it is mapped ends the process (SIGBUS); the program itself never writes into a
//! mapped file, it replaces files as a whole.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;

use crate::{Error, Result};

/// The mapped files of a model. Whoever is done with a tensor for now can give its pages back, so that a pass over all
/// weights holds no more of them than what it looks at; the pages come back from the file when they are read again.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    maps: Vec<Arc<Mmap>>,
}

impl Pages {
    /// Maps a whole file. `kind` names it in errors ("an ONNX file", "a data file").
    pub(crate) fn map_file(&mut self, path: &Path, kind: &str) -> Result<Bytes> {
        let Some(map) = map_file(path, kind)? else { return Ok(Bytes::new()) };
        let map = Arc::new(map);
        self.maps.push(Arc::clone(&map));
        Ok(Bytes::from_owner(Owner(map)))
    }

    /// Gives back the memory behind a part of a mapped file; does nothing for bytes that lie elsewhere.
    pub fn release(&self, bytes: &[u8]) {
        let start = bytes.as_ptr().addr();
        for map in &self.maps {
            let offset = start.checked_sub(map.as_ptr().addr());
            let Some(offset) = offset.filter(|offset| offset.saturating_add(bytes.len()) <= map.len()) else {
                continue;
            };
            // SAFETY: the map is read-only and shared with the file, so that its pages hold what the file holds
            // whenever they are read; dropping them loses nothing.
            #[cfg(unix)]
            #[allow(unsafe_code)]
            // A system that refuses keeps the pages, which is what would happen without asking.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, bytes.len()) };
            #[cfg(not(unix))]
            let _ = offset;
            return;
        }
    }
}

/// A map that is shared between the tensors and the list of maps.
struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn map_file(path: &Path, kind: &str) -> Result<Option<Mmap>> {
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
        return Ok(None);
    }
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is read-only and lives as long as the last `Bytes` that shares it. Its contents change only if
    // another process writes into the file meanwhile; this program never does (see the header).
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    Ok(Some(map))
}
