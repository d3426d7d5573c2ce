//! Reports: what a run did, as plain data for machines (JSON) and as a page for people.
//!
//! Invariants: nothing here measures time, prints or reads files; what the caller measured is handed in. Parameters and
//! multiply-accumulates are counted as `count` says. The sums over `parts` are the totals; `tasks` overlap.

mod agreement;
mod calibration;
mod count;
mod dropped;
mod explain;
mod gradients;
mod inspection;
mod inspection_text;
mod locks;
mod options;
mod text;
mod verification;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use agreement::{Agreement, AgreementRow, Conflict, Watershed};
pub use calibration::{Calibration, FidelityRow, OutputFidelityRow, RepairRow};
pub use dropped::Dropped;
pub use explain::explain;
pub use gradients::{GradientReport, OutputLoss, StopRow, TaskLoss};
pub use inspection::{GroupRow, Inspection, Share};
pub use inspection_text::inspection_text;
pub use locks::Reason;
pub use options::Options;
pub use text::{drift_text, repair_text, text, verification_text};
pub use verification::{DriftRow, OutputRow, RepairCheck, Verification};

use crate::Result;
use crate::allocate::{Held, Plan};
use crate::functions;
use crate::graph::Graph;
use crate::prune::Analysis;
use crate::rewrite::Rewritten;
use crate::tasks::{TaskSet, Tasks};
use count::Cost;

/// The version of the JSON form.
const FORMAT: u32 = 1;

/// What one pruning run did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The version of this form.
    pub format: u32,
    /// The version of the program.
    pub version: &'static str,
    /// The original model.
    pub input: FileRow,
    /// The pruned model.
    pub output: FileRow,
    /// False for a dry run.
    pub written: bool,
    /// What was asked for.
    pub options: Options,
    /// Elements of weights.
    pub parameters: Change,
    /// Multiply-accumulates of one run.
    pub macs: Change,
    /// True if `macs` are those of one element of every dynamic axis.
    pub macs_per_dynamic_element: bool,
    /// What feeds the same tasks; the parts make up the model.
    pub parts: Vec<Part>,
    /// All that feeds a task, shared or not.
    pub tasks: Vec<TaskRow>,
    /// What went with the tasks that were not kept; none where all were.
    pub dropped: Option<Dropped>,
    /// What became of the coupled channel groups.
    pub groups: GroupCounts,
    /// Channels of the groups that may shrink.
    pub channels: Change,
    /// The constants whose elements count as parameters.
    pub constants: Vec<String>,
    /// Nodes that no rule describes, so that what they touch stays whole.
    pub opaque: Vec<Opaque>,
    /// Nodes, by their first outputs, that take statistics over what remains of an axis.
    pub approximated: Vec<String>,
    /// Why parameters stay, the biggest share first.
    pub stays: Vec<Reason>,
    /// How verification of the cut ended, and that of the repair behind it.
    pub verification: Verification,
    /// How far tasks agree on what to keep; none where they had no say.
    pub agreement: Option<Agreement>,
    /// What real samples were used for; none where none were given.
    pub calibration: Option<Calibration>,
    /// Wall-clock time by stage, in order.
    pub stages: Vec<Stage>,
}

/// A model file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileRow {
    /// Its path as it was given.
    pub path: String,
    /// Its length with that of its data file; none where the file was not written.
    pub bytes: Option<u64>,
}

/// A number before and after pruning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// In the original.
    pub before: u64,
    /// In the pruned model.
    pub after: u64,
}

/// All that feeds exactly one set of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The names of the tasks; empty for what feeds no output.
    pub tasks: Vec<String>,
    /// What it is, in words.
    pub label: String,
    /// Its parameters.
    pub parameters: Change,
    /// Its multiply-accumulates.
    pub macs: Change,
}

/// All that feeds one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskRow {
    /// The task.
    pub name: String,
    /// Its graph outputs.
    pub outputs: Vec<String>,
    /// The parameters that it reaches.
    pub parameters: Change,
    /// The multiply-accumulates of the nodes that it reaches.
    pub macs: Change,
}

/// What became of the groups; `total` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GroupCounts {
    /// All coupled channel groups.
    pub total: usize,
    /// Those that lost channels.
    pub shrunk: usize,
    /// Those that could shrink, but were not asked to: the ratio, the rounding or a floor.
    pub whole: usize,
    /// Those that a name pattern or a task protects, and heads and head dimensions that are kept on demand.
    pub protected: usize,
    /// Those that share an axis with a group that shrinks instead.
    pub nested: usize,
    /// Those that may not shrink.
    pub locked: usize,
}

