//! Libraries that are cut off, as downloads and full disks leave them: the system's loader maps them and the process
//! dies at the first page that is not there.
//!
//! Spec: <https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html>. Invariant: other formats and whatever is not
//! understood are left to the loader, which refuses them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How many bytes the segments of a 64-bit little-endian library reach to, and how many the file has, if it has fewer.
pub(super) fn missing_bytes(path: &Path) -> Option<(u64, u64)> {
    const HEADER: usize = 64;
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (number(&header, 32, 8)?, number(&header, 54, 2)?, number(&header, 56, 2)?);
    let table_end = table.checked_add(size.checked_mul(count)?)?;
    if table_end > length {
        return Some((table_end, length));
    }
    file.seek(SeekFrom::Start(table)).ok()?;
    let mut entries = vec![0; usize::try_from(table_end.checked_sub(table)?).ok()?];
    file.read_exact(&mut entries).ok()?;
    let ends = entries.chunks_exact(usize::try_from(size).ok().filter(|n| *n > 0)?).filter_map(|entry| {
        // Where a segment starts in the file, and how many bytes of the file it is.
        number(entry, 8, 8)?.checked_add(number(entry, 32, 8)?)
    });
    ends.max().filter(|end| *end > length).map(|end| (end, length))
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |n, byte| (n << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A header, one program header at 64 and a segment that reaches to `end`.
    fn library(end: u64, length: usize) -> tempfile::NamedTempFile {
        let mut bytes = vec![0u8; length];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
        bytes[64 + 32..64 + 40].copy_from_slice(&end.to_le_bytes());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn segments_behind_the_end_are_noticed() {
        assert_eq!(missing_bytes(library(200, 200).path()), None);
        assert_eq!(missing_bytes(library(201, 200).path()), Some((201, 200)));
        let cut = library(0, 200);
        cut.as_file().set_len(100).unwrap();
        assert_eq!(missing_bytes(cut.path()), Some((120, 100)));
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(text.path(), "text").unwrap();
        assert_eq!(missing_bytes(text.path()), None);
        #[cfg(target_os = "linux")]
        assert_eq!(missing_bytes(&std::env::current_exe().unwrap()), None);
    }
}
