//! Arrays by name, read whole: labels, because a metric needs all of them and they are small, and the samples that a
//! verification looks at.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::files::Files;
use super::{SourceOptions, format_of, unknown};
use crate::engine::{Samples, Value};
use crate::{Error, Result};

/// The most bytes that come out of decompression: they are held in memory, and a small file can become any number.
const MOST_DECOMPRESSED: u64 = 2 << 30;

/// The arrays of a file of labels by name; the first axis counts samples. Arrays of text are left out, because no
/// metric can use them.
///
/// # Errors
/// When the file cannot be read, or an array holds Python objects.
pub fn read_labels(path: impl AsRef<Path>, options: &SourceOptions) -> Result<BTreeMap<String, Value>> {
    let path = path.as_ref();
    let labels = arrays(path, options)?;
    if labels.is_empty() {
        return Err(Error::input("holds no labels").file(path).help("save arrays of numbers, named after the tasks"));
    }
    Ok(labels)
}

/// The arrays of a file as samples, named after graph inputs; the first axis counts them. Arrays of text are left out,
/// because no input can use them.
///
/// # Errors
/// When the file cannot be read, an array holds Python objects, or arrays hold different numbers of samples.
pub fn read_samples(path: impl AsRef<Path>, options: &SourceOptions) -> Result<Samples> {
    let path = path.as_ref();
    Samples::new(arrays(path, options)?).map_err(|e| e.file(path))
}

fn arrays(path: &Path, options: &SourceOptions) -> Result<BTreeMap<String, Value>> {
    let format = format_of(path).ok_or_else(|| unknown(path))?;
    let most_temporary_bytes = options.most_temporary_bytes.min(MOST_DECOMPRESSED);
    let files = Arc::new(Files::new(&SourceOptions { most_temporary_bytes, ..options.clone() }));
    let mut arrays = BTreeMap::new();
    for name in (format.names)(path)? {
        let array = (format.array)(path, &name, &files)?;
        if array.is_text() {
            continue;
        }
        let value = array.all().map_err(|e| e.file(path).tensor(&name))?;
        arrays.insert(name, value);
    }
    Ok(arrays)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::npy::tests::npy;
    use super::super::npz::tests::npz;
    use super::*;

    fn read(members: &[(&str, Vec<u8>)]) -> Result<BTreeMap<String, Value>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.npz");
        std::fs::write(&path, npz(members, true)).unwrap();
        read_labels(&path, &SourceOptions::new(folder.path()))
    }

    #[test]
    fn numbers_are_read_text_is_left_out_and_objects_are_refused() {
        let number = npy("'<i2'", false, &[2, 1], &[7, 0, 9, 0]);
        let text = npy("'<U1'", false, &[2], &[65, 0, 0, 0, 66, 0, 0, 0]);
        let labels = read(&[("digit", number.clone()), ("letter", text.clone())]).unwrap();
        assert_eq!(labels.keys().collect::<Vec<_>>(), ["digit"]);
        assert_eq!((labels["digit"].shape(), labels["digit"].to_f64()), (&[2, 1][..], vec![7.0, 9.0]));
        assert!(read(&[("letter", text)]).unwrap_err().to_string().contains("holds no labels"));
        let error = read(&[("digit", number), ("z", npy("'|O'", false, &[1], b"\x80\x04N."))]).unwrap_err().to_string();
        assert!(error.contains("Python objects is refused, never unpickled") && error.contains("`z`"), "{error}");
        assert!(read_labels("labels.csv", &SourceOptions::new("")).is_err());
    }

    #[test]
    fn samples_are_bounded_by_what_the_file_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.npz");
        let read = |members: &[(&str, Vec<u8>)]| {
            std::fs::write(&path, npz(members, true)).unwrap();
            read_samples(&path, &SourceOptions::new(folder.path()))
        };
        let halves = npy("'<f2'", false, &[2], &[0, 0x3c, 0, 0xc0]);
        let samples =
            read(&[("x", halves), ("names", npy("'<U1'", false, &[2], &[65, 0, 0, 0, 66, 0, 0, 0]))]).unwrap();
        assert_eq!((samples.len(), samples.arrays()["x"].to_f64()), (2, vec![1.0, -2.0]));
        // A header that claims 16 PiB: nothing may be allocated for it.
        let error = read(&[("x", npy("'<f4'", false, &[1 << 52], &[0; 16]))]).unwrap_err().to_string();
        assert!(error.contains("truncated: 16 bytes are there") && error.contains("`x`"), "{error}");
        let number = |n: usize| npy("'|u1'", false, &[n], &vec![0; n]);
        let error = read(&[("x", number(2)), ("y", number(3))]).unwrap_err().to_string();
        assert!(error.contains("3 samples, but `x` has 2"), "{error}");
        assert!(
            read_samples("absent.npz", &SourceOptions::new("")).unwrap_err().to_string().starts_with("absent.npz: ")
        );
    }
}
