//! Pruning with real samples through the real program: repair, fidelity, metrics, criteria on activations.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::program::Folder;
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/onnx-models/mmnist_lenet/model.onnx");
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/onnx-models/mmnist_lenet/calibration.npz");
const LABELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/onnx-models/mmnist_lenet/calibration_labels.npz");
const SCALE: &str = "image=0.00392156862745098";

/// Prunes to half with more options, in the built-in engine; gives the report.
fn report(folder: &Folder, more: &[&str]) -> Value {
    let words = [MODEL, "small.onnx", "--ratio", "0.5", "--engine", "tract", "--report", "report.json"];
    let words: Vec<&str> = words.iter().chain(more).copied().collect();
    folder.succeed(&words);
    serde_json::from_slice(&folder.bytes("report.json")).unwrap()
}

/// The accuracy of the task `left`, dense and pruned.
fn left(report: &Value) -> (f64, f64) {
    let task = &report["calibration"]["fidelity"][0];
    assert_eq!((&task["task"], &task["metric"]), (&Value::from("left"), &Value::from("accuracy")));
    (task["dense"].as_f64().unwrap(), task["pruned"].as_f64().unwrap())
}

#[test]
fn least_squares_brings_back_what_pruning_took() {
    let folder = Folder::new();
    let samples = ["--calibration", SAMPLES, "--input-scale", SCALE, "--labels", LABELS, "--metric", "left=accuracy"];
    let with = |more: &[&str]| report(&folder, &[&samples, more].concat());
    let (dense, cut) = left(&with(&["--repair", "none"]));
    let repaired = with(&[]);
    let (again, fitted) = left(&repaired);
    assert!(dense == again && dense > 0.9, "{dense} {again}");
    assert!(cut < dense - 0.1, "the cut must hurt for this to tell anything: {dense} {cut}");
    assert!(dense - fitted < 0.15 * (dense - cut), "dense {dense}, cut {cut}, repaired {fitted}");
    assert_eq!(repaired["calibration"]["repair"]["method"], "least-squares");
    assert_eq!(repaired["verification"]["outcome"], "passed");
    let check = &repaired["verification"]["repair"];
    let changed = repaired["calibration"]["repair"]["changed"].as_array().unwrap().len();
    assert_eq!((&check["outcome"], &check["changed"]), (&Value::from("passed"), &Value::from(changed)));
    // The numbers for a person are those of the report.
    let samples = [&samples[..], &["--engine", "tract"]].concat();
    let page = folder.succeed(&[&[MODEL, "small.onnx", "--ratio", "0.5"], &samples[..]].concat());
    assert!(page.contains(&format!("accuracy {dense:.4} -> {fitted:.4}")), "{page}");
    assert!(page.contains(&format!("verified: {changed} constants changed, 0 added")), "{page}");
}

/// The plan says what was repaired; the rest must be the cut that it describes.
#[test]
fn repaired_models_are_verified_later() {
    let folder = Folder::new();
    let samples = ["--calibration", SAMPLES, "--input-scale", SCALE, "--max-samples", "64"];
    let words = [MODEL, "small.onnx", "--ratio", "0.5", "--engine", "tract", "--plan-out", "plan.json"];
    folder.succeed(&[&words[..], &samples].concat());
    let verify = ["verify", MODEL, "small.onnx", "--plan", "plan.json", "--engine", "tract"];
    let page = folder.succeed(&verify);
    assert!(page.contains("equals the masked original") && page.contains("repair: verified: "), "{page}");
    // A weight that the repair names may be any number, but no infinite one; what it does not name stays.
    let model = folder.read("small.onnx");
    let plan: Value = serde_json::from_slice(&folder.bytes("plan.json")).unwrap();
    let changed = |name: &str| plan["repaired"]["changed"].as_array().unwrap().contains(&Value::from(name));
    let initializers = || model.graph.as_ref().unwrap().initializer.iter();
    let named = initializers().position(|t| changed(t.name())).unwrap();
    let unnamed = initializers().position(|t| !changed(t.name()) && t.raw_data.is_some()).unwrap();
    for (place, bytes, says) in
        [(named, [0, 0, 0x80, 0x7f], "NaN or infinity"), (unnamed, [1, 2, 3, 4], "has changed, and")]
    {
        let mut wrong = model.clone();
        let tensor = &mut wrong.graph.as_mut().unwrap().initializer[place];
        let mut raw = tensor.raw_data.clone().unwrap().to_vec();
        raw[..4].copy_from_slice(&bytes);
        tensor.raw_data = Some(raw.into());
        folder.proto("small.onnx", &wrong);
        let error = folder.fail(1, &verify);
        assert!(error.contains(says), "{error}");
    }
    // Replaying the plan cuts, and does not repair without samples.
    folder.succeed(&[MODEL, "cut.onnx", "--plan", "plan.json"]);
    let page = folder.succeed(&["verify", MODEL, "cut.onnx", "--plan", "plan.json", "--engine", "tract"]);
    assert!(page.contains("equals the masked original") && !page.contains("repair"), "{page}");
}

