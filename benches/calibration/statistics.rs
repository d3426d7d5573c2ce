//! Statistics for all groups beside plain inference of the same samples, in the same batches, by the same engine.

use std::path::PathBuf;

use onnx_mtprune::calibration::{Batches, Gathering, Shard, Statistics, Wish};
use onnx_mtprune::engine::Engine;
use onnx_mtprune::proto;
use onnx_mtprune::prune::Analysis;

use crate::Outcome;
use crate::measure::{PAIRS, Verdict};
use crate::models::{self, Plain};
use crate::timing::{Time, medians, time};

/// The most that statistics may cost, as a multiple of inference.
const LIMIT: f64 = 1.3;

/// The models with a limit; the others are reported without one.
const LIMITED: [&str; 3] = ["twinlitenet", "human_faceres", "resnet50"];

/// A measurement goes on for so many seconds at least.
const LONG_ENOUGH: f64 = 0.5;

struct Case {
    name: &'static str,
    model: PathBuf,
    /// Where samples are; random ones are made where there are none.
    samples: Option<PathBuf>,
    /// The most samples that are fed.
    most: usize,
}

/// Measures all models on all engines.
pub(crate) fn run(engines: &[Box<dyn Engine>], only: &str) -> Outcome<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for case in cases().into_iter().filter(|case| case.name.contains(only)) {
        if !case.model.is_file() {
            println!("skipped: {}, because there is no {}", case.name, case.model.display());
            continue;
        }
        for engine in engines {
            verdicts.extend(one(&case, engine.as_ref())?);
        }
    }
    Ok(verdicts)
}

fn cases() -> Vec<Case> {
    let own = ["digit_scenes", "mmnist_lenet", "mmnist_resnet"].map(|name| Case {
        name,
        model: models::own(name).join("model.onnx"),
        samples: Some(models::own(name).join("calibration.npz")),
        most: 64,
    });
    let shared = ["twinlitenet", "human_faceres", "mp_hand_landmark_lite", "retinaface_mnet025"].map(|name| Case {
        name,
        model: models::shared(name).join("model.onnx"),
        samples: Some(models::shared(name).join("inputs.npz")),
        most: 16,
    });
    let big = models::resnet50().map(|model| Case { name: "resnet50", model, samples: None, most: models::BATCH });
    own.into_iter().chain(shared).chain(big).collect()
}

fn one(case: &Case, engine: &dyn Engine) -> Outcome<Vec<Verdict>> {
    let file = proto::read(&case.model)?;
    let source = match &case.samples {
        Some(path) => models::from_file(path, &file.model)?,
        None => models::random(&file.model, case.most)?,
    };
    let batches = models::batches(source, &file.model, Some(case.most))?;
    let analysis = Analysis::of(&file.model, &[])?;
    let taps = analysis.taps();
    let mut plain = Plain::new(engine, &file.model);
    let mut gathering = Gathering::new(analysis.graph.model, &taps, &Wish::default(), engine);
    let mut infer = |times: usize| (0..times).try_for_each(|_| models::infer(&mut plain, &batches));
    let mut gather = |times: usize| -> Outcome<()> {
        for _ in 0..times {
            let mut statistics = Statistics::empty(&taps);
            gathering.run(&batches, Shard::ALL, &mut statistics, &mut |_| Ok(()))?;
            if statistics.samples != batches.samples() as u64 {
                return Err("samples were left out".into());
            }
        }
        Ok(())
    };
    // The first runs open the sessions; the second tell how often the samples must be fed again.
    infer(1)?;
    gather(1)?;
    let once = time(&mut || infer(1))?.wall;
    let times = (LONG_ENOUGH / once).ceil().max(1.0) as usize;
    let (mut inference, mut statistics): (Vec<Time>, Vec<Time>) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        inference.push(time(&mut || infer(times))?);
        statistics.push(time(&mut || gather(times))?);
    }
    let (inference, statistics) = (medians(&inference), medians(&statistics));
    let limit = if LIMITED.contains(&case.name) { LIMIT } else { f64::INFINITY };
    let per_sample = 1e3 * inference.wall / (times * batches.samples()) as f64;
    let what = |clock: &str| {
        let taps = taps.taps.len();
        format!(
            "{} in {}, {clock}: statistics / inference ({taps} taps, {per_sample:.2} ms a sample)",
            case.name,
            engine.name()
        )
    };
    let mut verdicts = vec![Verdict::of(&what("wall time"), vec![statistics.wall / inference.wall], limit)];
    if let (Some(statistics), Some(inference)) = (statistics.processor, inference.processor) {
        verdicts.push(Verdict::of(&what("processor time"), vec![statistics / inference], limit));
    }
    Ok(verdicts)
}
