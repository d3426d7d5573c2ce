//! Calibration data from real files: everything that comes with the models of this repository is read, and what is
//! wrong with data is said with its place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array4, ArrayD, IxDyn, OwnedRepr, arr1};
use ndarray_npy::{NpzReader, NpzWriter, ReadableElement};

use onnx_mtprune::calibration::batching::{Feeder, FeederOptions};
use onnx_mtprune::calibration::source::{SourceOptions, open, read_labels};
use onnx_mtprune::calibration::{Batch, Batches, Source};
use onnx_mtprune::engine::{Samples, Value};
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::proto::read;
use onnx_mtprune::text;

/// A model with one input.
const SMALL: &str = "in image [n, 1, 4, 4]\ny = Relu(image)\nout y\n";

fn source(path: &Path, model: &ModelProto) -> onnx_mtprune::Result<Arc<dyn Source>> {
    let temporary = tempfile::tempdir().unwrap();
    // The temporary file has no name, so its folder may go before it.
    open(path, model, &SourceOptions::new(temporary.path())).map(Arc::from)
}

/// All arrays of a file, by a reader that shares nothing with the program's.
fn load_npz(path: &Path) -> Samples {
    fn attempt<T: ReadableElement>(npz: &mut NpzReader<File>, name: &str) -> Option<Value>
    where
        Value: From<ArrayD<T>>,
    {
        npz.by_name::<OwnedRepr<T>, IxDyn>(name).ok().map(Value::from)
    }
    let mut npz = NpzReader::new(File::open(path).unwrap()).unwrap();
    let readers = [attempt::<f32>, attempt::<u8>, attempt::<i64>, attempt::<f64>, attempt::<i32>, attempt::<bool>];
    let mut arrays = BTreeMap::new();
    for name in npz.names().unwrap() {
        let value = readers.iter().find_map(|reader| reader(&mut npz, &name)).unwrap();
        arrays.insert(name, value);
    }
    Samples::new(arrays).unwrap()
}

/// What is read sample by sample equals what another reader loads as a whole.
#[test]
fn the_data_of_this_repository_is_read_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compared = 0;
    for folder in ["onnx-models", "../shared/models"] {
        let Ok(models) = std::fs::read_dir(root.join(folder)) else {
            println!("skipped: no folder {folder}");
            continue;
        };
        for model in models.map(|entry| entry.unwrap().path()) {
            let data = ["calibration.npz", "inputs.npz"].map(|name| model.join(name));
            let (Some(data), true) = (data.iter().find(|p| p.exists()), model.join("model.onnx").exists()) else {
                continue;
            };
            let proto = read(&model.join("model.onnx")).unwrap().model;
            let source = source(data, &proto).unwrap();
            let options = FeederOptions { batch_size: 3, max_samples: Some(7), ..FeederOptions::default() };
            let feeder = Feeder::new(source, &proto, &options).unwrap();
            let all = load_npz(data);
            let batches: Vec<_> = (0..feeder.len()).map(|n| feeder.batch(n).unwrap()).collect();
            for batch in &batches {
                for (place, sample) in batch.samples.iter().enumerate() {
                    for ((name, whole), (_, one)) in batch.feeds.iter().zip(all.feeds(&proto, *sample).unwrap()) {
                        let is_stacked = whole.shape() != one.shape() || batch.samples.len() > 1;
                        let found = if is_stacked { whole.select(0, &[place]).unwrap() } else { whole.clone() };
                        assert_eq!(found, one, "{}: sample {sample} of {name}", data.display());
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared >= 7, "{compared} values compared");
}

fn small_model() -> ModelProto {
    text::parse(SMALL).unwrap()
}

/// The error of reading everything at `path`.
fn failure(path: &Path, model: &ModelProto) -> String {
    fn read_all(path: &Path, model: &ModelProto) -> onnx_mtprune::Result<Vec<Batch>> {
        let feeder = Feeder::new(source(path, model)?, model, &FeederOptions::default())?;
        (0..feeder.len()).map(|n| feeder.batch(n)).collect()
    }
    let error = read_all(path, model).expect_err("bad data is read").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// An `.npz` file with five samples of which `spoil` changes one number.
fn npz(path: &Path, name: &str, spoil: Option<f32>) {
    let mut images = Array4::<f32>::zeros((5, 1, 4, 4));
    images[[3, 0, 1, 2]] = spoil.unwrap_or(0.5);
    let mut npz = NpzWriter::new_compressed(std::fs::File::create(path).unwrap());
    npz.add_array(name, &images).unwrap();
    npz.add_array("label", &arr1(&[0i64, 1, 2, 3, 4])).unwrap();
    npz.finish().unwrap();
}

#[test]
fn an_empty_folder_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = failure(folder.path(), &small_model());
    assert!(error.contains("no data in this folder; give a file that ends in one of"), "{error}");
    let error = failure(&folder.path().join("absent.npz"), &small_model());
    assert!(error.contains("absent.npz: cannot open"), "{error}");
    std::fs::write(folder.path().join("data.csv"), "1,2").unwrap();
    let error = failure(&folder.path().join("data.csv"), &small_model());
    assert!(error.contains("data.csv: not a kind of data that can be read"), "{error}");
}

#[test]
fn wrong_names_are_said_with_those_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    npz(&path, "picture", None);
    let error = failure(&path, &small_model());
    let want =
        "a.npz: no array for a graph input, only [\"label\", \"picture\"]; the inputs are [\"image\"] (tensor `image`)";
    assert!(error.contains(want), "{error}");
}

#[test]
fn one_number_that_is_none_is_said_with_sample_and_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    npz(&path, "image", Some(f32::NAN));
    let error = failure(&path, &small_model());
    let want = "a.npz: sample 3: NaN as element 6 of the shape [1, 4, 4] (tensor `image`)";
    assert!(error.contains(want), "{error}");
}

#[test]
fn truncated_archives_are_refused_wherever_they_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    npz(&path, "image", None);
    let whole = std::fs::read(&path).unwrap();
    for end in 0..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        let error = failure(&path, &small_model());
        assert!(error.contains("a.npz: not a whole .npz file"), "{end}: {error}");
    }
}