#[test]
fn criteria_on_activations_measure_or_read() {
    let folder = Folder::new();
    let samples = ["--calibration", SAMPLES, "--input-scale", SCALE];
    let cut = |more: &[&str]| {
        let words = [MODEL, "small.onnx", "--ratio", "0.5", "--criterion", "activation-l2", "--plan-out", "plan.json"];
        folder.succeed(&[&words, more].concat());
        folder.bytes("plan.json")
    };
    let measured = cut(&[&samples[..], &["--repair", "none", "--engine", "tract"]].concat());
    folder.succeed(&[&["calibrate", MODEL, "-o", "all.safetensors", "--engine", "tract"], &samples[..]].concat());
    let read = cut(&["--statistics", "all.safetensors"]);
    let by_weights = {
        folder.succeed(&[MODEL, "small.onnx", "--ratio", "0.5", "--plan-out", "plan.json"]);
        folder.bytes("plan.json")
    };
    assert_ne!(measured, by_weights, "activations must matter for this to tell anything");
    assert_ne!(read, by_weights);
    // Statistics of another model are refused, and so is a criterion without any.
    folder.model("other.onnx", "in x [1,3,8,8]\na = Conv(x, w[8,3,3,3])\ny = Conv(a, v[4,8,1,1])\nout y");
    let other = ["other.onnx", "small.onnx", "--ratio", "0.5", "--criterion", "activation-l2"];
    let error = folder.fail(2, &[&other[..], &["--statistics", "all.safetensors"]].concat());
    assert!(error.contains("all.safetensors") && error.contains("another model"), "{error}");
    assert!(folder.fail(2, &other).contains("needs statistics"));
}

#[test]
fn bytes_that_are_fed_as_they_are_are_told() {
    let folder = Folder::new();
    let words =
        [MODEL, "small.onnx", "--ratio", "0.5", "--engine", "tract", "--repair", "none", "--calibration", SAMPLES];
    let note = "the samples of `image` are bytes, fed as numbers from 0 to 255";
    assert!(folder.run(&words).err.contains(note));
    assert!(!folder.run(&[&words[..], &["--input-scale", SCALE]].concat()).err.contains("bytes"));
    let words = ["calibrate", MODEL, "-o", "all.safetensors", "--engine", "tract", "--calibration", SAMPLES];
    let said = folder.run(&words);
    assert!(said.err.contains(note) && said.out.contains(" places with tract "), "{said:?}");
}

#[test]
fn what_is_given_and_not_used_is_told() {
    let folder = Folder::new();
    let base = [MODEL, "small.onnx", "--ratio", "0.5", "--engine", "tract"];
    let samples = ["--calibration", SAMPLES, "--input-scale", SCALE];
    let said = folder.run(&[&base[..], &samples, &["--repair", "none", "--labels", LABELS]].concat());
    assert!(said.code == 0 && said.err.contains("the labels are not used; --metric TASK=METRIC"), "{said:?}");
    folder.succeed(&[&["calibrate", MODEL, "-o", "all.safetensors", "--engine", "tract"], &samples[..]].concat());
    let said = folder.run(&[&base[..], &["--statistics", "all.safetensors"]].concat());
    assert!(said.code == 0 && said.err.contains("the criterion `l2` does not look at activations"), "{said:?}");
}

/// Labels of other samples would fit as long as there are enough of them, and judge nonsense.
#[test]
fn labels_must_be_as_many_as_samples() {
    let folder = Folder::new();
    let base = [MODEL, "small.onnx", "--ratio", "0.5", "--engine", "tract", "--calibration", SAMPLES];
    let count = |path: &str| {
        let mut npz = ndarray_npy::NpzReader::new(std::fs::File::open(path).unwrap()).unwrap();
        npz.by_name::<ndarray::OwnedRepr<i64>, ndarray::IxDyn>("left").unwrap()
    };
    let labels = count(LABELS);
    for given in [labels.shape()[0] - 1, labels.shape()[0] + 1] {
        let mut npz = ndarray_npy::NpzWriter::new(std::fs::File::create(folder.file("labels.npz")).unwrap());
        npz.add_array("left", &ndarray::Array1::<i64>::zeros(given)).unwrap();
        npz.finish().unwrap();
        let error = folder.fail(2, &[&base[..], &["--labels", "labels.npz", "--metric", "left=accuracy"]].concat());
        let part = format!("{given} labels for {} samples (tensor `left`)", labels.shape()[0]);
        assert!(error.contains(&part), "{error}");
    }
}

#[test]
fn wrong_requests_are_errors() {
    let folder = Folder::new();
    let base = [MODEL, "small.onnx", "--ratio", "0.5", "--engine", "tract", "--calibration", SAMPLES];
    let fail = |more: &[&str]| folder.fail(2, &[&base, more].concat());
    assert!(fail(&["--input-scale", "sound=2"]).contains("(tensor `sound`)"));
    assert!(fail(&["--labels", LABELS, "--metric", "middle=accuracy"]).contains("names no task `middle`"));
    assert!(fail(&["--labels", SAMPLES, "--metric", "left=accuracy"]).contains("no labels for the task"));
}
