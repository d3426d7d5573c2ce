//! Least-squares repair of a ResNet-50 beside inference of the samples that it is fitted to, in ONNX Runtime.

use onnx_mtprune::calibration::Batches;
use onnx_mtprune::engine::Engine;
use onnx_mtprune::proto;
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::repair::{RepairConfig, repair};

use crate::Outcome;
use crate::measure::Verdict;
use crate::models::{self, Plain};
use crate::timing::{medians, time};

/// The most that a repair may cost, as a multiple of inference.
const LIMIT: f64 = 10.0;

/// How many samples a repair is fitted to.
pub(crate) const SAMPLES: usize = 512;

/// A repair runs once, because it takes minutes, and inference before and behind it.
pub(crate) fn run(engines: &[Box<dyn Engine>], samples: usize) -> Outcome<Vec<Verdict>> {
    let Some(engine) = engines.iter().find(|engine| engine.name().contains("ONNX Runtime")) else {
        println!("skipped: repair, because ONNX Runtime is not there");
        return Ok(Vec::new());
    };
    let Some(path) = models::resnet50() else { return Ok(Vec::new()) };
    let file = proto::read(&path)?;
    let batches = models::batches(models::random(&file.model, samples)?, &file.model, None)?;
    let analysis = Analysis::of(&file.model, &[])?;
    let plan = analysis.plan(&PruneConfig { ratio: 0.5, ..PruneConfig::default() })?;
    let rewritten = analysis.apply(&plan)?;
    let pruned = rewritten.output.materialise()?;
    let mut plain = Plain::new(engine.as_ref(), &file.model);
    let first = models::batches(models::random(&file.model, models::BATCH)?, &file.model, None)?;
    models::infer(&mut plain, &first)?;
    let mut inference = vec![time(&mut || models::infer(&mut plain, &batches))?];
    let mut refitted = 0;
    let config = RepairConfig::default();
    let repairing = time(&mut || {
        let found = repair(&file.model, pruned.clone(), &rewritten.kept, engine.as_ref(), &batches, &config)?;
        refitted = found.refitted;
        Ok(())
    })?;
    inference.push(time(&mut || models::infer(&mut plain, &batches))?);
    let inference = medians(&inference);
    println!(
        "ResNet-50, {} samples: inference {:.1} s, repair of {refitted} contractions {:.1} s",
        batches.samples(),
        inference.wall,
        repairing.wall
    );
    if refitted == 0 {
        return Err("nothing was refitted".into());
    }
    let what = |clock: &str| format!("ResNet-50, {} samples, {clock}: repair / inference", batches.samples());
    let mut verdicts = vec![Verdict::of(&what("wall time"), vec![repairing.wall / inference.wall], LIMIT)];
    if let (Some(repairing), Some(inference)) = (repairing.processor, inference.processor) {
        verdicts.push(Verdict::of(&what("processor time"), vec![repairing / inference], LIMIT));
    }
    Ok(verdicts)
}