/// Whatever bit of an archive is changed, the answer is samples or an error of one line.
#[test]
fn damaged_archives_end_in_samples_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    npz(&path, "image", None);
    let whole = std::fs::read(&path).unwrap();
    let model = small_model();
    let (mut read, mut refused) = (0, 0);
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        std::fs::write(&path, &bytes).unwrap();
        let opened = source(&path, &model).and_then(|s| Feeder::new(s, &model, &FeederOptions::default()));
        match opened.and_then(|feeder| feeder.batch(0)) {
            Ok(_) => read += 1,
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                refused += 1;
            }
        }
    }
    println!("{read} changes left samples, {refused} were refused");
    assert!(refused > read / 10 && read > 0, "{read} read, {refused} refused");
}

/// A pickle in an array of objects is never looked at: nothing in the program could run it.
#[test]
fn arrays_of_objects_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let header = b"{'descr': '|O', 'fortran_order': False, 'shape': (5,), }\n";
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header);
    array.extend(b"cposix\nsystem\n(S'touch pickled'\ntR.");
    let path = folder.path().join("image.npy");
    std::fs::write(&path, array).unwrap();
    let error = failure(&path, &small_model());
    assert!(error.contains("image.npy: an array of Python objects is refused, never unpickled"), "{error}");
    let options = SourceOptions::new(folder.path());
    assert!(read_labels(&path, &options).unwrap_err().to_string().contains("never unpickled"));
}

#[test]
fn a_picture_that_does_not_decode_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    image::GrayImage::from_pixel(5, 7, image::Luma([9])).save(&path).unwrap();
    assert_eq!(source(folder.path(), &small_model()).unwrap().len(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(folder.path().join("b.png"), bytes).unwrap();
    let error = failure(folder.path(), &small_model());
    assert!(error.contains("b.png: sample 1: this picture does not decode (tensor `image`)"), "{error}");
}

/// Neither what an archive declares nor what comes out of it is written beyond the bound.
#[test]
fn archives_that_swell_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let file = std::fs::File::create(&path).unwrap();
    let mut zip = zip::ZipWriter::new(file);
    zip.start_file("image.npy", zip::write::SimpleFileOptions::default()).unwrap();
    let header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2000000, 1, 4, 4), }\n";
    zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
    zip.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
    zip.write_all(header).unwrap();
    (0..32).for_each(|_| zip.write_all(&[0; 1_000_000]).unwrap());
    zip.finish().unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length < 100_000, "{length}");
    let mut options = SourceOptions::new(folder.path());
    options.most_temporary_bytes = 10_000_000;
    let error = open(&path, &small_model(), &options).err().unwrap().to_string();
    assert!(error.contains("32000000 bytes when decompressed, and 10000000 are left"), "{error}");
    options.most_temporary_bytes = 40_000_000;
    assert_eq!(open(&path, &small_model(), &options).unwrap().len(), 2_000_000);
}

/// Reading many samples takes no more memory than reading few.
#[test]
fn memory_does_not_grow_with_the_number_of_samples() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib * 1024)
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    const MANY: usize = 10_000;
    let wide = text::parse(&SMALL.replace("1, 4, 4", "1, 64, 256")).unwrap();
    let row: Vec<u8> = (0..1 << 14).map(|n| (n % 251) as u8).collect();
    {
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        zip.start_file("image.npy", zip::write::SimpleFileOptions::default()).unwrap();
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({MANY}, 1, 64, 256), }}\n");
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
        zip.write_all(header.as_bytes()).unwrap();
        (0..MANY).for_each(|_| zip.write_all(&row).unwrap());
        zip.finish().unwrap();
    }
    let Some(before) = resident() else {
        println!("skipped: no /proc/self/status");
        return;
    };
    let feeder = Feeder::new(source(&path, &wide).unwrap(), &wide, &FeederOptions::default()).unwrap();
    let mut seen = 0;
    for batch in 0..feeder.len() {
        seen += feeder.batch(batch).unwrap().samples.len();
    }
    let grown = resident().unwrap() - before;
    assert_eq!(seen, MANY);
    // The data is 164 MB, a batch as single precision 2 MB.
    assert!(grown < 40 << 20, "the peak grew by {grown} bytes");
}
