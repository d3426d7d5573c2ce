//! What real samples were used for, and what became of every task, as data and as a table.

use serde::Serialize;

use super::gradients::GradientReport;
use super::text::table;
use super::words::shorten;
use crate::fidelity::TaskFidelity;

/// What real samples were used for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// The engine that ran them, with its device.
    pub engine: String,
    /// Samples that scores and repair were worked out from.
    pub samples: usize,
    /// Samples that fidelity was measured on; others than those above, unless there are too few for both.
    pub held_out: usize,
    /// How the remaining weights were repaired; none if they were not.
    pub repair: Option<RepairRow>,
    /// The losses that gradients were taken of, for criteria that need gradients.
    pub gradients: Option<GradientReport>,
    /// What became of every task.
    pub fidelity: Vec<FidelityRow>,
}

/// How the remaining weights were repaired.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepairRow {
    /// The method.
    pub method: String,
    /// The constants that it changed, with the largest change relative to the largest magnitude.
    pub changed: Vec<(String, f64)>,
    /// Contractions that it left alone, each with the reason.
    pub left: Vec<(String, String)>,
}

/// What became of one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FidelityRow {
    /// The task.
    pub task: String,
    /// Its outputs.
    pub outputs: Vec<OutputFidelityRow>,
    /// The metric's name; none without labels.
    pub metric: Option<&'static str>,
    /// The metric of the dense model; none also where it is no number, as of no labels that count.
    pub dense: Option<f64>,
    /// The metric of the pruned model, likewise.
    pub pruned: Option<f64>,
}

/// How far one output has moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputFidelityRow {
    /// The output.
    pub name: String,
    /// The length of the difference over that of the dense output; for integers the fraction that differs; none where it
    /// is infinite, because the dense output is zero, or the pruned one not finite or of another shape.
    pub relative: Option<f64>,
    /// The cosine between both, mean over samples.
    pub cosine: Option<f64>,
    /// The fraction of samples for which both name the same class.
    pub agreement: Option<f64>,
}

impl From<&TaskFidelity> for FidelityRow {
    fn from(fidelity: &TaskFidelity) -> Self {
        let outputs = fidelity.outputs.iter().map(|output| OutputFidelityRow {
            name: output.name.clone(),
            relative: Some(output.relative).filter(|relative| relative.is_finite()),
            cosine: output.cosine,
            agreement: output.agreement,
        });
        Self {
            task: fidelity.task.clone(),
            outputs: outputs.collect(),
            metric: fidelity.metric.map(|(name, ..)| name),
            dense: fidelity.metric.map(|(_, dense, _)| dense).filter(|dense| dense.is_finite()),
            pruned: fidelity.metric.map(|(.., pruned)| pruned).filter(|pruned| pruned.is_finite()),
        }
    }
}

impl Calibration {
    /// One row per output: how far it is from the dense model's, and the metric where there are labels.
    pub fn table(&self, name_width: usize) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let percent = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{:.1} %", 100.0 * v));
        let rows = self.fidelity.iter().flat_map(|row| {
            row.outputs.iter().enumerate().map(move |(index, output)| {
                let first = index == 0;
                let name = if first { row.task.clone() } else { format!("  {}", output.name) };
                let metric = match row.metric.filter(|_| first) {
                    Some(metric) => format!("{metric} {} -> {}", number(row.dense), number(row.pruned)),
                    None => String::new(),
                };
                let drift = output.relative.map_or_else(|| "infinite".to_owned(), |relative| format!("{relative:.4}"));
                vec![shorten(&name, name_width), drift, number(output.cosine), percent(output.agreement), metric]
            })
        });
        table(&["<fidelity", "relative L2", "cosine", "same class", "<"], rows)
    }

    /// What was done, in one line.
    pub fn line(&self) -> String {
        let repair = match &self.repair {
            None => "not repaired".to_owned(),
            Some(repair) => {
                let left = repair.left.first().map_or_else(String::new, |(node, why)| {
                    let (node, why) = (shorten(node, 40), shorten(why, 120));
                    match repair.left.len() {
                        1 => format!(", contraction `{node}` left as it is: {why}"),
                        n => format!(", {n} contractions left as they are, such as `{node}`: {why}"),
                    }
                });
                format!("repaired by {}, {} constants changed{left}", repair.method, repair.changed.len())
            }
        };
        let judged = match self.held_out {
            0 => "the same, because there are few".to_owned(),
            n => format!("{n} more"),
        };
        format!("{} samples with {}; {repair}; fidelity on {judged}", self.samples, self.engine)
    }
}
