//! ONNX Runtime, where the machine has it.

use std::path::{Path, PathBuf};

use onnx_mtprune::engine::onnxruntime::find::{Places, candidates};
use onnx_mtprune::engine::{Device, OnnxRuntime};

use super::skipped;

/// The library that `ORT_DYLIB_PATH`, an active Python environment or `./.ort` hold; says so if there is none.
pub fn library() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let places = Places {
        variable: folder("ORT_DYLIB_PATH"),
        working: Some(env!("CARGO_MANIFEST_DIR").into()),
        environments: [folder("VIRTUAL_ENV"), folder("CONDA_PREFIX")].into_iter().flatten().collect(),
        ..Places::default()
    };
    let found = candidates(&places).into_iter().next().map(|candidate| candidate.path);
    if found.is_none() {
        skipped("no ONNX Runtime was found; set ORT_DYLIB_PATH or VIRTUAL_ENV");
    }
    found
}

/// The engine on the CPU.
pub fn runtime() -> Option<OnnxRuntime> {
    Some(OnnxRuntime::load(&library()?, Device::Cpu).unwrap())
}

/// The device that the tests of CUDA use: that of `ONNX_MTPRUNE_TEST_DEVICE`, a number.
pub fn cuda() -> Option<Device> {
    let number = std::env::var("ONNX_MTPRUNE_TEST_DEVICE").ok()?;
    Some(Device::Cuda(number.parse().unwrap()))
}

/// Every `*.onnx` in the folders of `root`, which is relative to the repository; none if it is not there, and then says
/// so.
pub fn models(root: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let Ok(folders) = std::fs::read_dir(&root) else {
        skipped(&format!("{} is not there", root.display()));
        return Vec::new();
    };
    let files = folders.flatten().filter_map(|folder| std::fs::read_dir(folder.path()).ok()).flatten().flatten();
    let mut files: Vec<PathBuf> =
        files.map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect();
    files.sort();
    files
}
