//! Real samples on the command line: which of them fit, which judge, and what became of every task.
//!
//! Invariant: what judges is never fitted to, unless there are too few samples for both; then the report says 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use onnx_mtprune::calibration::batching::{Feeder, FeederOptions};
use onnx_mtprune::calibration::source::{self, Scaled, SourceOptions};
use onnx_mtprune::calibration::{Batches, Source};
use onnx_mtprune::engine::inputs::declared_inputs;
use onnx_mtprune::engine::{ElementType, Engine, Value};
use onnx_mtprune::fidelity::{self, Judged};
use onnx_mtprune::graph::Graph;
use onnx_mtprune::kept::Kept;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::repair::{self, Method, RepairConfig, Repaired};
use onnx_mtprune::report::{Calibration, FidelityRow, RepairRow};
use onnx_mtprune::tasks::Tasks;
use onnx_mtprune::verify::{Declared, Outcome, verify_repair};
use onnx_mtprune::{Error, ErrorKind, Result};

use super::arguments::CalibrationArguments;

/// With fewer samples than this all of them serve for everything.
const ENOUGH_TO_DIVIDE: usize = 5;

/// Every fifth sample judges, but no more than this.
const MOST_HELD_OUT: usize = 512;

/// The samples of a run.
pub(super) struct Samples {
    /// What scores and repair are worked out from.
    pub(super) fit: Feeder,
    /// What fidelity is measured on.
    judge: Feeder,
    held_out: usize,
    tasks: Vec<Judged>,
    config: RepairConfig,
    /// By task or output.
    labels: BTreeMap<String, Arc<Value>>,
    total: usize,
    /// What a person should know about how the files were understood.
    pub(super) notes: Vec<String>,
}

impl Samples {
    /// Opens what was asked for; none without `--calibration`. `takes_labels` says whether something but a metric looks
    /// at labels: losses, or the similarity of neighbours.
    ///
    /// # Errors
    /// Data that cannot be read or does not fit the model; labels or metrics that name no task.
    pub(super) fn open(
        arguments: &CalibrationArguments,
        model: &ModelProto,
        graph: &Graph,
        tasks: &Tasks,
        seed: u64,
        takes_labels: bool,
    ) -> Result<Option<Self>> {
        let Some(path) = &arguments.calibration else { return Ok(None) };
        let options = SourceOptions::new(std::env::temp_dir());
        let source = scaled(source::open(path, model, &options)?, &arguments.input_scale)?;
        let mut notes = source.notes().to_vec();
        notes.extend(unscaled(source.as_ref(), model)?);
        let total = arguments.max_samples.map_or(source.len(), |most| most.min(source.len()));
        let held_out = if total < ENOUGH_TO_DIVIDE { 0 } else { (total / 5).clamp(1, MOST_HELD_OUT) };
        let feeder = |skip: usize, count: usize| {
            let options = FeederOptions {
                batch_size: arguments.batch_size.unwrap_or(FeederOptions::default().batch_size),
                skip,
                max_samples: Some(count),
                shuffle: Some(seed),
                ..FeederOptions::default()
            };
            Feeder::new(Arc::clone(&source), model, &options)
        };
        let fit = feeder(0, total - held_out)?;
        let judge = if held_out == 0 { feeder(0, total)? } else { feeder(total - held_out, held_out)? };
        let labels = match &arguments.labels {
            Some(path) => source::read_labels(path, &SourceOptions::new(std::env::temp_dir()))?,
            None => BTreeMap::new(),
        };
        let tasks = judged(arguments, &labels, graph, tasks, source.len())?;
        if arguments.labels.is_some() && arguments.metric.is_empty() && !takes_labels {
            notes.push("the labels are not used; --metric TASK=METRIC says what they judge".to_owned());
        }
        let method = match &arguments.repair {
            Some(name) => repair::method(name)?,
            None => Method::LeastSquares,
        };
        let config = RepairConfig {
            method,
            lambda: arguments.lambda.unwrap_or(RepairConfig::default().lambda),
            memory: arguments.bytes(),
            seed,
        };
        let labels = labels.into_iter().map(|(name, value)| (name, Arc::new(value))).collect();
        let total = source.len();
        Ok(Some(Self { fit, judge, held_out, tasks, config, labels, total, notes }))
    }

    /// The labels of tasks and outputs, for losses.
    ///
    /// # Errors
    /// Labels that are not one for every sample.
    pub(super) fn labels(&self, tasks: &Tasks, graph: &Graph) -> Result<BTreeMap<String, Arc<Value>>> {
        let outputs = tasks.tasks.iter().flat_map(|task| &task.outputs).map(|output| graph.value(*output).name);
        let names: Vec<&str> = tasks.tasks.iter().map(|task| task.name.as_str()).chain(outputs).collect();
        let labels = self.labels.iter().filter(|(name, _)| names.contains(&name.as_str()));
        labels.map(|(name, own)| check_count(name, own, self.total).map(|()| (name.clone(), Arc::clone(own)))).collect()
    }

