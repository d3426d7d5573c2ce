//! Real models end to end: those of onnx-models always, those of ../shared/models where they are.
//!
//! Each is pruned to half and verified; twice, with the same bytes; and with nothing to remove, which must leave the
//! file as it is.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use onnx_mtprune::engine::Tract;
use onnx_mtprune::proto::{self, WriteOptions};
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::verify::{Outcome, VerifyOptions, verify};
use rayon::prelude::*;

/// Every `*.onnx` one folder below `root`.
fn models(root: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let Ok(folders) = fs::read_dir(&root) else {
        common::skipped(&format!("{} is not there", root.display()));
        return Vec::new();
    };
    let files = folders.flatten().filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten();
    let mut files: Vec<PathBuf> =
        files.map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect();
    files.sort();
    files
}

/// Writes the model pruned by `ratio` and gives the bytes of the file.
fn prune(path: &Path, ratio: f64, folder: &Path) -> (Vec<u8>, String) {
    let file = proto::read(path).unwrap();
    let analysis = Analysis::of(&file.model, &[]).unwrap();
    let config = PruneConfig { ratio, ..Default::default() };
    let rewritten = analysis.apply(&analysis.plan(&config).unwrap()).unwrap();
    let target = folder.join("out.onnx");
    proto::write(&rewritten.output, &target, &WriteOptions::default()).unwrap();
    let mut verdict = String::new();
    if ratio > 0.0 {
        let options = VerifyOptions { altered: rewritten.altered.clone(), ..Default::default() };
        let pruned = rewritten.output.materialise().unwrap();
        verdict = match verify(&file.model, &pruned, &rewritten.kept, &Tract, &options).unwrap().outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::CannotRun { reason } | Outcome::NotCompared { reason } => format!("not run: {reason}"),
            Outcome::Failed { reason, first } => panic!("{}: {reason} {first:?}", path.display()),
        };
    }
    (fs::read(&target).unwrap(), verdict)
}

#[test]
fn real_models_are_pruned_exactly_and_reproducibly() {
    let own = models("onnx-models");
    assert!(own.len() >= 3, "the project's own models are missing");
    let all: Vec<PathBuf> = own.into_iter().chain(models("../shared/models")).collect();
    let (not_run, untouched) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    all.par_iter().for_each(|path| {
        let folder = tempfile::tempdir().unwrap();
        let original = fs::read(path).unwrap();
        assert!(prune(path, 0.0, folder.path()).0 == original, "{}: ratio 0 changes the file", path.display());
        let (once, verdict) = prune(path, 0.5, folder.path());
        let file = proto::read(path).unwrap();
        let analysis = Analysis::of(&file.model, &[]).unwrap();
        let plan = analysis.plan(&PruneConfig { ratio: 0.5, ..Default::default() }).unwrap();
        let twice = folder.path().join("twice.onnx");
        proto::write(&analysis.apply(&plan).unwrap().output, &twice, &WriteOptions::default()).unwrap();
        assert!(once == fs::read(&twice).unwrap(), "{}: two runs differ", path.display());
        if once.len() >= original.len() {
            untouched.lock().unwrap().push(path.display().to_string());
        }
        if verdict != "passed" {
            not_run.lock().unwrap().push(format!("{}: {verdict}", path.display()));
        }
    });
    let (not_run, untouched) = (not_run.into_inner().unwrap(), untouched.into_inner().unwrap());
    println!("nothing could be removed from {untouched:#?}");
    assert!(untouched.len() * 5 <= all.len(), "too many models stay whole: {untouched:#?}");
    println!("{} models, {} verified; not run by the engine: {not_run:#?}", all.len(), all.len() - not_run.len());
    assert!(not_run.len() * 10 <= all.len(), "the engine runs too few models: {not_run:#?}");
}
