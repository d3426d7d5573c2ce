//! `.npy` files: one array of NumPy behind a header.
//!
//! Spec: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1 to 3. Invariants: a
//! header is read up to a bound and never evaluated; Python objects are refused, never unpickled.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::array::{Array, Encoding, sizes};
use super::files::{Files, Place, length, open};
use crate::engine::ElementType;
use crate::{Error, Result};

/// The longest header that is read; NumPy's own bound is 10,000 characters.
const LONGEST_HEADER: usize = 1 << 16;

/// The largest array in Fortran order, in bytes, because it is turned around in memory.
const LARGEST_TURNED: usize = 1 << 30;

/// What the header of an array says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) encoding: Encoding,
    pub(super) shape: Vec<usize>,
    /// The first axis changes fastest.
    pub(super) fortran_order: bool,
    /// How many bytes stand before the elements.
    pub(super) length: u64,
}

/// The name of the one array: that of the file without its ending.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let stem = path.file_stem().unwrap_or_default();
    Ok(vec![stem.to_string_lossy().into_owned()])
}

/// Opens the array of a file.
pub(super) fn array(path: &Path, _name: &str, files: &Arc<Files>) -> Result<Array> {
    let at = |e: Error| e.file(path);
    let header = read_header(&mut open(path)?).map_err(at)?;
    let available = length(path)?.saturating_sub(header.length);
    place(header, files, Place::File(path.to_path_buf()), 0, available).map_err(at)
}

/// An array whose header begins at `start`, with `available` bytes behind the header.
pub(super) fn place(header: Header, files: &Arc<Files>, place: Place, start: u64, available: u64) -> Result<Array> {
    let Header { encoding, shape, fortran_order, length } = header;
    let start = start.checked_add(length).ok_or_else(|| Error::input("begins beyond every file"))?;
    // With one extent above 1 both orders are the same.
    if !fortran_order || shape.iter().filter(|extent| **extent > 1).count() <= 1 {
        return Array::new(files, place, start, available, encoding, shape);
    }
    turned(files, &place, start, available, encoding, shape)
}

/// The array in row-major order, written to the temporary file.
fn turned(
    files: &Arc<Files>,
    place: &Place,
    start: u64,
    available: u64,
    encoding: Encoding,
    shape: Vec<usize>,
) -> Result<Array> {
    let (_, all) = sizes(encoding, &shape)?;
    let width = encoding.width().unwrap_or(1);
    if all > LARGEST_TURNED || all as u64 > available {
        let what = format!("an array in Fortran order of shape {shape:?} is too large, or truncated");
        return Err(Error::input(what).help("save numpy.ascontiguousarray of it"));
    }
    let mut bytes = vec![0; all];
    files.read(place, start, &mut bytes)?;
    let mut rows = Vec::with_capacity(all);
    let mut index = vec![0usize; shape.len()];
    for _ in 0..all / width {
        let place = index.iter().zip(&shape).rev().fold(0, |place, (i, extent)| place * extent + i) * width;
        rows.extend_from_slice(bytes.get(place..place + width).unwrap_or_default());
        for (i, extent) in index.iter_mut().zip(&shape).rev() {
            *i += 1;
            if *i < *extent {
                break;
            }
            *i = 0;
        }
    }
    let start = files.keep(&mut rows.as_slice(), all as u64)?;
    Array::new(files, Place::Temporary, start, all as u64, encoding, shape)
}

/// Reads a header from the start of a file or of a member of an archive.
pub(super) fn read_header(from: &mut dyn Read) -> Result<Header> {
    let bad = |what: &str| Error::input(what).help("save it again with numpy.save or numpy.savez");
    let truncated = |e: std::io::Error| bad("its header is cut off").because(e);
    let mut start = [0; 8];
    from.read_exact(&mut start).map_err(truncated)?;
    let [magic @ .., major, _minor] = start;
    if magic != *b"\x93NUMPY" {
        return Err(bad("not an array of NumPy"));
    }
    let (text, before) = match major {
        1 => {
            let mut n = [0; 2];
            from.read_exact(&mut n).map_err(truncated)?;
            (usize::from(u16::from_le_bytes(n)), 10u64)
        }
        2 | 3 => {
            let mut n = [0; 4];
            from.read_exact(&mut n).map_err(truncated)?;
            (u32::from_le_bytes(n) as usize, 12)
        }
        _ => return Err(bad(&format!("version {major} of the array format is unknown"))),
    };
    if text > LONGEST_HEADER {
        return Err(bad(&format!("its header claims {text} bytes")));
    }
    let mut bytes = vec![0; text];
    from.read_exact(&mut bytes).map_err(truncated)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| bad("its header is not text").because(e))?;
    let descr = entry(text, "descr").ok_or_else(|| bad("its header has no `descr`"))?;
    let order = entry(text, "fortran_order").ok_or_else(|| bad("its header has no `fortran_order`"))?;
    let shape = entry(text, "shape").ok_or_else(|| bad("its header has no `shape`"))?;
    Ok(Header {
        encoding: encoding(descr)?,
        shape: extents(shape).ok_or_else(|| bad("its header has no usable `shape`"))?,
        fortran_order: order.starts_with("True"),
        length: before + bytes.len() as u64,
    })
}

