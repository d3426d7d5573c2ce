//! Repair of the trained models in onnx-models, measured on labelled samples that the repair never saw.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use onnx_mtprune::Result;
use onnx_mtprune::calibration::source::{SourceOptions, read_samples};
use onnx_mtprune::calibration::{Batch, Batches};
use onnx_mtprune::engine::inputs::declared_inputs;
use onnx_mtprune::engine::{ElementType, Engine, Feeds, Samples, Tract, Value, facts_of};
use onnx_mtprune::proto::{self, onnx::ModelProto};
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::repair::{METHODS, Method, RepairConfig, repair};
use rayon::prelude::*;

const BATCH: usize = 16;

/// Samples of one input that are pictures of bytes, or numbers as they are.
struct Data {
    input: String,
    values: Value,
    element: ElementType,
}

impl Data {
    fn new(model: &ModelProto, arrays: &BTreeMap<String, Value>) -> Self {
        let input = declared_inputs(model).unwrap().remove(0);
        let values = arrays[&input.name].clone();
        Self { input: input.name, values, element: input.element }
    }
}

impl Batches for Data {
    fn len(&self) -> usize {
        self.values.shape()[0].div_ceil(BATCH)
    }

    fn samples(&self) -> usize {
        self.values.shape()[0]
    }

    fn batch(&self, index: usize) -> Result<Batch> {
        let samples: Vec<usize> = (index * BATCH..self.samples().min((index + 1) * BATCH)).collect();
        let mut value = self.values.select(0, &samples)?.cast(self.element)?;
        if let (Value::F32(array), Value::U8(_)) = (&mut value, &self.values) {
            array.mapv_inplace(|x| x / 255.0);
        }
        Ok(Batch { feeds: vec![(self.input.clone(), value)], samples, filler: 0 })
    }
}

/// What each task scores on the labelled samples: accuracy and intersection over union in percent, for numbers how far
/// the mean error is from 100 % of ... the labels' deviation.
fn scores(model: &ModelProto, data: &Data, labels: &BTreeMap<String, Value>) -> BTreeMap<String, f64> {
    let tasks: Vec<String> = model.graph.as_ref().unwrap().output.iter().map(|o| o.name().to_owned()).collect();
    let tasks: Vec<String> = tasks.into_iter().filter(|t| labels.contains_key(t)).collect();
    let parts: Vec<Vec<Value>> = (0..data.len())
        .into_par_iter()
        .map(|i| {
            let feeds: Feeds = data.batch(i).unwrap().feeds;
            Tract.open(model, &facts_of(&feeds), &tasks).unwrap().run(&feeds).unwrap()
        })
        .collect();
    let all = tasks.iter().enumerate().map(|(t, task)| {
        let outputs: Vec<f64> = parts.iter().flat_map(|p| p[t].to_f64()).collect();
        (task.clone(), score(&outputs, &parts[0][t].shape()[1..], &labels[task]))
    });
    all.collect()
}

fn score(outputs: &[f64], shape: &[usize], label: &Value) -> f64 {
    let wanted = label.to_f64();
    if label.is_float() {
        let error: f64 = outputs.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).sum::<f64>() / wanted.len() as f64;
        let mean = wanted.iter().sum::<f64>() / wanted.len() as f64;
        let spread = wanted.iter().map(|x| (x - mean).abs()).sum::<f64>() / wanted.len() as f64;
        return 100.0 * (1.0 - error / spread);
    }
    // The axis of the classes: the one that the labels do not have.
    let samples = label.shape()[0];
    let classes_last =
        label.shape().len() > 1 && shape.len() == label.shape().len() && shape[..shape.len() - 1] == label.shape()[1..];
    let per_sample: usize = shape.iter().product();
    let positions = wanted.len() / samples;
    let classes = per_sample / positions;
    let predicted = |i: usize| {
        let (sample, position) = (i / positions, i % positions);
        let at = |c: usize| {
            let place = if classes_last { position * classes + c } else { c * positions + position };
            outputs[sample * per_sample + place]
        };
        (0..classes).max_by(|a, b| at(*a).total_cmp(&at(*b))).unwrap()
    };
    let predicted: Vec<usize> = (0..wanted.len()).map(predicted).collect();
    if label.shape().len() < 3 {
        let right = predicted.iter().zip(&wanted).filter(|(p, w)| **p as f64 == **w).count();
        return 100.0 * right as f64 / wanted.len() as f64;
    }
    let mut shares = Vec::new();
    for class in 0..classes {
        let hits = |f: &dyn Fn(bool, bool) -> bool| {
            predicted.iter().zip(&wanted).filter(|(p, w)| f(**p == class, **w == class as f64)).count()
        };
        let union = hits(&|p, w| p || w);
        if union > 0 {
            shares.push(hits(&|p, w| p && w) as f64 / union as f64);
        }
    }
    100.0 * shares.iter().sum::<f64>() / shares.len() as f64
}

