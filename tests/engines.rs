//! Engines: both compute the same, and what is not there is said.
//!
//! ONNX Runtime is looked for where `ORT_DYLIB_PATH`, an active Python environment or `./.ort` say; without it those
//! tests are skipped, and say so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::PathBuf;

use common::skipped;
use onnx_mtprune::engine::onnxruntime::find::{Places, candidates};
use onnx_mtprune::engine::{Device, Engine, OnnxRuntime, Tract, Value, inputs, run_once, samples};
use onnx_mtprune::text;

/// The library to test with.
fn library() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let places = Places {
        variable: folder("ORT_DYLIB_PATH"),
        working: Some(env!("CARGO_MANIFEST_DIR").into()),
        environments: [folder("VIRTUAL_ENV"), folder("CONDA_PREFIX")].into_iter().flatten().collect(),
        ..Places::default()
    };
    candidates(&places).into_iter().next().map(|candidate| candidate.path)
}

fn runtime() -> Option<OnnxRuntime> {
    let Some(path) = library() else {
        skipped("no ONNX Runtime was found; set ORT_DYLIB_PATH or VIRTUAL_ENV");
        return None;
    };
    Some(OnnxRuntime::load(&path, Device::Cpu).unwrap())
}

#[test]
fn every_kind_of_value_can_be_fetched() {
    let Some(runtime) = runtime() else { return };
    let text = "in x [2,3,8,8]\nin ids int64 [4]\na = Conv(x, w[4,3,3,3], b[4])\nr = Relu(a)\ns = Shape(r)\n\
                g = Gather(e[5,2], ids)\nz = Identity(ids)\nout r, g";
    let model = text::parse(text).unwrap();
    let shapes = inputs::input_shapes(&model, &Default::default()).unwrap().remove(0);
    let feeds = samples::random_feeds(&shapes, 3).unwrap();
    let wanted = ["r", "a", "x", "w", "s", "g", "ids", "z", "r"].map(str::to_owned);
    let theirs = run_once(&runtime, &model, &feeds, &wanted).unwrap();
    let ours = run_once(&Tract, &model, &feeds, &wanted).unwrap();
    for ((name, a), b) in wanted.iter().zip(&theirs).zip(&ours) {
        assert_eq!((a.element(), a.shape()), (b.element(), b.shape()), "{name}");
        let far = a.to_f64().iter().zip(b.to_f64()).any(|(a, b)| (a - b).abs() > 1e-5);
        assert!(!far, "{name}: {a:?} and {b:?}");
    }
    let description = runtime.describe();
    assert!(description.nodes.iter().any(|(provider, nodes)| provider == "CPU" && *nodes > 0), "{description:?}");
    assert!(description.version.is_some_and(|v| v.starts_with("1.")), "the version is read");
    let error = run_once(&runtime, &model, &feeds, &["nowhere".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("the model has no such value (tensor `nowhere`)"), "{error}");
    let fewer: Vec<(String, Value)> = feeds.into_iter().take(1).collect();
    let error = run_once(&runtime, &model, &fewer, &["r".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("no shape is known for a graph input (tensor `ids`)"), "{error}");
}
