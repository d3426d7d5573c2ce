//! `.npz` files: zip archives of `.npy` members.
//!
//! Stored members are read where they lie, deflated ones are decompressed once into the temporary file. Invariants:
//! only members that are asked for are decompressed; neither the declared nor the real size of one exceeds the bound.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use super::array::Array;
use super::files::{Files, Place, length, open};
use super::npy;
use crate::{Error, Result};

/// The ending of a member that holds an array.
const ENDING: &str = ".npy";

/// The names of the arrays, in order.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let archive = archive(path)?;
    let names = archive.file_names().filter_map(|name| name.strip_suffix(ENDING));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    Ok(names)
}

/// Opens one array.
pub(super) fn array(path: &Path, name: &str, files: &Arc<Files>) -> Result<Array> {
    member(path, name, files).map_err(|e| e.file(path).tensor(name))
}

fn member(path: &Path, name: &str, files: &Arc<Files>) -> Result<Array> {
    let damaged = |e: zip::result::ZipError| {
        let help = match e {
            zip::result::ZipError::UnsupportedArchive(_) => "save it again with numpy.savez",
            _ => "the file is damaged, save it again",
        };
        Error::input("cannot read this member of the archive").because(e).help(help)
    };
    let mut archive = archive(path)?;
    let full = format!("{name}{ENDING}");
    let mut member = archive.by_name(&full).map_err(damaged)?;
    let header = npy::read_header(&mut member)?;
    let (declared, start) = (member.size(), member.data_start());
    let rest = declared.saturating_sub(header.length);
    match member.compression() {
        CompressionMethod::Stored => {
            let available = length(path)?.saturating_sub(start).saturating_sub(header.length);
            npy::place(header, files, Place::File(path.to_path_buf()), start, available.min(rest))
        }
        _ => {
            let start = files.keep(&mut member, rest)?;
            npy::place(npy::Header { length: 0, ..header }, files, Place::Temporary, start, rest)
        }
    }
}

fn archive(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    ZipArchive::new(BufReader::new(open(path)?)).map_err(|e| {
        let error = Error::input("not a whole .npz file").file(path).because(e);
        error.help("it may be truncated, save it again with numpy.savez")
    })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::npy::tests::npy;
    use super::*;
    use crate::calibration::source::SourceOptions;

    /// An archive of `.npy` members.
    pub(in crate::calibration) fn npz(members: &[(&str, Vec<u8>)], deflated: bool) -> Vec<u8> {
        let method = if deflated { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in members {
            let options = SimpleFileOptions::default().compression_method(method);
            writer.start_file(format!("{name}.npy"), options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn open_one(bytes: &[u8], most: u64) -> Result<Array> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        std::fs::write(&path, bytes).unwrap();
        let mut options = SourceOptions::new(folder.path());
        options.most_temporary_bytes = most;
        let opened = array(&path, "x", &Arc::new(Files::new(&options)))?;
        // Read while the folder is still there.
        opened.sample(0)?;
        Ok(opened)
    }

    #[test]
    fn stored_and_deflated_members_read_the_same() {
        let data: Vec<u8> = (0..24u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
        for deflated in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.npz");
            let other = npy("'|u1'", false, &[2], &[5, 6]);
            std::fs::write(&path, npz(&[("y", other), ("x", npy("'<f4'", false, &[4, 2, 3], &data))], deflated))
                .unwrap();
            assert_eq!(names(&path).unwrap(), ["x", "y"]);
            let files = Arc::new(Files::new(&SourceOptions::new(folder.path())));
            let x = array(&path, "x", &files).unwrap();
            let y = array(&path, "y", &files).unwrap();
            assert_eq!(x.sample(3).unwrap().to_f64(), [18.0, 19.0, 20.0, 21.0, 22.0, 23.0]);
            assert_eq!(x.sample(0).unwrap().shape(), [2, 3]);
            assert_eq!(y.sample(1).unwrap().to_f64(), [6.0]);
        }
    }

    #[test]
    fn truncated_files_are_refused() {
        let whole = npz(&[("x", npy("'<f4'", false, &[4], &[0; 16]))], false);
        for cut in [0, 1, 30, 60, whole.len() - 30, whole.len() - 1] {
            let error = open_one(&whole[..cut], 1 << 20).unwrap_err().to_string();
            assert!(error.contains("not a whole .npz file"), "{cut}: {error}");
        }
        // The archive is whole, but its array is not.
        let error = open_one(&npz(&[("x", npy("'<f4'", false, &[4], &[0; 15]))], true), 1 << 20).unwrap_err();
        assert!(error.to_string().contains("truncated: 15 bytes are there, its shape [4] needs 16"), "{error}");
    }

    #[test]
    fn other_ways_to_compress_are_not_called_damage() {
        let mut bytes = npz(&[("x", npy("'<f4'", false, &[4], &[0; 16]))], false);
        // The method, in the header of the member and in the directory: 12 is bzip2.
        let directory = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        (bytes[8], bytes[directory + 10]) = (12, 12);
        let error = open_one(&bytes, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("not supported; save it again with numpy.savez"), "{error}");
    }

    #[test]
    fn archives_that_swell_are_bounded() {
        let swelling = npz(&[("x", npy("'|u1'", false, &[1 << 24], &vec![0; 1 << 24]))], true);
        assert!(swelling.len() < 1 << 16);
        let error = open_one(&swelling, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("16777216 bytes when decompressed, and 1048576 are left"), "{error}");
        assert!(open_one(&swelling, 1 << 24).is_ok());

        // The same member, claiming to be small in both of its headers.
        let size = (swelling_size() as u32).to_le_bytes();
        let mut lying = swelling.clone();
        let mut places = 0;
        for at in 0..lying.len() - 4 {
            if lying[at..at + 4] == size {
                lying[at..at + 4].copy_from_slice(&200u32.to_le_bytes());
                places += 1;
            }
        }
        assert!(places >= 1, "the declared size was not found");
        let error = open_one(&lying, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("72 bytes are declared, and more come out"), "{error}");
    }

    fn swelling_size() -> usize {
        npy("'|u1'", false, &[1 << 24], &[]).len() + (1 << 24)
    }
}