/// Nodes of one operator that are opaque for one reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Opaque {
    /// The operator, with its domain unless that is ONNX's own.
    pub operator: String,
    /// The reason.
    pub reason: String,
    /// How many nodes.
    pub nodes: usize,
}

/// One stage and its wall-clock time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// What was done.
    pub stage: String,
    /// How long it took.
    pub seconds: f64,
}

/// What a report is made from.
pub struct Run<'a> {
    /// The original, understood.
    pub analysis: &'a Analysis<'a>,
    /// What stays.
    pub plan: &'a Plan,
    /// What came out.
    pub rewritten: &'a Rewritten,
    /// The file that was read.
    pub input: FileRow,
    /// The file that was, or would have been, written.
    pub output: FileRow,
    /// False for a dry run.
    pub written: bool,
    /// What was asked for.
    pub options: Options,
    /// How verification ended.
    pub verification: Verification,
    /// How far tasks agree on what to keep.
    pub agreement: Option<Agreement>,
    /// What real samples were used for.
    pub calibration: Option<Calibration>,
    /// What went with the tasks that were not kept; the analysis is then one of what stayed.
    pub dropped: Option<Dropped>,
    /// What the caller measured.
    pub stages: Vec<Stage>,
}

impl Report {
    /// Counts before and after.
    ///
    /// # Errors
    /// A pruned model whose graph is not well formed.
    pub fn new(run: Run) -> Result<Self> {
        let analysis = run.analysis;
        let statistics = count::statistics(&analysis.graph, &analysis.coupling);
        let stored = count::stored(&analysis.graph, &analysis.tasks, &statistics, &BTreeMap::new());
        let before = count::by_tasks(&stored, &analysis.tasks, &analysis.coupling.macs);
        let after = {
            let output = &run.rewritten.output;
            // What functions hold counts once for every call, as it does before.
            let inlined = functions::inline(&output.model);
            let graph = Graph::new(&inlined.model)?;
            let tasks = Tasks::of(&graph, &requested(analysis))?;
            let stored = count::stored(&graph, &tasks, &statistics, &output.slices);
            // Nodes keep their tasks, so the original's serve for its nodes' new costs; inserted nodes only move data.
            let mut costs = count::by_tasks(&[], &analysis.tasks, &run.rewritten.macs);
            for (set, cost) in count::by_tasks(&stored, &tasks, &[]) {
                costs.entry(set).or_default().parameters = cost.parameters;
            }
            costs
        };
        let (mut parts, tasks) = (parts(&analysis.tasks, &before, &after), task_rows(analysis, &before, &after));
        if let Some(dropped) = &run.dropped {
            parts.push(dropped.part(&parts));
        }
        let sum = |pick: fn(&Part) -> Change| {
            parts.iter().map(pick).fold(Change::default(), |a, b| Change {
                before: a.before.saturating_add(b.before),
                after: a.after.saturating_add(b.after),
            })
        };
        let (parameters, macs) = (sum(|p| p.parameters), sum(|p| p.macs));
        Ok(Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            input: run.input,
            output: run.output,
            written: run.written,
            options: run.options,
            parameters,
            macs,
            macs_per_dynamic_element: count::is_symbolic(&analysis.coupling.macs),
            parts,
            tasks,
            dropped: run.dropped,
            groups: group_counts(analysis, run.plan),
            channels: channels(analysis, run.plan),
            constants: stored.iter().map(|s| s.name.clone()).collect(),
            opaque: opaque(analysis),
            approximated: run.rewritten.approximated.iter().cloned().collect(),
            stays: locks::reasons(analysis, &stored, Some(run.plan)),
            verification: run.verification,
            agreement: run.agreement,
            calibration: run.calibration,
            stages: run.stages,
        })
    }

    /// The report for machines.
    ///
    /// # Errors
    /// None that a report can cause; serialisation is fallible by type only.
    pub fn json(&self) -> Result<String> {
        json(self)
    }
}

/// Anything as indented JSON with a final line break.
fn json(data: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(data);
    Ok(text.map_err(|e| crate::Error::input("the report cannot be written").because(e))? + "\n")
}

/// The tasks as a request that gives the same tasks for another model with the same outputs.
fn requested(analysis: &Analysis) -> Vec<(String, Vec<String>)> {
    let tasks = analysis.tasks.tasks.iter();
    tasks
        .map(|t| (t.name.clone(), t.outputs.iter().map(|o| analysis.graph.value(*o).name.to_owned()).collect()))
        .collect()
}

