//! Folders of test data as ONNX models come with: `test_data_set_N/input_M.pb`, one sample per folder.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/onnx/backend/test/README.md>. Every file holds a `TensorProto` with
//! the whole input, batch axis included.

use std::path::{Path, PathBuf};

use prost::Message;

use super::array::{Encoding, decode};
use super::files::open;
use super::folder::entries;
use crate::calibration::Source;
use crate::engine::inputs::InputDeclaration;
use crate::engine::{ElementType, Feeds, Value};
use crate::proto::onnx::TensorProto;
use crate::proto::tensor::raw_bytes;
use crate::{Error, Result};

/// The start of the names of folders.
const FOLDER: &str = "test_data_set_";

/// Samples from folders of `input_M.pb`.
pub(super) struct TestData {
    folders: Vec<PathBuf>,
    inputs: Vec<String>,
}

/// Opens the folders among `paths`, or `folder` itself where the files lie in it; `None` when there are none.
pub(super) fn open_folders(folder: &Path, paths: &[PathBuf], inputs: &[InputDeclaration]) -> Result<Option<TestData>> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let number = |path: &Path| name(path).strip_prefix(FOLDER).and_then(|n| n.parse::<u64>().ok());
    let mut folders: Vec<PathBuf> =
        paths.iter().filter(|path| name(path).starts_with(FOLDER) && path.is_dir()).cloned().collect();
    // 10 comes after 9, not after 1.
    folders.sort_by_key(|path| number(path));
    if folders.is_empty() && paths.iter().any(|path| file_number(&name(path)).is_some()) {
        folders.push(folder.to_path_buf());
    }
    if folders.is_empty() {
        return Ok(None);
    }
    Ok(Some(TestData { folders, inputs: inputs.iter().map(|input| input.name.clone()).collect() }))
}

/// The M of `input_M.pb`.
fn file_number(name: &str) -> Option<usize> {
    name.strip_prefix("input_")?.strip_suffix(".pb")?.parse().ok()
}

impl Source for TestData {
    fn len(&self) -> usize {
        self.folders.len()
    }

    fn sample(&self, index: usize) -> Result<Feeds> {
        let Some(folder) = self.folders.get(index) else {
            return Err(Error::input(format!("there is no sample {index}, only {}", self.folders.len())));
        };
        let mut tensors = Vec::new();
        for path in entries(folder)? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(number) = file_number(&name) {
                tensors.push((number, read(&path)?, path));
            }
        }
        // Names decide where they are those of the inputs, because inputs that are left out shift the numbers.
        let all_named = self.inputs.iter().all(|input| tensors.iter().any(|(_, t, _)| t.name() == input));
        let find = |(number, input): (usize, &String)| {
            let fits = |(n, t, _): &&(usize, TensorProto, PathBuf)| match all_named {
                true => t.name() == input,
                false => *n == number,
            };
            let Some((_, tensor, path)) = tensors.iter().find(fits) else {
                let error = Error::input(format!("no input_{number}.pb for a graph input")).tensor(input);
                return Err(error.file(folder));
            };
            Ok((input.clone(), value(tensor).map_err(|e| e.file(path).tensor(input))?))
        };
        self.inputs.iter().enumerate().map(find).collect()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.folders.get(index).map(PathBuf::as_path)
    }
}

fn read(path: &Path) -> Result<TensorProto> {
    let mut bytes = Vec::new();
    let read = std::io::Read::read_to_end(&mut open(path)?, &mut bytes);
    read.map_err(|e| Error::input("cannot read this file").file(path).because(e))?;
    TensorProto::decode(bytes.as_slice()).map_err(|e| {
        let error = Error::input("not a tensor of ONNX").file(path).because(e);
        error.help("sequences, maps and optional values cannot be fed")
    })
}

