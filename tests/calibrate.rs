//! The commands `calibrate` and `merge` of the real program: divided, interrupted, mixed up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::program::Folder;
use ndarray::{Array3, Array4, ArrayD};
use ndarray_npy::NpzWriter;
use onnx_mtprune::calibration::Measure;
use onnx_mtprune::calibration::statistics_file::StatisticsFile;

const MODEL: &str = "
    in x [n,3,8,8]
    t = Conv(x, trunk[16,3,3,3], trunk_bias[16], pads=[1,1,1,1])
    r = Relu(t)
    a = Conv(r, a_weight[8,16,1,1])
    b = Conv(r, b_weight[6,16,3,3])
    out a, b";

/// A folder with a model and 50 samples.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.model("model.onnx", MODEL);
    data(&folder, 50, 7);
    folder
}

/// Writes so many samples; others for another `step`.
fn data(folder: &Folder, count: usize, step: usize) {
    let number = |(n, c, h, w)| ((n * step + c * 5 + h * 3 + w) % 11) as f32 - 5.0 + step as f32;
    let samples: ArrayD<f32> = Array4::from_shape_fn((count, 3, 8, 8), number).into_dyn();
    let mut npz = NpzWriter::new(fs::File::create(folder.file("data.npz")).unwrap());
    npz.add_array("x", &samples).unwrap();
    npz.finish().unwrap();
}

const CALIBRATE: [&str; 6] = ["calibrate", "model.onnx", "--calibration", "data.npz", "--batch-size", "4"];

fn calibrate(folder: &Folder, output: &str, more: &[&str]) -> (i32, String, String) {
    let said = folder.run(&[&CALIBRATE[..], &["-o", output], more].concat());
    (said.code, said.out, said.err)
}

