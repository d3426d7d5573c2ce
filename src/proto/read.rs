//! Reading: the file is mapped and decoded so that every `raw_data` is a slice of the map.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/IR.md>. Invariants: never a panic, whatever the bytes are; a
//! model that is handed out has a graph; external data lies in the tensors' `raw_data`, their `data_location` still
//! says where it came from.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::external;
use super::map::Pages;
use super::onnx::ModelProto;
use crate::{Error, Result};

/// A model and the file it came from.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// The decoded model. Tensors share the memory of `bytes` or of the mapped data files.
    pub model: ModelProto,
    /// The path as it was given.
    pub path: PathBuf,
    /// The whole file.
    pub bytes: Bytes,
    /// How many bytes shorter the file gets when it is encoded again: fields that are newer than the schema of this
    /// program and would be dropped. 0 when nothing would be.
    pub unknown_bytes: u64,
    /// Encoded length minus file length. Not 0 means that re-encoding changes the length: fields unknown to this
    /// program are dropped, or another tool encoded the same content in another way (packed shapes, padded numbers).
    pub length_change: i64,
    /// True when a tensor's data lies in another file.
    pub has_external: bool,
    /// The files that are mapped.
    pub pages: Pages,
}

/// Reads a model and, if it has any, its external data.
///
/// Errors name the file, what is wrong with it and what to do.
pub fn read(path: &Path) -> Result<ModelFile> {
    let mut pages = Pages::default();
    let bytes = pages.map_file(path, "an ONNX file")?;
    let mut model = decode(bytes.clone()).map_err(|error| error.file(path))?;
    let as_i64 = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let length_change = as_i64(model.encoded_len()) - as_i64(bytes.len());
    let unknown_bytes = length_change.min(0).unsigned_abs();
    let has_external = external::load(&mut model, path, &mut pages)?;
    Ok(ModelFile { model, path: path.to_path_buf(), bytes, unknown_bytes, length_change, has_external, pages })
}

/// Decodes a model in memory. External data is not loaded.
pub fn decode(bytes: Bytes) -> Result<ModelProto> {
    if bytes.is_empty() {
        return Err(Error::input("is empty").help("export or download the model again"));
    }
    match ModelProto::decode(bytes.clone()) {
        Ok(model) if model.graph.is_some() => Ok(model),
        Ok(_) => Err(foreign(&bytes).unwrap_or_else(|| {
            Error::input("has no graph, so it is not an ONNX model").help("give a file that was exported as ONNX")
        })),
        Err(error) => Err(foreign(&bytes).unwrap_or_else(|| explain(&bytes, error))),
    }
}

/// Says what a file is that is not ONNX, if its first bytes tell.
fn foreign(bytes: &[u8]) -> Option<Error> {
    let begin = bytes.get(..bytes.len().min(512)).unwrap_or_default();
    if begin.starts_with(b"version https://git-lfs") {
        return Some(Error::input("is a Git LFS pointer, not the model").help("fetch the model with `git lfs pull`"));
    }
    const MAGIC: [(usize, &[u8], &str); 6] = [
        (0, b"PK\x03\x04", "a zip archive (PyTorch saves models so)"),
        (0, b"\x89HDF", "an HDF5 file (Keras saves models so)"),
        (0, b"\x80\x02", "a Python pickle (old PyTorch saves models so)"),
        (0, b"\x1f\x8b", "a gzip archive"),
        (4, b"TFL3", "a TensorFlow Lite model"),
        (4, b"ORTM", "a model in the ORT format"),
    ];
    let known = MAGIC.iter().find(|(at, magic, _)| begin.get(*at..).is_some_and(|tail| tail.starts_with(magic)));
    if let Some((_, _, kind)) = known {
        return Some(Error::input(format!("is {kind}, not an ONNX file")).help("export the model as ONNX"));
    }
    let text = match std::str::from_utf8(begin) {
        Ok(text) => Some(text),
        // The window may end inside a character.
        Err(error) if error.error_len().is_none() => {
            begin.get(..error.valid_up_to()).and_then(|b| std::str::from_utf8(b).ok())
        }
        Err(_) => None,
    };
    let readable =
        text.is_some_and(|text| !text.is_empty() && text.chars().all(|c| !c.is_control() || "\t\r\n".contains(c)));
    readable.then(|| {
        Error::input("looks like text, not an ONNX file").help("give the .onnx file itself, not a page or a list")
    })
}