fn read(path: PathBuf) -> Result<Samples> {
    read_samples(path, &SourceOptions::new(std::env::temp_dir()))
}

/// The scores of the dense model and of every method at `ratio`.
fn table(folder: &Path, ratio: f64, methods: &[(&str, Method)]) -> Vec<(String, BTreeMap<String, f64>)> {
    let file = proto::read(&folder.join("model.onnx")).unwrap();
    let mut calibration = folder.join("calibration.npz");
    if !calibration.exists() {
        calibration = folder.join("inputs.npz");
    }
    let calibration = Data::new(&file.model, read(calibration).unwrap().arrays());
    let labelled = read(folder.join("test.npz")).unwrap();
    let test = Data::new(&file.model, labelled.arrays());
    let analysis = Analysis::of(&file.model, &[]).unwrap();
    let config = PruneConfig { ratio, ..PruneConfig::default() };
    let rewritten = analysis.apply(&analysis.plan(&config).unwrap()).unwrap();
    let pruned = rewritten.output.materialise().unwrap();
    let mut rows = vec![("dense".to_owned(), scores(&file.model, &test, labelled.arrays()))];
    for (name, method) in methods {
        let start = Instant::now();
        let config = RepairConfig { method: *method, ..RepairConfig::default() };
        let repaired = repair(&file.model, pruned.clone(), &rewritten.kept, &Tract, &calibration, &config).unwrap();
        let time = start.elapsed().as_secs_f64();
        let row = scores(&repaired.model, &test, labelled.arrays());
        println!(
            "{} {ratio} {name:14} {row:.1?} {:.1} s, left {:?}",
            folder.file_name().unwrap().display(),
            time,
            repaired.left
        );
        rows.push(((*name).to_owned(), row));
    }
    rows
}

fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx-models").join(name)
}

#[test]
fn least_squares_brings_back_most_of_what_half_the_channels_took() {
    let methods: Vec<_> =
        METHODS.iter().filter(|(name, _)| matches!(*name, "none" | "least-squares")).copied().collect();
    let rows = table(&own("digit_scenes"), 0.5, &methods);
    let mean = |i: usize| rows[i].1.values().sum::<f64>() / rows[i].1.len() as f64;
    let (dense, none, repaired) = (mean(0), mean(1), mean(2));
    println!("{dense:.1} {none:.1} {repaired:.1}");
    assert!(dense - none > 10.0 && repaired > none + 0.85 * (dense - none), "{rows:?}");
    for (task, repaired) in &rows[2].1 {
        assert!(*repaired > rows[1].1[task] - 1.0, "{task}: {rows:?}");
    }
}

/// `cargo test --release --test repair_real -- --ignored --nocapture`
#[test]
#[ignore = "a table to look at; minutes"]
fn all_methods_on_all_models() {
    for ratio in [0.3, 0.5] {
        for name in ["digit_scenes", "mmnist_lenet", "mmnist_resnet"] {
            table(&own(name), ratio, METHODS);
        }
        for name in ["mmnist_lenet", "mmnist_resnet", "snips_lstm", "snips_tr"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models").join(name);
            if folder.exists() {
                table(&folder, ratio, METHODS);
            } else {
                println!("skipped: {} is not there", folder.display());
            }
        }
    }
}
