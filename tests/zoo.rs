//! The small zoo: files as exporters, quantisers and optimisers write them, each pruned to half and judged.
//!
//! fixtures/zoo/*.onnx come from `make zoo-fixtures` (tests/zoo/fixtures.py). What is expected of them, the share of
//! parameters that stays and whether the built-in engine could judge, stands in expected.txt and is rewritten with
//! `UPDATE=1`. A pruned file that the engine judges wrong fails whatever is expected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use onnx_mtprune::allocate::Rounding;
use onnx_mtprune::engine::Tract;
use onnx_mtprune::functions;
use onnx_mtprune::proto;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::{Analysis, Options, PruneConfig, prune};
use onnx_mtprune::report::{FileRow, Inspection, words};
use onnx_mtprune::verify::{Outcome, VerifyOptions, verify};
use rayon::prelude::*;

const FOLDER: &str = "fixtures/zoo";
const EXPECTED: &str = "expected.txt";

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .collect();
    files.sort();
    files
}

fn parameters(model: &ModelProto) -> u64 {
    let nowhere = FileRow { path: String::new(), bytes: None };
    let inlined = functions::inline(model);
    Inspection::new(&Analysis::of(&inlined.model, &[]).unwrap(), nowhere).parameters.total
}

/// One line about a file, and what is wrong with its pruned model.
fn examine(path: &Path) -> (String, Option<String>) {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let file = proto::read(path).unwrap();
    let config = PruneConfig { ratio: 0.5, rounding: Rounding::Multiple(1), ..Default::default() };
    let rewritten = prune(&file.model, &Options::default(), &config).unwrap();
    let pruned = rewritten.output.materialise().unwrap();
    let options = VerifyOptions { altered: rewritten.altered.clone(), ..Default::default() };
    let outcome = verify(&file.model, &pruned, &rewritten.kept, &Tract, &options).unwrap().outcome;
    let (verdict, wrong) = match outcome {
        Outcome::Passed => ("verified", None),
        Outcome::CannotRun { .. } => ("not run by the built-in engine", None),
        Outcome::NotCompared { reason } => ("WRONG", Some(format!("{name}: nothing was compared: {reason}"))),
        Outcome::Failed { reason, first } => ("WRONG", Some(format!("{name}: {reason} {first:?}"))),
    };
    let (before, after) = (parameters(&file.model), parameters(&pruned));
    let kept = words::percent(after, before);
    (format!("{name:<30} {before:>6} -> {after:>6} parameters  {kept:>7}  {verdict}"), wrong)
}

#[test]
fn the_small_zoo_is_pruned_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let files = files(&folder);
    assert!(files.len() >= 20, "most of the small zoo is missing in {}", folder.display());
    let (lines, wrong): (Vec<String>, Vec<Option<String>>) = files.par_iter().map(|path| examine(path)).unzip();
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} pruned files are wrong:\n{}", wrong.len(), wrong.join("\n"));
    let found = lines.join("\n") + "\n";
    let path = folder.join(EXPECTED);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    let differing = expected.lines().zip(found.lines()).filter(|(a, b)| a != b);
    let differing: String = differing.map(|(a, b)| format!("expected {a}\n     got {b}\n")).collect();
    assert!(found == expected, "`make update` rewrites {}, after a wanted change:\n{differing}", path.display());
}
