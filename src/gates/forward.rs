//! Forward: the model with gates and losses, ready to be differentiated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::insert::{Gate, declared, insert};
use crate::calibration::{Taps, collect_names};
use crate::engine::{ElementType, Engine, Feeds, InputFact, Value};
use crate::grad::{self, Facts};
use crate::graph::Graph;
use crate::losses::{Chosen, Emitter, Feed, Head, LossRequest, Target, TaskOutputs, choose};
use crate::proto::build::int;
use crate::proto::onnx::{ModelProto, NodeProto};
use crate::proto::opset;
use crate::tasks::Tasks;
use crate::{Error, Result};

/// What losses are made of.
pub(super) struct Wanted<'a> {
    pub(super) graph: &'a Graph<'a>,
    pub(super) tasks: &'a Tasks,
    pub(super) taps: &'a Taps,
    pub(super) requests: &'a [LossRequest],
    /// By task or output.
    pub(super) labels: &'a BTreeMap<String, Arc<Value>>,
    pub(super) seed: u64,
}

/// A model with gates and losses.
pub(super) struct Forward {
    /// Its outputs are the losses.
    pub(super) model: ModelProto,
    pub(super) facts: Facts,
    /// By tap.
    pub(super) gates: Vec<Option<Gate>>,
    /// Inputs that the losses need.
    pub(super) feeds: Vec<Feed>,
    /// By task: the value of shape [batch], where the task has a loss.
    pub(super) losses: Vec<Option<String>>,
    pub(super) chosen: Vec<Chosen>,
    /// The version of the default operator set.
    pub(super) opset: i64,
}

/// Puts gates and losses into the model. `feeds` holds so many `samples` of the source.
///
/// # Errors
/// Losses that fit no output, a model that the engine cannot run.
pub(super) fn forward(
    wanted: &Wanted,
    engine: &dyn Engine,
    feeds: &Feeds,
    samples: &[usize],
    one_by_one: bool,
) -> Result<Forward> {
    let names = task_outputs(wanted.graph, wanted.tasks);
    let shapes = first_run(wanted, &names, engine, feeds)?;
    let (mut model, gates) = insert(wanted.graph, wanted.taps, &shapes, samples.len(), one_by_one)?;
    let targets = targets(wanted, &names, &shapes, samples.len());
    let chosen = choose(&names, &targets, wanted.requests)?;
    let (feeds_of_losses, losses) = append(&mut model, &names, &chosen)?;
    let mut all: Feeds = feeds.clone();
    for gate in gates.iter().flatten() {
        all.push((gate.input.clone(), gate.open(samples.len())?));
    }
    for feed in &feeds_of_losses {
        all.push((feed.name.clone(), feed.value(samples, wanted.seed, 0)?));
    }
    let facts = grad::facts_of_run(&model, &all, engine)?;
    check(&facts, &losses, samples.len())?;
    let opset = opset(&model);
    Ok(Forward { model, facts, gates, feeds: feeds_of_losses, losses, chosen, opset })
}

/// The tasks with the names of their outputs.
pub(super) fn task_outputs(graph: &Graph, tasks: &Tasks) -> Vec<TaskOutputs> {
    let of = |task: &crate::tasks::Task| TaskOutputs {
        task: task.name.clone(),
        outputs: task.outputs.iter().map(|id| graph.value(*id).name.to_owned()).collect(),
    };
    tasks.tasks.iter().map(of).collect()
}

/// Types and shapes of outputs and tapped values.
fn first_run(wanted: &Wanted, names: &[TaskOutputs], engine: &dyn Engine, feeds: &Feeds) -> Result<Facts> {
    let outputs = names.iter().flat_map(|task| task.outputs.iter().cloned());
    let tapped = wanted.taps.taps.iter().map(|tap| tap.name.clone());
    let values: Vec<String> = outputs.chain(tapped).collect::<BTreeSet<_>>().into_iter().collect();
    let found = crate::engine::run_once(engine, wanted.graph.model, feeds, &values)?;
    Ok(values.into_iter().zip(found.iter().map(grad::Fact::of)).collect())
}

fn targets(wanted: &Wanted, names: &[TaskOutputs], shapes: &Facts, samples: usize) -> Vec<Target> {
    let mut targets = Vec::new();
    for task in names {
        for (number, output) in task.outputs.iter().enumerate() {
            let Some(fact) = shapes.get(output).filter(|fact| fact.is_float()) else { continue };
            // As for metrics, labels under the name of a task are those of its first output.
            let of_task = wanted.labels.get(&task.task).filter(|_| number == 0);
            targets.push(Target {
                task: task.task.clone(),
                output: output.clone(),
                element: fact.element,
                shape: fact.shape.clone(),
                samples,
                head: Head::of(wanted.graph.model, output, fact.shape.len()),
                labels: of_task.or_else(|| wanted.labels.get(output)).cloned(),
            });
        }
    }
    targets
}

/// Appends the losses, which become the outputs of the model.
fn append(
    model: &mut ModelProto,
    names: &[TaskOutputs],
    chosen: &[Chosen],
) -> Result<(Vec<Feed>, Vec<Option<String>>)> {
    let opset = opset(model);
    let Some(graph) = &mut model.graph else { return Err(Error::input("the model has no graph")) };
    let mut taken = BTreeSet::new();
    collect_names(graph, &mut taken);
    let mut free = |mut name: String| {
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        name
    };
    let wanted: Vec<String> = names.iter().map(|task| free(format!("loss/{}", task.task))).collect();
    let mut emitter = Emitter::new(opset, taken);
    let mut losses = Vec::new();
    let mut last: Vec<NodeProto> = Vec::new();
    graph.output.clear();
    for (task, name) in names.iter().zip(wanted) {
        let mut sum: Option<String> = None;
        for own in chosen.iter().filter(|chosen| chosen.target.task == task.task) {
            let loss = own.row.loss.emit(&own.target, &mut emitter)?;
            sum = Some(emitter.weighted_sum(sum.as_deref(), &loss, own.weight));
        }
        losses.push(sum.as_ref().map(|_| name.clone()));
        let Some(sum) = sum else { continue };
        last.push(NodeProto {
            op_type: Some("Cast".to_owned()),
            name: Some(name.clone()),
            input: vec![sum],
            output: vec![name.clone()],
            attribute: vec![int("to", i64::from(ElementType::Float as i32))],
            ..Default::default()
        });
        let info = declared(&InputFact { name: name.clone(), element: ElementType::Float, shape: vec![0] });
        graph.output.push(info);
    }
    let (nodes, feeds) = emitter.finish();
    graph.node.extend(nodes);
    graph.node.extend(last);
    graph.input.extend(feeds.iter().map(|feed| declared(&feed.fact(0))));
    Ok((feeds, losses))
}

fn check(facts: &Facts, losses: &[Option<String>], samples: usize) -> Result<()> {
    for loss in losses.iter().flatten() {
        let shape = facts.get(loss).map(|fact| fact.shape.as_slice()).unwrap_or_default();
        if shape != [samples] {
            return Err(Error::input(format!("the loss of {samples} samples has the shape {shape:?}"))
                .tensor(loss)
                .help("run with --batch-size 1"));
        }
    }
    Ok(())
}