fn explain(bytes: &[u8], error: prost::DecodeError) -> Error {
    let message = error.to_string();
    if message.contains("recursion limit") {
        return Error::input("graphs or types are nested more than 100 messages deep")
            .help("flatten the nested subgraphs; a file like this may be made to attack its readers");
    }
    if message.contains("not UTF-8") {
        return Error::input("a name or text in the model is not UTF-8").because(error).help("export the model again");
    }
    match missing_bytes(bytes) {
        Some(missing) => Error::input(format!("ends {missing} bytes too early, the file is truncated"))
            .help("download or export it again"),
        None => Error::input("is not an ONNX file, or is damaged").because(error).help("download or export it again"),
    }
}

/// How many bytes the last field of a file that begins like an ONNX model lacks, when its end was cut off.
///
/// Walks the outermost message only: <https://protobuf.dev/programming-guides/encoding/>.
fn missing_bytes(mut bytes: &[u8]) -> Option<usize> {
    const TEXT_OR_MESSAGE: u64 = 2;
    let mut fields = 0;
    loop {
        let (key, rest) = varint(bytes)?;
        let (tag, wire) = (key >> 3, key & 7);
        let expected = match tag {
            1 | 5 => 0,
            2..=4 | 6..=8 | 14 | 20 | 25 | 26 => TEXT_OR_MESSAGE,
            // A field newer than this schema can only be believed after known ones.
            _ if fields > 0 => wire,
            _ => return None,
        };
        if wire != expected {
            return None;
        }
        fields += 1;
        let (value, rest) = varint(rest)?;
        bytes = match wire {
            0 => rest,
            TEXT_OR_MESSAGE => {
                let length = usize::try_from(value).ok()?;
                match rest.get(length..) {
                    Some(rest) => rest,
                    None => return Some(length - rest.len()),
                }
            }
            _ => return None,
        };
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = bytes;
    let value = prost::decode_length_delimiter(&mut rest).ok()?;
    Some((u64::try_from(value).ok()?, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::proto::onnx::GraphProto;

    fn model() -> ModelProto {
        let graph = GraphProto { name: Some("g".repeat(300)), ..GraphProto::default() };
        ModelProto {
            ir_version: Some(8),
            producer_name: Some("test".into()),
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_model() {
        let whole = model().encode_to_vec();
        for length in 0..whole.len() {
            let error = decode(Bytes::copy_from_slice(&whole[..length])).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
        let cut = decode(Bytes::copy_from_slice(&whole[..whole.len() - 7])).unwrap_err().to_string();
        assert!(cut.contains("ends 7 bytes too early, the file is truncated"), "{cut}");
    }

    #[test]
    fn foreign_files_are_named() {
        let message = |bytes: &[u8]| decode(Bytes::copy_from_slice(bytes)).unwrap_err().to_string();
        assert!(message(b"").contains("is empty"));
        assert!(message(b"<html><body>404</body></html>\n").contains("looks like text"));
        assert!(message("# Modèle\n".as_bytes()).contains("looks like text"));
        assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
        assert!(message(b"PK\x03\x04\x00\x00\x08\x08").contains("zip archive"));
        assert!(message(b"\x1c\x00\x00\x00TFL3\x14").contains("TensorFlow Lite"));
        assert!(message(&[0xff; 64]).contains("is not an ONNX file, or is damaged"));
        assert!(message(&ModelProto { graph: None, ..model() }.encode_to_vec()).contains("has no graph"));
    }
}
