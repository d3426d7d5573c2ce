//! `.safetensors` files: arrays behind a header of JSON.
//!
//! Spec: <https://github.com/huggingface/safetensors#format>. Invariants: only the header is read on opening; its
//! offsets are checked against the length of the file.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::array::{Array, Encoding};
use super::files::{Files, Place, length, open};
use crate::engine::ElementType;
use crate::{Error, Result};

/// The longest header that is read, in bytes; the format's own bound.
const LONGEST_HEADER: u64 = 100_000_000;

/// The names of the arrays, in order.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let (metadata, _) = header(path)?;
    // Through a sorted list, because the crate keeps names in the order of a hash.
    let mut names: Vec<String> = metadata.tensors().into_keys().collect();
    names.sort_unstable();
    Ok(names)
}

/// Opens one array.
pub(super) fn array(path: &Path, name: &str, files: &Arc<Files>) -> Result<Array> {
    let at = |e: Error| e.file(path).tensor(name);
    let (metadata, start) = header(path)?;
    let info = metadata.info(name).ok_or_else(|| at(Error::input("no such array")))?;
    let element = element(info.dtype).map_err(at)?;
    let (from, to) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
    let start = start.checked_add(from).ok_or_else(|| at(Error::input("begins beyond every file")))?;
    let available = length(path)?.saturating_sub(start).min(to.saturating_sub(from));
    let encoding = Encoding { element, big_endian: false };
    Array::new(files, Place::File(path.to_path_buf()), start, available, encoding, info.shape.clone()).map_err(at)
}

/// The header, and where the data begins.
fn header(path: &Path) -> Result<(Metadata, u64)> {
    let bad = |what: String| Error::input(what).file(path).help("it may be truncated, save it again");
    let all = length(path)?;
    let mut file = open(path)?;
    let mut n = [0; 8];
    file.read_exact(&mut n).map_err(|e| bad("not a .safetensors file".to_string()).because(e))?;
    let n = u64::from_le_bytes(n);
    if n > LONGEST_HEADER || n > all.saturating_sub(8) {
        return Err(bad(format!("not a whole .safetensors file: its header claims {n} bytes of {all}")));
    }
    let mut text = vec![0; usize::try_from(n).unwrap_or(0)];
    file.read_exact(&mut text).map_err(|e| bad("its header is cut off".to_string()).because(e))?;
    let metadata = serde_json::from_slice(&text);
    let metadata =
        metadata.map_err(|e| bad("not a .safetensors file: its header is damaged".to_string()).because(e))?;
    Ok((metadata, n.saturating_add(8)))
}

fn element(dtype: Dtype) -> Result<ElementType> {
    Ok(match dtype {
        Dtype::BOOL => ElementType::Bool,
        Dtype::U8 => ElementType::Uint8,
        Dtype::I8 => ElementType::Int8,
        Dtype::U16 => ElementType::Uint16,
        Dtype::I16 => ElementType::Int16,
        Dtype::U32 => ElementType::Uint32,
        Dtype::I32 => ElementType::Int32,
        Dtype::U64 => ElementType::Uint64,
        Dtype::I64 => ElementType::Int64,
        Dtype::F16 => ElementType::Float16,
        Dtype::BF16 => ElementType::Bfloat16,
        Dtype::F32 => ElementType::Float,
        Dtype::F64 => ElementType::Double,
        other => {
            let error = Error::input(format!("samples cannot have the element type {other:?}"));
            return Err(error.help("save it as float32, uint8 or int64"));
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeMap;

    use safetensors::tensor::TensorView;

    use super::*;
    use crate::calibration::source::SourceOptions;

    #[test]
    fn arrays_are_read_and_damage_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let floats: Vec<u8> = (0..6u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
        let views = BTreeMap::from([
            ("x", TensorView::new(Dtype::F32, vec![3, 2], &floats).unwrap()),
            ("brain", TensorView::new(Dtype::BF16, vec![1], &[0x80, 0x3f]).unwrap()),
            ("tiny", TensorView::new(Dtype::F8_E5M2, vec![1], &[0]).unwrap()),
        ]);
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let files = Arc::new(Files::new(&SourceOptions::new(folder.path())));
        assert_eq!(names(&path).unwrap(), ["brain", "tiny", "x"]);
        let x = array(&path, "x", &files).unwrap();
        assert_eq!((x.len(), x.sample(2).unwrap().to_f64()), (3, vec![4.0, 5.0]));
        assert_eq!(array(&path, "brain", &files).unwrap().sample(0).unwrap().to_f64(), [1.0]);
        assert!(array(&path, "tiny", &files).unwrap_err().to_string().contains("element type F8_E5M2 (tensor `tiny`)"));

        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = names(&path).and_then(|_| array(&path, "x", &files)).unwrap_err();
            error.to_string()
        };
        assert!(message(&bytes[..4]).contains("not a .safetensors file"));
        assert!(message(&bytes[..40]).contains("not a whole .safetensors file: its header claims"));
        assert!(message(b"\x02\0\0\0\0\0\0\0[]").contains("header is damaged"));
        let x_at = bytes.len() - 10;
        assert!(message(&bytes[..x_at]).contains("truncated: "), "{}", message(&bytes[..x_at]));
        let mut far = bytes.clone();
        let at = far.windows(7).position(|w| w == b"[0,24],").or_else(|| far.windows(6).position(|w| w == b"[0,24]"));
        let at = at.unwrap();
        far[at..at + 6].copy_from_slice(b"[9,24]");
        assert!(message(&far).contains("invalid offset for tensor `x`"), "{}", message(&far));
    }
}