/// What follows `'key':` in the dictionary.
fn entry<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let rest = quoted.iter().find_map(|q| text.split_once(q.as_str()))?.1;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// `(3, 4)`, `(3,)` or `()`.
fn extents(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(')?.split_once(')')?.0;
    // Python 2 wrote a letter behind long integers.
    let extents = inner.split(',').map(|part| part.trim().trim_end_matches('L')).filter(|part| !part.is_empty());
    extents.map(|part| part.parse().ok()).collect()
}

/// A type such as `'<f4'`: byte order, kind and width.
fn encoding(text: &str) -> Result<Encoding> {
    use ElementType::{Bool, Double, Float, Float16, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let Some(descr) = quote.and_then(|q| text.get(1..)?.split_once(q)).map(|(descr, _)| descr) else {
        return Err(Error::input("an array of records is not one of numbers").help("save every field as its own array"));
    };
    let (order, kind) = descr.split_at_checked(1).filter(|(o, _)| "<>|=".contains(*o)).unwrap_or(("=", descr));
    let element = match kind {
        "f2" => Float16,
        "f4" => Float,
        "f8" => Double,
        "b1" | "?" => Bool,
        "i1" => Int8,
        "i2" => Int16,
        "i4" => Int32,
        "i8" => Int64,
        "u1" => Uint8,
        "u2" => Uint16,
        "u4" => Uint32,
        "u8" => Uint64,
        _ if kind.starts_with(['U', 'S']) => ElementType::String,
        _ if kind.starts_with('O') => {
            let error = Error::input("an array of Python objects is refused, never unpickled");
            return Err(error.help("save numbers, e.g. with numpy.asarray(x, dtype=numpy.float32)"));
        }
        _ => {
            let error = Error::input(format!("elements of the type `{descr}` are not numbers that can be fed"));
            return Err(error.help("save it as float32, uint8 or int64"));
        }
    };
    Ok(Encoding { element, big_endian: order == ">" })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::calibration::source::SourceOptions;

    /// A file of version 1 as NumPy writes it.
    pub(in crate::calibration) fn npy(descr: &str, fortran: bool, shape: &[usize], data: &[u8]) -> Vec<u8> {
        let shape = shape.iter().map(|n| format!("{n},")).collect::<String>();
        let fortran = if fortran { "True" } else { "False" };
        let mut header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': ({shape}), }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn message(bytes: &[u8]) -> String {
        read_header(&mut &bytes[..]).unwrap_err().to_string()
    }

    #[test]
    fn headers_say_type_order_and_shape() {
        let header = read_header(&mut npy("'>i2'", true, &[3, 4], &[]).as_slice()).unwrap();
        assert_eq!(header.encoding, Encoding { element: ElementType::Int16, big_endian: true });
        assert_eq!((header.shape, header.fortran_order, header.length), (vec![3, 4], true, 128));
        let mut second = npy("'|b1'", false, &[], &[]);
        second[6] = 2;
        let n = (second.len() as u32 - 10).to_le_bytes();
        second.splice(8..10, n);
        let header = read_header(&mut second.as_slice()).unwrap();
        assert_eq!((header.encoding.element, header.shape, header.length), (ElementType::Bool, vec![], 130));
    }

    #[test]
    fn what_is_no_array_of_numbers_is_refused() {
        assert!(message(&npy("'|O'", false, &[1], b"\x80\x04")).contains("Python objects is refused, never unpickled"));
        assert!(message(&npy("'<c8'", false, &[1], &[])).contains("`<c8` are not numbers"));
        assert!(message(&npy("[('a', '<f4')]", false, &[1], &[])).contains("records"));
        assert!(message(b"\x93NUMPY\x01\x00\x50\x00{").contains("cut off"));
        assert!(message(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{").contains("claims 2147483647 bytes"));
        assert!(message(b"\x93NUMPY\x09\x00\x00\x00").contains("version 9"));
        assert!(message(b"PK\x03\x04 and so on").contains("not an array of NumPy"));
        assert!(message(&npy("'<f4'", false, &[1], &[])[..20]).contains("cut off"));
        let negative = String::from_utf8_lossy(&npy("'<f4'", false, &[1], &[])[10..]).replace("(1,)", "(-1,)");
        assert!(extents(entry(&negative, "shape").unwrap()).is_none());
    }

    #[test]
    fn fortran_order_is_turned_around() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        // [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]] with the first axis fastest.
        std::fs::write(&path, npy("'|u1'", true, &[2, 3, 2], &[1, 7, 3, 9, 5, 11, 2, 8, 4, 10, 6, 12])).unwrap();
        let files = Arc::new(Files::new(&SourceOptions::new(folder.path())));
        let array = array(&path, "x", &files).unwrap();
        assert_eq!(names(&path).unwrap(), ["x"]);
        assert_eq!(array.len(), 2);
        let second = array.sample(1).unwrap();
        assert_eq!((second.shape(), second.to_f64()), (&[3, 2][..], vec![7.0, 8.0, 9.0, 10.0, 11.0, 12.0]));
        assert_eq!(array.all().unwrap().shape(), [2, 3, 2]);
        assert!(array.sample(2).unwrap_err().to_string().contains("no sample 2, only 2"));
    }
}
