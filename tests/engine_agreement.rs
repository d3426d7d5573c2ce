//! Engines compute the same: values of every kind, the activations of real models, and the statistics of calibration.
//!
//! ONNX Runtime is needed, and those tests are skipped where `tests/common/runtimes.rs` does not find it. With
//! `ONNX_MTPRUNE_TEST_DEVICE=0` the same holds of CUDA against the CPU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use common::runtimes::{cuda, library, models, runtime};
use common::skipped;
use onnx_mtprune::calibration::source::{SourceOptions, read_samples};
use onnx_mtprune::calibration::{Batch, Batches, Gathering, MEASURES, Measure, Shard, Statistics, TapStatistics, Wish};
use onnx_mtprune::engine::{
    Device, Engine, Feeds, InputFact, OnnxRuntime, Tract, Value, facts_of, inputs, run_once, samples,
};
use onnx_mtprune::proto;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::Analysis;
use onnx_mtprune::{Result, text};
use rayon::prelude::*;

/// The largest difference over the largest magnitude.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    let size = a.iter().fold(1e-6, |m: f64, x| m.max(x.abs()));
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / size
}

#[test]
fn every_kind_of_value_can_be_fetched() {
    let Some(runtime) = runtime() else { return };
    let text = "in x [2,3,8,8]\nin ids int64 [4]\na = Conv(x, w[4,3,3,3], b[4])\nr = Relu(a)\ns = Shape(r)\n\
                g = Gather(e[5,2], ids)\nz = Identity(ids)\nout r, g";
    let model = text::parse(text).unwrap();
    let shapes = inputs::input_shapes(&model, &BTreeMap::new()).unwrap().remove(0);
    let feeds = samples::random_feeds(&shapes, 3).unwrap();
    let wanted = ["r", "a", "x", "w", "s", "g", "ids", "z", "r"].map(str::to_owned);
    let theirs = run_once(&runtime, &model, &feeds, &wanted).unwrap();
    let ours = run_once(&Tract, &model, &feeds, &wanted).unwrap();
    for ((name, a), b) in wanted.iter().zip(&theirs).zip(&ours) {
        assert_eq!((a.element(), a.shape()), (b.element(), b.shape()), "{name}");
        assert!(difference(&a.to_f64(), &b.to_f64()) < 1e-5, "{name}: {a:?} and {b:?}");
    }
    // Nothing but an input: there is nothing to compute.
    let only = run_once(&runtime, &model, &feeds, &["ids".to_owned()]).unwrap();
    assert_eq!(only, [feeds[1].1.clone()]);
    let error = run_once(&runtime, &model, &feeds, &["nowhere".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("the model has no such value (tensor `nowhere`)"), "{error}");
    let fewer: Vec<(String, Value)> = feeds.into_iter().take(1).collect();
    let error = run_once(&runtime, &model, &fewer, &["r".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("no shape is known for a graph input (tensor `ids`)"), "{error}");
}

#[test]
fn every_element_type_goes_there_and_back() {
    use onnx_mtprune::engine::ElementType::{
        Bool, Double, Float, Float16, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64,
    };
    let Some(runtime) = runtime() else { return };
    let model = text::parse("in x [2,3]\ny = Transpose(x)\nout y").unwrap();
    for element in [Float, Double, Float16, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64, Bool] {
        let facts = [InputFact { name: "x".to_owned(), element, shape: vec![2, 3] }];
        let feeds = samples::random_feeds(&facts, 1).unwrap();
        let there = run_once(&runtime, &model, &feeds, &["y".to_owned()]).unwrap().remove(0);
        assert_eq!((there.element(), there.shape()), (element, &[3, 2][..]));
        let back = run_once(&runtime, &model, &[("x".to_owned(), there)], &["y".to_owned()]).unwrap().remove(0);
        assert_eq!(back, feeds[0].1);
    }
    // An array whose memory is in another order than its elements.
    let turned = ndarray::arr2(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]]).reversed_axes().into_dyn();
    let turned = run_once(&runtime, &model, &[("x".to_owned(), turned.into())], &["y".to_owned()]).unwrap().remove(0);
    assert_eq!(turned.to_f64(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn the_batch_may_differ_from_the_declared_one() {
    let Some(runtime) = runtime() else { return };
    let model = text::parse("in x [1,3,6,6]\ny = Conv(x, w[4,3,3,3])\nz = GlobalAveragePool(y)\nout z").unwrap();
    let facts = [InputFact {
        shape: vec![5, 3, 6, 6],
        ..inputs::input_shapes(&model, &BTreeMap::new()).unwrap()[0][0].clone()
    }];
    let feeds = samples::random_feeds(&facts, 1).unwrap();
    let [a, b] =
        [&runtime as &dyn Engine, &Tract].map(|e| run_once(e, &model, &feeds, &["z".to_owned()]).unwrap().remove(0));
    assert_eq!(a.shape(), [5, 4, 1, 1]);
    assert!(difference(&a.to_f64(), &b.to_f64()) < 1e-5);
}

#[test]
fn weights_that_are_handed_over_one_by_one_compute_the_same() {
    let Some(runtime) = runtime() else { return };
    let model =
        text::parse("in x [2,64]\na = MatMul(x, w[64,512])\nb = Relu(a)\ny = MatMul(b, v[512,8])\nout y").unwrap();
    let shapes = inputs::input_shapes(&model, &BTreeMap::new()).unwrap().remove(0);
    let feeds = samples::random_feeds(&shapes, 1).unwrap();
    let wanted = ["y", "w"].map(str::to_owned);
    let inline = run_once(&runtime, &model, &feeds, &wanted).unwrap();
    let apart = run_once(&runtime.inline_up_to(0), &model, &feeds, &wanted).unwrap();
    assert_eq!(inline, apart);
}

#[test]
fn nodes_are_counted_by_provider() {
    let Some(path) = library() else { return };
    let runtime = OnnxRuntime::load(&path, Device::Cpu).unwrap();
    assert_eq!(runtime.describe().nodes, [], "what tried the engine out does not count");
    // A cumulative sum cannot be fused with anything.
    let model = text::parse("in x [1,4]\na = CumSum(x, {1})\nb = CumSum(a, {1})\nc = CumSum(b, {1})\nout c").unwrap();
    let shapes = inputs::input_shapes(&model, &BTreeMap::new()).unwrap().remove(0);
    runtime.open(&model, &shapes, &["c".to_owned()]).unwrap();
    let smaller = text::parse("in x [1,4]\na = CumSum(x, {1})\nout a").unwrap();
    runtime.open(&smaller, &shapes, &["a".to_owned()]).unwrap();
    let description = runtime.describe();
    assert_eq!(description.nodes, [("CPU".to_owned(), 3)]);
    let version = description.version.clone().unwrap();
    assert_eq!(description.label(), format!("ONNX Runtime {version} (CPU)"));
    assert!(version.starts_with("1."), "{version}");
}

/// Batches in memory.
struct Fixed(Vec<Batch>);

impl Batches for Fixed {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn samples(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, index: usize) -> Result<Batch> {
        Ok(self.0[index].clone())
    }
}

/// Pictures as the network was trained on them: `(x * scale - mean) / std`, as `meta.json` beside the model says.
fn prepared(path: &Path, feeds: Feeds) -> Feeds {
    let meta = std::fs::read(path.with_file_name("meta.json")).unwrap_or_default();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap_or_default();
    let prepare = |(name, value): (String, Value)| {
        let how = &meta["inputs_prep"][&name];
        let Value::F32(mut array) = value else { return (name, value) };
        let axis = usize::try_from(how["axis"].as_u64().unwrap_or(1)).unwrap();
        let scale = how["scale"].as_f64().unwrap_or(1.0);
        if axis < array.ndim() && how.is_object() {
            for (channel, mut part) in array.axis_iter_mut(ndarray::Axis(axis)).enumerate() {
                let mean = how["mean"][channel].as_f64().unwrap_or(0.0);
                let std = how["std"][channel].as_f64().unwrap_or(1.0);
                part.mapv_inplace(|x| ((f64::from(x) * scale - mean) / std) as f32);
            }
        }
        (name, array.into())
    };
    feeds.into_iter().map(prepare).collect()
}

/// Real samples where they lie beside the model, or else random numbers of the first shapes that both engines run it
/// with. Random numbers are no pictures: what a network answers to them may be nothing but rounding.
fn feeds(path: &Path, model: &ModelProto, engines: [&dyn Engine; 2]) -> std::result::Result<Vec<Feeds>, String> {
    if let Ok(samples) = read_samples(path.with_file_name("inputs.npz"), &SourceOptions::new(std::env::temp_dir()))
        && let Ok(feeds) = (0..1).map(|index| samples.feeds(model, index)).collect::<Result<Vec<Feeds>>>()
    {
        return Ok(feeds.into_iter().map(|feeds| prepared(path, feeds)).collect());
    }
    let outputs: Vec<String> = model.graph.iter().flat_map(|g| &g.output).map(|o| o.name().to_owned()).collect();
    let mut reason = String::new();
    for shapes in inputs::input_shapes(model, &BTreeMap::new()).map_err(|e| e.to_string())? {
        let feeds = (0..1).map(|seed| samples::random_feeds(&shapes, seed)).collect::<Result<Vec<Feeds>>>();
        let feeds = feeds.map_err(|e| e.to_string())?;
        match engines.iter().try_for_each(|e| run_once(*e, model, &feeds[0], &outputs).map(drop)) {
            Ok(()) => return Ok(feeds),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

/// How far two engines are apart on a model: at its outputs, and in what calibration measures.
struct Apart {
    outputs: f64,
    statistics: (f64, String),
    taps: usize,
}

fn apart(path: &Path, model: &ModelProto, engines: [&dyn Engine; 2]) -> std::result::Result<Apart, String> {
    let feeds = feeds(path, model, engines)?;
    let outputs: Vec<String> = model.graph.iter().flat_map(|g| &g.output).map(|o| o.name().to_owned()).collect();
    let run = |e: &dyn Engine| run_once(e, model, &feeds[0], &outputs).map_err(|e| e.to_string());
    let (a, b) = (run(engines[0])?, run(engines[1])?);
    let pairs = a.iter().zip(&b).filter(|(a, _)| a.is_float());
    let outputs = pairs.fold(0.0f64, |worst, (a, b)| worst.max(difference(&a.to_f64(), &b.to_f64())));
    let analysis = Analysis::of(model, &[]).map_err(|e| e.to_string())?;
    let taps = analysis.taps();
    let batch = |(number, feeds): (usize, Feeds)| Batch { feeds, samples: vec![number], filler: 0 };
    let batches = Fixed(feeds.into_iter().enumerate().map(batch).collect());
    // The rank of a map hangs on numbers that are all but zero.
    let measures = MEASURES.iter().map(|(measure, _)| *measure).filter(|m| *m != Measure::Ranks).collect();
    let wish = Wish { measures, products: true, features: false };
    let gather = |engine: &dyn Engine| {
        let mut statistics = Statistics::empty(&taps);
        let mut gathering = Gathering::new(model, &taps, &wish, engine);
        gathering.run(&batches, Shard::ALL, &mut statistics, &mut |_| Ok(())).map_err(|e| e.to_string())?;
        Ok::<Statistics, String>(statistics)
    };
    let (a, b) = (gather(engines[0])?, gather(engines[1])?);
    let mut worst = (0.0f64, String::new());
    let mut note = |found: f64, tap: &TapStatistics, what: &dyn std::fmt::Debug| {
        if found > worst.0 || found.is_nan() {
            worst = (found, format!("{what:?} of `{}`", tap.name));
        }
    };
    for (a, b) in a.taps.iter().zip(&b.taps) {
        // A sum of both signs is as exact as the magnitudes that it is made of.
        let size = a.sums[&Measure::Absolute].values().into_iter().fold(1e-6, f64::max);
        let magnitude = a.extremes.values().flatten().fold(1e-6, |m: f64, x| m.max(x.abs()));
        // A number that is all but zero is zero for one engine and not for the other, unless a clamp made it so.
        let clamped = a.extremes[&Measure::Minimum].iter().all(|least| *least >= 0.0);
        for (measure, sums) in &a.sums {
            let (ours, theirs) = (sums.values(), b.sums[measure].values());
            let (own, free) = match measure {
                Measure::Sum => (size, 0.0),
                Measure::NonZero if clamped => (a.count as f64, 1.0),
                Measure::NonZero => continue,
                _ => (ours.iter().copied().fold(1e-6, f64::max), 0.0),
            };
            for (x, y) in ours.iter().zip(&theirs) {
                note(((x - y).abs() - free).max(0.0) / own, b, measure);
            }
        }
        for (key, moments) in &a.moments {
            note(difference(&moments.values(), &b.moments[key].values()), b, key);
        }
        for (measure, extremes) in &a.extremes {
            let pairs = extremes.iter().zip(&b.extremes[measure]);
            note(pairs.fold(0.0, |m: f64, (x, y)| m.max((x - y).abs())) / magnitude, b, measure);
        }
    }
    Ok(Apart { outputs, statistics: worst, taps: taps.taps.len() })
}

/// Models that say little about engines: where their inputs change in the seventh digit, outputs change in the fourth.
const SENSITIVE: [&str; 2] = ["tfjs_blazepose_lite", "yunet_n"];

/// Compares two engines on all models there are; gives how many were compared.
fn agree(engines: [&dyn Engine; 2], tolerance: f64) -> usize {
    let all: Vec<_> = models("onnx-models").into_iter().chain(models("../shared/models")).collect();
    // A rounding of an activation in 8 bits is a whole step where it falls the other way.
    let plain =
        all.par_iter().filter(|path| !["int8", "qdq"].iter().any(|kind| path.display().to_string().contains(kind)));
    let judged = plain.filter_map(|path| {
        let file = proto::read(path).unwrap();
        let name = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_or(path).display().to_string();
        match apart(path, &file.model, engines) {
            Ok(Apart { outputs, statistics: (statistics, place), taps }) => {
                println!("{name}: outputs {outputs:.1e}, statistics of {taps} taps {statistics:.1e}, {place}");
                let sensitive = SENSITIVE.iter().any(|model| name.contains(model));
                Some((name, outputs.max(statistics) <= if sensitive { 10.0 * tolerance } else { tolerance }))
            }
            Err(reason) => {
                println!("{name}: not compared: {reason}");
                None
            }
        }
    });
    let judged: Vec<(String, bool)> = judged.collect();
    let wrong: Vec<&String> = judged.iter().filter(|(_, right)| !right).map(|(name, _)| name).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    judged.len()
}

#[test]
fn tract_and_onnx_runtime_agree_on_real_models() {
    let Some(runtime) = runtime() else { return };
    let compared = agree([&runtime, &Tract], 1e-4);
    assert!(compared >= 3, "{compared} models were compared");
}

#[test]
fn cuda_agrees_with_the_cpu_and_is_faster() {
    let Some(device) = cuda() else {
        skipped("no CUDA device was named with ONNX_MTPRUNE_TEST_DEVICE");
        return;
    };
    let path = library().expect("CUDA is tested with ONNX Runtime");
    let [cpu, gpu] = [Device::Cpu, device].map(|device| OnnxRuntime::load(&path, device).unwrap());
    assert!(agree([&cpu, &gpu], 1e-3) >= 3);
    println!("nodes of the largest model by provider: {:?}", gpu.describe().nodes);
    assert!(gpu.describe().nodes.iter().any(|(provider, nodes)| provider == "CUDA" && *nodes > 0));
    // Wide enough for a graphics card to be worth its while.
    let text = "in x [16,64,112,112]\na = Conv(x, u[128,64,3,3], pads=[1,1,1,1])\nb = Relu(a)\n\
                c = Conv(b, v[128,128,3,3], pads=[1,1,1,1])\nd = GlobalAveragePool(c)\nout d";
    let model = text::parse(text).unwrap();
    let shapes = inputs::input_shapes(&model, &BTreeMap::new()).unwrap().remove(0);
    let feeds = samples::random_feeds(&shapes, 1).unwrap();
    let seconds = |engine: &dyn Engine| {
        let session = engine.open(&model, &facts_of(&feeds), &["d".to_owned()]).unwrap();
        session.run(&feeds).unwrap();
        let mut times: Vec<f64> = (0..5)
            .map(|_| {
                let start = Instant::now();
                session.run(&feeds).unwrap();
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[2]
    };
    let (cpu, gpu) = (seconds(&cpu), seconds(&gpu));
    println!("a batch of two wide convolutions: CPU {cpu:.3} s, {device} {gpu:.4} s, ratio {:.1}", cpu / gpu);
    assert!(gpu < cpu, "the graphics card is slower than the processor");
}