/// One row per set of tasks: what is shared by most tasks first, what feeds no output last.
fn parts(tasks: &Tasks, before: &BTreeMap<TaskSet, Cost>, after: &BTreeMap<TaskSet, Cost>) -> Vec<Part> {
    let sets: BTreeSet<&TaskSet> = before.keys().chain(after.keys()).collect();
    let mut sets: Vec<&TaskSet> = sets.into_iter().collect();
    sets.sort_by_key(|set| (std::cmp::Reverse(set.len()), set.iter().collect::<Vec<_>>()));
    let of = |costs: &BTreeMap<TaskSet, Cost>, set| costs.get(set).copied().unwrap_or_default();
    let rows = sets.into_iter().map(|set| {
        let (a, b) = (of(before, set), of(after, set));
        Part {
            tasks: set.iter().filter_map(|t| tasks.tasks.get(t)).map(|t| t.name.clone()).collect(),
            label: label(tasks, set),
            parameters: Change { before: a.parameters, after: b.parameters },
            macs: Change { before: a.macs, after: b.macs },
        }
    });
    rows.filter(|row| row.parameters != Change::default() || row.macs != Change::default()).collect()
}

fn label(tasks: &Tasks, set: &TaskSet) -> String {
    match (set.len(), tasks.tasks.len()) {
        (0, _) => "feeding no output".to_owned(),
        (1, 1) => format!("task {}", tasks.names(set)),
        (1, _) => format!("branch of {}", tasks.names(set)),
        (n, all) if n == all => "trunk, shared by all tasks".to_owned(),
        (n, _) if n > 4 => {
            let first = set.iter().take(3).filter_map(|t| tasks.tasks.get(t)).map(|t| t.name.as_str());
            format!("shared by {n} tasks: {} + …", first.collect::<Vec<_>>().join(" + "))
        }
        _ => {
            let names = set.iter().filter_map(|t| tasks.tasks.get(t)).map(|t| t.name.as_str());
            format!("shared by {}", names.collect::<Vec<_>>().join(" + "))
        }
    }
}

fn task_rows(analysis: &Analysis, before: &BTreeMap<TaskSet, Cost>, after: &BTreeMap<TaskSet, Cost>) -> Vec<TaskRow> {
    let total = |costs: &BTreeMap<TaskSet, Cost>, task: usize| {
        let of_task = costs.iter().filter(|(set, _)| set.iter().any(|t| t == task));
        of_task.fold(Cost::default(), |a, (_, b)| Cost {
            parameters: a.parameters.saturating_add(b.parameters),
            macs: a.macs.saturating_add(b.macs),
        })
    };
    let tasks = requested(analysis).into_iter().enumerate();
    tasks
        .map(|(index, (name, outputs))| {
            let (a, b) = (total(before, index), total(after, index));
            TaskRow {
                name,
                outputs,
                parameters: Change { before: a.parameters, after: b.parameters },
                macs: Change { before: a.macs, after: b.macs },
            }
        })
        .collect()
}

fn group_counts(analysis: &Analysis, plan: &Plan) -> GroupCounts {
    let mut counts = GroupCounts { total: analysis.groups.len(), ..GroupCounts::default() };
    for (index, group) in analysis.groups.iter().enumerate() {
        let is_shrunk = plan.kept.get(index).is_some_and(Option::is_some);
        match (group.lock, plan.held.get(&index)) {
            (Some(_), _) => counts.locked += 1,
            (None, Some(Held::Protected(_) | Held::Tasks(_) | Held::Part(_))) => counts.protected += 1,
            (None, Some(Held::Nested(_))) => counts.nested += 1,
            (None, None) if is_shrunk => counts.shrunk += 1,
            (None, Some(Held::Copies) | None) => counts.whole += 1,
        }
    }
    counts
}

fn channels(analysis: &Analysis, plan: &Plan) -> Change {
    let free = analysis.groups.iter().enumerate().filter(|(_, g)| g.lock.is_none());
    free.fold(Change::default(), |sum, (index, group)| {
        let kept = plan.kept.get(index).and_then(Option::as_ref).map_or(group.extent, Vec::len);
        Change { before: sum.before + group.extent as u64, after: sum.after + kept as u64 }
    })
}

fn opaque(analysis: &Analysis) -> Vec<Opaque> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (node, why) in analysis.graph.nodes.iter().zip(&analysis.coupling.opaque) {
        let Some(why) = why else { continue };
        let operator = match node.domain() {
            "" => node.op_type().to_owned(),
            domain => format!("{domain}.{}", node.op_type()),
        };
        *counts.entry((operator, why.clone())).or_default() += 1;
    }
    counts.into_iter().map(|((operator, reason), nodes)| Opaque { operator, reason, nodes }).collect()
}