#[test]
fn shards_merged_are_one_run() {
    let folder = folder();
    let more =
        ["--criterion", "column-subset", "--criterion", "hrank", "--criterion", "chip", "--criterion", "manifold"];
    let (code, out, err) = calibrate(&folder, "all.safetensors", &more);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("50 of 50 samples measured at 1 places"), "{out}");
    let mut merge = vec!["merge".to_owned()];
    for shard in ["3/4", "1/4", "4/4", "2/4"] {
        let name = format!("part{}.safetensors", &shard[..1]);
        let (code, _, err) = calibrate(&folder, &name, &[&more[..], &["--shard", shard]].concat());
        assert_eq!(code, 0, "{err}");
        merge.push(name);
    }
    merge.extend(["-o", "merged.safetensors"].map(str::to_owned));
    let said = folder.run(&merge.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("50 of 50 samples") && !said.out.contains("missing"), "{}", said.out);
    let [merged, all] = ["merged.safetensors", "all.safetensors"].map(|name| fs::read(folder.file(name)).unwrap());
    assert!(merged == all, "{} and {} bytes", merged.len(), all.len());

    let said = folder.run(&["merge", "part1.safetensors", "part1.safetensors", "-o", "twice.safetensors"]);
    assert!(said.code == 2 && said.err.contains("given twice"), "{}", said.err);
    let said = folder.run(&["merge", "part1.safetensors", "all.safetensors", "-o", "twice.safetensors"]);
    assert!(said.code == 2 && said.err.contains("is in both statistics"), "{}", said.err);
    let said = folder.run(&["merge", "part1.safetensors", "-o", "some.safetensors"]);
    assert!(said.code == 0 && said.out.contains("9 batches are missing"), "{}", said.out);
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let folder = folder();
    assert_eq!(calibrate(&folder, "whole.safetensors", &[]).0, 0);
    let whole = fs::read(folder.file("whole.safetensors")).unwrap();
    let target = folder.file("killed.safetensors");
    let mut child = Command::new(env!("CARGO_BIN_EXE_onnx-mtprune"))
        .args(CALIBRATE)
        .args(["-o", "killed.safetensors", "--save-every", "1"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !target.exists() && start.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = StatisticsFile::parse(&fs::read(&target).unwrap()).unwrap();
    assert!(!left.statistics.batches.is_empty());
    let (code, _, err) = calibrate(&folder, "killed.safetensors", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(fs::read(&target).unwrap() == whole);
    // Once more, when everything is in.
    assert_eq!(calibrate(&folder, "killed.safetensors", &[]).0, 0);
    assert!(fs::read(&target).unwrap() == whole);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let folder = folder();
    assert_eq!(calibrate(&folder, "first.safetensors", &["--shard", "1/2"]).0, 0);
    let (code, _, err) = calibrate(&folder, "first.safetensors", &["--seed", "1"]);
    assert!(code == 2 && err.contains("another calibration"), "{err}");
    let (code, _, err) = calibrate(&folder, "first.safetensors", &["--criterion", "column-subset"]);
    assert!(code == 2 && err.contains("another calibration"), "{err}");
    assert_eq!(calibrate(&folder, "seed.safetensors", &["--seed", "1", "--shard", "2/2"]).0, 0);
    let said = folder.run(&["merge", "first.safetensors", "seed.safetensors", "-o", "all.safetensors"]);
    assert!(said.code == 2 && said.err.contains("cut in different ways"), "{}", said.err);

    folder.model("model.onnx", &MODEL.replace("a_weight[8", "a_weight[9"));
    let (code, _, err) = calibrate(&folder, "first.safetensors", &["--shard", "1/2"]);
    assert!(code == 2 && err.contains("statistics of another model"), "{err}");
    assert_eq!(calibrate(&folder, "second.safetensors", &["--shard", "2/2"]).0, 0);
    let said = folder.run(&["merge", "first.safetensors", "second.safetensors", "-o", "all.safetensors"]);
    assert!(said.code == 2 && said.err.contains("of another model"), "{}", said.err);

    fs::write(folder.file("nothing.safetensors"), b"not statistics").unwrap();
    let said = folder.run(&["merge", "nothing.safetensors", "-o", "all.safetensors"]);
    assert!(said.code == 2 && said.err.contains("no statistics file"), "{}", said.err);
    let (code, _, err) = calibrate(&folder, "shard.safetensors", &["--shard", "5/4"]);
    assert!(code == 2 && err.contains("from 1 to N"), "{err}");
    assert!(!folder.file("all.safetensors").exists() && !folder.file("shard.safetensors").exists());
}

/// A run that goes on, and parts that are merged, must have seen the same samples in the same scale.
#[test]
fn other_samples_are_another_calibration() {
    let folder = folder();
    assert_eq!(calibrate(&folder, "first.safetensors", &["--shard", "1/2"]).0, 0);
    let refused = |name: &str, more: &[&str]| {
        let (code, _, err) = calibrate(&folder, "first.safetensors", more);
        assert!(code == 2 && err.contains("another calibration"), "{err}");
        assert_eq!(calibrate(&folder, name, &[more, &["--shard", "2/2"]].concat()).0, 0);
        let said = folder.run(&["merge", "first.safetensors", name, "-o", "all.safetensors"]);
        assert!(said.code == 2 && said.err.contains("cut in different ways"), "{}", said.err);
    };
    refused("scaled.safetensors", &["--input-scale", "x=0.5"]);
    data(&folder, 50, 8);
    refused("other.safetensors", &[]);
    data(&folder, 51, 7);
    refused("more.safetensors", &["--max-samples", "50"]);
    data(&folder, 50, 7);
    assert_eq!(calibrate(&folder, "second.safetensors", &["--shard", "2/2"]).0, 0);
    folder.succeed(&["merge", "first.safetensors", "second.safetensors", "-o", "all.safetensors"]);
}

/// Time comes before the batch here, and is as long: shapes look as if samples came first.
#[test]
fn samples_that_do_not_come_first_are_not_told_apart_wrongly() {
    let folder = Folder::new();
    let model = "in x [n,4,6]\nt = Transpose(x, perm=[1,0,2])\na = MatMul(t, w[6,8])\ny = MatMul(a, v[8,3])\nout y";
    folder.model("model.onnx", model);
    let number = |(n, t, c)| ((n * 7 + t * 5 + c * 3) % 11) as f32;
    let mut npz = NpzWriter::new(fs::File::create(folder.file("data.npz")).unwrap());
    npz.add_array("x", &Array3::from_shape_fn((8, 4, 6), number)).unwrap();
    npz.finish().unwrap();
    for criterion in ["manifold", "hrank", "chip"] {
        let more = ["--criterion", criterion, "--engine", "tract"];
        let (code, _, err) = calibrate(&folder, "all.safetensors", &more);
        assert!(code == 2 && err.contains("does not count the samples") && err.contains("tensor `a`"), "{err}");
        let words = ["calibrate", "model.onnx", "--calibration", "data.npz", "--batch-size", "1", "-o", criterion];
        folder.succeed(&[&words[..], &more].concat());
    }
}

/// Real models on real samples: what the built-in engine measures and what ONNX Runtime does.
#[test]
fn engines_measure_the_same() {
    const MODELS: [&str; 10] = [
        "adult_mmoe",
        "gomoku8",
        "mlperf_ic_resnet8",
        "mmnist_lenet",
        "mmnist_resnet",
        "mtcnn_onet",
        "phasenet",
        "retinaface_mnet025",
        "snips_tr",
        "ultraface_slim320",
    ];
    if !["ORT_DYLIB_PATH", "VIRTUAL_ENV"].iter().any(|name| std::env::var_os(name).is_some()) {
        return common::skipped("no ONNX Runtime is named by ORT_DYLIB_PATH or VIRTUAL_ENV");
    }
    for name in MODELS {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models").join(name);
        if !source.join("model.onnx").exists() {
            common::skipped(&format!("../shared/models/{name} is not there"));
            continue;
        }
        let folder = Folder::new();
        let measure = |engine: &str| {
            let (model, samples) = (source.join("model.onnx"), source.join("inputs.npz"));
            let words =
                ["calibrate", model.to_str().unwrap(), "--calibration", samples.to_str().unwrap(), "-o", engine];
            folder.succeed(
                &[&words[..], &["--max-samples", "8", "--batch-size", "4", "--all", "--engine", engine]].concat(),
            );
            StatisticsFile::parse(&folder.bytes(engine)).unwrap().statistics
        };
        let (tract, other) = (measure("tract"), measure("onnxruntime"));
        assert!(!tract.taps.is_empty() && tract.taps.len() == other.taps.len(), "{name}");
        let mut worst: f64 = 0.0;
        for (tract, other) in tract.taps.iter().zip(&other.taps) {
            assert_eq!((&tract.name, tract.axis, tract.count), (&other.name, other.axis, other.count), "{name}");
            let mut compare = |what: &str, a: &[f64], b: &[f64], most: f64| {
                let size = a.iter().fold(f64::MIN_POSITIVE, |m, x| m.max(x.abs()));
                let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / size;
                assert!(difference < most, "{name}, {}: {what} differs by {difference:e}", tract.name);
                if most < 1e-3 {
                    worst = worst.max(difference);
                }
            };
            for (measure, sums) in &tract.sums {
                // A number beside zero may be zero elsewhere.
                let most = if *measure == Measure::NonZero { 1e-2 } else { 1e-4 };
                compare(measure.name(), &sums.values(), &other.sums[measure].values(), most);
            }
            for (measure, numbers) in &tract.extremes {
                compare(measure.name(), numbers, &other.extremes[measure], 1e-4);
            }
        }
        println!("{name}: {} places, largest relative difference {worst:.1e}", tract.taps.len());
    }
}
