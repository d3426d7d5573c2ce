//! Dropped tasks: what went because only outputs that are not kept needed it.

use serde::Serialize;

use super::{Change, Part, count};
use crate::extract::Extracted;
use crate::prune::Analysis;

/// What went with the tasks that were not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The tasks that went.
    pub tasks: Vec<String>,
    /// Their graph outputs.
    pub outputs: Vec<String>,
    /// The graph inputs that only they read.
    pub inputs: Vec<String>,
    /// How many nodes of the main graph went, calls of local functions counted as what they mean.
    pub nodes: usize,
    /// How many channels of what stays were read by nobody else.
    pub channels: usize,
    /// The parameters of the whole model.
    pub parameters: u64,
    /// Its multiply-accumulates.
    pub macs: u64,
}

impl Dropped {
    /// What went of a whole model.
    pub fn new(whole: &Analysis, part: &Extracted) -> Self {
        let statistics = count::statistics(&whole.graph, &whole.coupling);
        let stored = count::stored(&whole.graph, &whole.tasks, &statistics, &Default::default());
        let name = |id: &crate::graph::ValueId| whole.graph.value(*id).name.to_owned();
        let goes = |id: &crate::graph::ValueId| !part.outputs.contains(&name(id));
        let gone = whole.tasks.tasks.iter().filter(|task| task.outputs.iter().all(goes));
        Self {
            tasks: gone.map(|task| task.name.clone()).collect(),
            outputs: whole.graph.outputs.iter().filter(|id| goes(id)).map(name).collect(),
            inputs: part.dropped_inputs.clone(),
            nodes: part.dropped_nodes,
            channels: part.dropped_channels,
            parameters: stored.iter().fold(0, |all, constant| all.saturating_add(constant.elements)),
            macs: whole.coupling.macs.iter().flatten().fold(0, |all, macs| all.saturating_add(count::count(macs))),
        }
    }

    /// True if nothing went.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.inputs.is_empty() && self.nodes == 0 && self.channels == 0
    }

    /// The part of the model that went, beside the parts that stayed.
    pub(super) fn part(&self, parts: &[Part]) -> Part {
        let rest = |whole: u64, of: fn(&Part) -> Change| {
            let stayed = parts.iter().fold(0u64, |all, part| all.saturating_add(of(part).before));
            Change { before: whole.saturating_sub(stayed), after: 0 }
        };
        Part {
            tasks: self.tasks.clone(),
            label: format!("dropped with {}", self.names()),
            parameters: rest(self.parameters, |part| part.parameters),
            macs: rest(self.macs, |part| part.macs),
        }
    }

    /// The tasks, for people.
    fn names(&self) -> String {
        if self.tasks.is_empty() { "what feeds no task".to_owned() } else { few(&self.tasks) }
    }

    /// What else went, in one line.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{} went with {} node{}", self.names(), self.nodes, super::text::plural(self.nodes));
        if !self.inputs.is_empty() {
            line += &format!("; inputs that nobody else reads: {}", few(&self.inputs));
        }
        if self.channels > 0 {
            line +=
                &format!("; {} channel{} that nobody else reads", self.channels, super::text::plural(self.channels));
        }
        line
    }
}

/// The first names of a list.
fn few(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(4).map(|name| super::words::shorten(name, 40)).collect();
    first.join(" + ") + if names.len() > 4 { " + …" } else { "" }
}
