//! Gradients for criteria: gathered on the samples that scores are worked out from.

use onnx_mtprune::Result;
use onnx_mtprune::engine::Engine;
use onnx_mtprune::gates::{GradientOptions, GradientWish, Gradients};
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::report::GradientReport;
use onnx_mtprune::score;

use super::arguments::CalibrationArguments;
use super::calibration::Samples;
use super::console::Console;

/// What a criterion needs of gradients.
pub(super) fn wish(config: &PruneConfig) -> Result<Option<GradientWish>> {
    Ok(score::criterion(&config.criterion)?.gradients(config.importance))
}

/// The gradients that the criterion needs, with what to report of them; none where it needs none or there are no samples.
pub(super) fn gather(
    arguments: &CalibrationArguments,
    analysis: &Analysis,
    config: &PruneConfig,
    measuring: Option<(&Samples, &(dyn Engine + Send))>,
    console: &mut Console,
) -> Result<Option<(Gradients, GradientReport)>> {
    let wish = wish(config)?;
    if wish.is_none() && (!arguments.loss.is_empty()) {
        console.warn(&format!("the criterion `{}` looks at no gradients, so --loss does nothing", config.criterion));
    }
    let Some((wish, (samples, engine))) = wish.zip(measuring) else { return Ok(None) };
    let options = GradientOptions {
        losses: arguments.loss.clone(),
        labels: samples.labels(&analysis.tasks, &analysis.graph)?,
        draws: arguments.probes.unwrap_or(GradientOptions::default().draws),
        seed: config.seed,
        memory: arguments.bytes(),
    };
    let gradients = console.stage("gradients", || analysis.gradients(wish, &options, engine, &samples.fit))?;
    let report = GradientReport::new(analysis, &gradients, wish);
    gradients.notes.iter().for_each(|note| console.warn(note));
    report.warnings().iter().for_each(|warning| console.warn(warning));
    Ok(Some((gradients, report)))
}
