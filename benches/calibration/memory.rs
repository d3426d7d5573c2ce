//! Peak memory of the real program: `calibrate` with many samples beside the same with few.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use onnx_mtprune::engine::{Engine, InputFact, inputs, samples};
use onnx_mtprune::proto;

use crate::measure::{PAIRS, Verdict, run as run_program};
use crate::{Outcome, models};

/// The most that peak memory may grow.
const LIMIT: f64 = 1.05;

/// How many samples few and many are.
const SAMPLES: [usize; 2] = [100, 10_000];

/// The model: small, so that nothing hides what the samples take.
const MODEL: &str = "mmnist_lenet";

/// Measures with every engine.
pub(crate) fn run(engines: &[Box<dyn Engine>]) -> Outcome<Vec<Verdict>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-calibration");
    fs::create_dir_all(&folder)?;
    let model = models::own(MODEL).join("model.onnx");
    let parsed = proto::read(&model)?.model;
    let facts = inputs::input_shapes(&parsed, &BTreeMap::new())?.into_iter().next().ok_or("no shape fits the model")?;
    for count in SAMPLES {
        for fact in &facts {
            let shape = std::iter::once(count).chain(fact.shape.iter().skip(1).copied()).collect();
            let all = InputFact { shape, ..fact.clone() };
            let (_, value) = samples::random_feeds(&[all], 1)?.remove(0);
            let onnx_mtprune::engine::Value::F32(array) = value else { return Err("the model takes no floats".into()) };
            let file = folder.join(format!("{count}"));
            fs::create_dir_all(&file)?;
            ndarray_npy::write_npy(file.join(format!("{}.npy", fact.name)), &array)?;
        }
    }
    let mut verdicts = Vec::new();
    for engine in engines {
        let is_tract = engine.name().contains("tract");
        // Looking from outside may miss the last moments of a run, never see too much: the largest peak is the right one.
        let mut largest = [0, 0];
        for _ in 0..PAIRS {
            let mut peaks = [None, None];
            for (peak, count) in peaks.iter_mut().zip(SAMPLES) {
                let output = folder.join("statistics.safetensors");
                if output.exists() {
                    fs::remove_file(&output)?;
                }
                let mut program = Command::new(env!("CARGO_BIN_EXE_onnx-mtprune"));
                program.arg("calibrate").arg(&model).arg("-q").arg("--output").arg(&output);
                program.arg("--calibration").arg(folder.join(format!("{count}")));
                program.args(["--engine", if is_tract { "tract" } else { "onnxruntime" }]);
                *peak = run_program(&mut program)?.peak;
            }
            let [Some(few), Some(many)] = peaks else {
                println!("skipped: peak memory, because this system has no /proc/PID/status");
                return Ok(verdicts);
            };
            largest = [largest[0].max(few), largest[1].max(many)];
        }
        let [few, many] = largest.map(|bytes: u64| bytes as f64 / 1e6);
        let what = format!(
            "peak memory in {}: {} samples / {} ({few:.1} MB, {many:.1} MB)",
            engine.name(),
            SAMPLES[1],
            SAMPLES[0]
        );
        verdicts.push(Verdict::of(&what, vec![many / few], LIMIT));
    }
    fs::remove_dir_all(&folder)?;
    Ok(verdicts)
}
