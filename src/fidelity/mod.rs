//! Fidelity: what pruning has done to each task, on samples that nothing was fitted to.
//!
//! Both models run on the same batches. Per output: relative L2 (length of the difference over the length of the dense
//! output, all samples together), cosine (mean over samples), and for outputs of shape [batch, classes] how often both
//! name the same class. Where labels are given, the metric itself, of both models. Invariant: values are forgotten after
//! their batch; places that only fill up a batch do not count.

mod metric;
mod outputs;

use std::collections::BTreeMap;

use crate::calibration::{Batch, Batches};
use crate::engine::{Engine, InputFact, Session, Value, facts_of};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};
use metric::Metric;
use outputs::Accumulated;

pub use metric::{METRICS, MetricRow, metric};

/// A task, what it is judged by, and with which labels.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its name.
    pub task: String,
    /// Its graph outputs; a metric judges the first.
    pub outputs: Vec<String>,
    /// The metric and the labels of all samples of the source, the first axis counting them.
    pub metric: Option<(&'static MetricRow, Value)>,
}

/// What became of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFidelity {
    /// The task.
    pub task: String,
    /// Its outputs.
    pub outputs: Vec<OutputFidelity>,
    /// The metric's name, its value for the dense model and for the pruned one.
    pub metric: Option<(&'static str, f64, f64)>,
}

/// How far one output has moved.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputFidelity {
    /// Name of the graph output.
    pub name: String,
    /// Relative L2 for floats; the fraction of elements that differ for integers and bool.
    pub relative: f64,
    /// Mean over samples of the cosine between both outputs; none for integers, and where all samples are zero.
    pub cosine: Option<f64>,
    /// For outputs of shape [batch, classes]: the fraction of samples with the same largest entry.
    pub agreement: Option<f64>,
}

/// Runs both models on all batches.
///
/// # Errors
/// A sample that cannot be read, labels that do not fit an output, a model that the engine does not run.
pub fn measure(
    dense: &ModelProto,
    pruned: &ModelProto,
    engine: &dyn Engine,
    batches: &dyn Batches,
    tasks: &[Judged],
) -> Result<Vec<TaskFidelity>> {
    let wanted: Vec<String> = tasks.iter().flat_map(|t| &t.outputs).cloned().collect();
    let mut sides = [Runner::new(engine, dense, &wanted), Runner::new(engine, pruned, &wanted)];
    let mut drifts: Vec<Accumulated> = wanted.iter().map(|_| Accumulated::default()).collect();
    let mut metrics: Vec<Option<[Box<dyn Metric>; 2]>> =
        tasks.iter().map(|t| t.metric.as_ref().map(|(row, _)| [(row.start)(), (row.start)()])).collect();
    for index in 0..batches.len() {
        let batch = batches.batch(index)?;
        let [a, b] = &mut sides;
        let (dense, pruned) = rayon::join(|| a.run(&batch), || b.run(&batch));
        let (dense, pruned) = (dense?, pruned?);
        for ((accumulated, dense), pruned) in drifts.iter_mut().zip(&dense).zip(&pruned) {
            accumulated.add(dense, pruned, batch.samples.len());
        }
        let mut position = 0;
        for (task, metrics) in tasks.iter().zip(&mut metrics) {
            if let (Some(metrics), Some((_, labels))) = (metrics, &task.metric) {
                let labels = labels.select(0, &batch.samples).map_err(|e| {
                    e.tensor(&task.task).help("the labels need one entry for every sample of the calibration data")
                })?;
                for (metric, values) in metrics.iter_mut().zip([&dense, &pruned]) {
                    let value = values.get(position).ok_or_else(|| Error::engine("the engine returned too little"))?;
                    metric.add(value, &labels).map_err(|e| e.tensor(&task.task))?;
                }
            }
            position += task.outputs.len();
        }
    }
    let mut rows = wanted.iter().zip(drifts).map(|(name, drift)| drift.finish(name));
    let fidelity = tasks.iter().zip(metrics).map(|(task, metrics)| TaskFidelity {
        task: task.task.clone(),
        outputs: rows.by_ref().take(task.outputs.len()).collect(),
        metric: task.metric.as_ref().zip(metrics).map(|((row, _), [a, b])| (row.name, a.value(), b.value())),
    });
    Ok(fidelity.collect())
}

/// A model with the session that fits the batches so far.
pub(crate) struct Runner<'a> {
    engine: &'a dyn Engine,
    model: &'a ModelProto,
    wanted: &'a [String],
    open: Option<(Vec<InputFact>, Box<dyn Session>)>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(engine: &'a dyn Engine, model: &'a ModelProto, wanted: &'a [String]) -> Self {
        Self { engine, model, wanted, open: None }
    }

    /// The wanted values without the places that only fill up the batch.
    pub(crate) fn run(&mut self, batch: &Batch) -> Result<Vec<Value>> {
        let facts = facts_of(&batch.feeds);
        let session = match self.open.take() {
            Some((old, session)) if old == facts => session,
            _ => self.engine.open(self.model, &facts, self.wanted)?,
        };
        let values = session.run(&batch.feeds)?;
        self.open = Some((facts, session));
        values.into_iter().map(|value| without_filler(value, batch)).collect()
    }
}

fn without_filler(value: Value, batch: &Batch) -> Result<Value> {
    let places = batch.samples.len() + batch.filler;
    match value.shape().first() {
        Some(rows) if batch.filler > 0 && places > 0 && rows.is_multiple_of(places) => {
            let kept: Vec<usize> = (0..rows / places * batch.samples.len()).collect();
            value.select(0, &kept)
        }
        _ => Ok(value),
    }
}

/// The labels by the name of a task or of its first output.
pub fn labels_of<'a>(labels: &'a BTreeMap<String, Value>, task: &str, outputs: &[String]) -> Option<&'a Value> {
    labels.get(task).or_else(|| outputs.first().and_then(|output| labels.get(output)))
}