    /// Repairs the pruned model.
    ///
    /// # Errors
    /// Samples that cannot be read, a model that the engine does not run.
    pub(super) fn repaired(
        &self,
        original: &ModelProto,
        pruned: &ModelProto,
        kept: &Kept,
        engine: &dyn Engine,
    ) -> Result<Option<Repaired>> {
        if self.config.method == Method::None {
            return Ok(None);
        }
        let repaired = repair::repair(original, pruned.clone(), kept, engine, &self.fit, &self.config);
        repaired.map(Some).map_err(|error| match (error.kind(), error.advice()) {
            // Parts of a model, and batches, may be more than an engine takes that runs one sample through the whole.
            (ErrorKind::Engine, None) => error.prefix("the repair stops: ").help(
                "try --batch-size 1 or another --engine (onnxruntime runs more than tract); --repair none does without",
            ),
            _ => error,
        })
    }

    /// Judges what a repair made of the pruned model, with one batch that it was not fitted to.
    ///
    /// # Errors
    /// Samples that cannot be read.
    pub(super) fn verdict(
        &self,
        pruned: &ModelProto,
        repaired: &ModelProto,
        declared: &Declared,
        engine: &dyn Engine,
    ) -> Result<Outcome> {
        Ok(verify_repair(pruned, repaired, declared, engine, &self.judge.batch(0)?.feeds))
    }

    /// What to report.
    ///
    /// # Errors
    /// As [`Samples::repaired`].
    pub(super) fn report(
        &self,
        original: &ModelProto,
        pruned: &ModelProto,
        repaired: Option<&Repaired>,
        engine: &dyn Engine,
    ) -> Result<Calibration> {
        let fidelity = fidelity::measure(original, pruned, engine, &self.judge, &self.tasks)?;
        let name =
            repair::METHODS.iter().find(|(_, method)| *method == self.config.method).map_or("", |(name, _)| name);
        Ok(Calibration {
            engine: engine.describe().label(),
            samples: self.fit.samples(),
            held_out: self.held_out,
            repair: repaired.map(|repaired| RepairRow {
                method: name.to_owned(),
                changed: repaired.changed.iter().map(|(name, change)| (name.clone(), *change)).collect(),
                left: repaired.left.iter().map(|left| (left.node.clone(), left.why.clone())).collect(),
            }),
            gradients: None,
            fidelity: fidelity.iter().map(FidelityRow::from).collect(),
        })
    }
}

/// The samples, scaled where that was asked for.
pub(super) fn scaled(source: Box<dyn Source>, scales: &[(String, f64)]) -> Result<Arc<dyn Source>> {
    if scales.is_empty() {
        return Ok(Arc::from(source));
    }
    Ok(Arc::new(Scaled::new(source, scales.iter().cloned().collect())?))
}

/// A sentence for every input that takes floating-point numbers and is given bytes, as pictures often are kept.
pub(super) fn unscaled(source: &dyn Source, model: &ModelProto) -> Result<Vec<String>> {
    if source.is_empty() {
        return Ok(Vec::new());
    }
    let declared = declared_inputs(model)?;
    let takes_floats = |name: &str| declared.iter().any(|i| i.name == name && i.element == ElementType::Float);
    let bytes = source
        .sample(0)?
        .into_iter()
        .filter(|(name, value)| value.element() == ElementType::Uint8 && takes_floats(name));
    let note = |(name, _): (String, Value)| {
        format!(
            "the samples of `{name}` are bytes, fed as numbers from 0 to 255; if the model expects others, say so as in \
             --input-scale {name}=0.00392156862745098"
        )
    };
    Ok(bytes.map(note).collect())
}

/// More labels than samples would fit as well, and belong to others.
fn check_count(name: &str, labels: &Value, samples: usize) -> Result<()> {
    let given = labels.shape().first().copied().unwrap_or(0);
    if given == samples {
        return Ok(());
    }
    Err(Error::input(format!("{given} labels for {samples} samples"))
        .tensor(name)
        .help("give one entry for every sample of --calibration, in the same order"))
}

/// The tasks with their metrics and labels.
fn judged(
    arguments: &CalibrationArguments,
    labels: &BTreeMap<String, Value>,
    graph: &Graph,
    tasks: &Tasks,
    samples: usize,
) -> Result<Vec<Judged>> {
    let mut metrics: Vec<(&str, &str)> = arguments.metric.iter().map(|(t, m)| (t.as_str(), m.as_str())).collect();
    let mut judged = Vec::new();
    for task in &tasks.tasks {
        let outputs: Vec<String> = task.outputs.iter().map(|o| graph.value(*o).name.to_owned()).collect();
        let place = metrics.iter().position(|(name, _)| *name == task.name);
        let metric = match place.map(|place| metrics.remove(place)) {
            None => None,
            Some((_, name)) => {
                let found = fidelity::labels_of(labels, &task.name, &outputs).cloned();
                let labels: Value = found.ok_or_else(|| {
                    let known: Vec<&String> = labels.keys().collect();
                    Error::input(format!("there are no labels for the task, only {known:?}"))
                        .tensor(&task.name)
                        .help("name the arrays of --labels after tasks or outputs")
                })?;
                check_count(&task.name, &labels, samples)?;
                Some((fidelity::metric(name)?, labels))
            }
        };
        judged.push(Judged { task: task.name.clone(), outputs, metric });
    }
    match metrics.first() {
        None => Ok(judged),
        Some((name, _)) => {
            let known: Vec<&str> = tasks.tasks.iter().map(|t| t.name.as_str()).collect();
            Err(Error::input(format!("--metric names no task `{name}`")).help(format!("the tasks are {known:?}")))
        }
    }
}