fn value(tensor: &TensorProto) -> Result<Value> {
    let element = ElementType::try_from(tensor.data_type())
        .map_err(|e| Error::input("has an unknown element type, or is no tensor").because(e))?;
    let encoding = Encoding { element, big_endian: false };
    if encoding.width().is_none() {
        return Err(Error::input(format!("samples cannot have the element type {}", element.as_str_name())));
    }
    let bytes = raw_bytes(tensor)?;
    // The number of bytes has been checked against the extents, so these are not negative.
    let shape: Vec<usize> = tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
    decode(&bytes, encoding, &shape)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;

    use super::super::{SourceOptions, open as open_source};
    use super::*;
    use crate::calibration::Batches;
    use crate::calibration::batching::{Feeder, FeederOptions};
    use crate::engine::inputs::tests::model_with_inputs;
    use crate::proto::tensor::{from_f32, from_i64};

    fn write(folder: &Path, file: &str, tensor: &TensorProto) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(file), tensor.encode_to_vec()).unwrap();
    }

    #[test]
    fn folders_are_samples_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for n in [10, 2] {
            let set = folder.path().join(format!("test_data_set_{n}"));
            write(&set, "input_0.pb", &from_f32("", &[1, 2], &[n as f32, 0.5]));
            write(&set, "input_1.pb", &from_i64("", &[1], &[n]));
            write(&set, "output_0.pb", &from_i64("", &[1], &[0]));
        }
        let model = model_with_inputs(&[
            ("x", ElementType::Float, Some(&["n", "2"])),
            ("length", ElementType::Int64, Some(&["n"])),
        ]);
        let options = SourceOptions::new(folder.path());
        let source = open_source(folder.path(), &model, &options).unwrap();
        let feeder = Feeder::new(Arc::from(source), &model, &FeederOptions::default()).unwrap();
        assert_eq!((feeder.len(), feeder.samples()), (2, 2));
        let batch = feeder.batch(1).unwrap();
        assert_eq!((batch.feeds[0].1.shape(), batch.feeds[0].1.to_f64()), (&[1, 2][..], vec![10.0, 0.5]));
        assert_eq!(batch.feeds[1].1.to_f64(), [10.0]);

        // One set alone, whose tensors have the names of inputs.
        let one = folder.path().join("test_data_set_2");
        write(&one, "input_0.pb", &from_i64("length", &[1], &[7]));
        write(&one, "input_1.pb", &from_f32("x", &[1, 2], &[1.0, 2.0]));
        let source = open_source(&one, &model, &options).unwrap();
        let feeds = source.sample(0).unwrap();
        assert_eq!((feeds[0].0.as_str(), feeds[0].1.to_f64()), ("x", vec![1.0, 2.0]));
        assert_eq!((source.len(), feeds[1].1.to_f64()), (1, vec![7.0]));
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let model = model_with_inputs(&[("x", ElementType::Float, Some(&["n", "2"]))]);
        let message = |bytes: &[u8]| {
            std::fs::write(folder.path().join("input_0.pb"), bytes).unwrap();
            let source = open_source(folder.path(), &model, &SourceOptions::new(folder.path())).unwrap();
            source.sample(0).unwrap_err().to_string()
        };
        let whole = from_f32("x", &[1, 2], &[1.0, 2.0]).encode_to_vec();
        assert!(message(&whole[..whole.len() - 1]).contains("not a tensor of ONNX"));
        assert!(message(&from_f32("x", &[1, 3], &[1.0, 2.0]).encode_to_vec()).contains("its shape [1, 3] needs 12"));
        // A sequence with one tensor: name, element type, tensor.
        let mut sequence = vec![0x0a, 1, b'x', 0x10, 1, 0x1a, whole.len() as u8];
        sequence.extend(&whole);
        let error = message(&sequence);
        assert!(error.contains("input_0.pb: "), "{error}");
        std::fs::rename(folder.path().join("input_0.pb"), folder.path().join("input_1.pb")).unwrap();
        let source = open_source(folder.path(), &model, &SourceOptions::new(folder.path())).unwrap();
        assert!(source.sample(0).unwrap_err().to_string().contains("no input_0.pb for a graph input (tensor `x`)"));
    }
}
