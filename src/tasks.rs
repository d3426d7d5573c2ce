//! Tasks: named sets of graph outputs, and which of them every node feeds.
//!
//! By default every graph output is a task of its own. Reverse reachability over the dependency graph gives each node
//! its tasks: *shared* (two or more), *private* (one), *dead* (none). Invariant: task order is the order of the
//! request, then that of the graph outputs; outputs that no request names are tasks of their own.

use petgraph::Direction;
use petgraph::graph::NodeIndex;

use crate::graph::{Graph, NodeId, Source, ValueId};
use crate::{Error, Result};

/// A task: a name and its graph outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What the user calls it.
    pub name: String,
    /// The graph outputs that belong to it.
    pub outputs: Vec<ValueId>,
}

/// A set of tasks, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskSet(Vec<u64>);

impl TaskSet {
    /// Adds a task.
    pub fn insert(&mut self, task: usize) {
        if self.0.len() <= task / 64 {
            self.0.resize(task / 64 + 1, 0);
        }
        self.0[task / 64] |= 1 << (task % 64);
    }

    /// Adds all tasks of another set.
    pub fn extend(&mut self, other: &TaskSet) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own |= other;
        }
    }

    /// The tasks, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(i, word)| (0..64).filter(move |b| word >> b & 1 == 1).map(move |b| i * 64 + b))
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The tasks of a model and what every node feeds.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Per node, the tasks it feeds.
    pub by_node: Vec<TaskSet>,
}

impl Tasks {
    /// Groups the graph outputs into tasks as `requested` (name, outputs) and finds out what feeds them.
    ///
    /// # Errors
    /// An output that does not exist or is asked for twice; a name that two tasks would have.
    pub fn of(graph: &Graph, requested: &[(String, Vec<String>)]) -> Result<Self> {
        let mut tasks: Vec<Task> = Vec::new();
        let mut taken = std::collections::BTreeSet::new();
        for (name, outputs) in requested {
            let mut task = Task { name: name.clone(), outputs: Vec::new() };
            for output in outputs {
                let id = graph.outputs.iter().copied().find(|id| graph.value(*id).name == output);
                let id = id.ok_or_else(|| unknown_output(graph, name, output))?;
                if !taken.insert(id) {
                    return Err(Error::input(format!("output `{output}` belongs to two tasks"))
                        .help("name every output in one --task only"));
                }
                task.outputs.push(id);
            }
            if tasks.iter().any(|t| t.name == *name) {
                return Err(
                    Error::input(format!("task `{name}` is given twice")).help("list its outputs after one --task")
                );
            }
            tasks.push(task);
        }
        for id in &graph.outputs {
            if taken.insert(*id) {
                let name = graph.value(*id).name;
                if requested.iter().any(|(other, _)| other == name) {
                    let error = Error::input(format!("task `{name}` has the name of an output that it does not hold"));
                    return Err(error.help("call it otherwise; outputs that no task names are tasks of their own"));
                }
                tasks.push(Task { name: name.to_owned(), outputs: vec![*id] });
            }
        }
        let by_node = reach(graph, &tasks);
        Ok(Self { tasks, by_node })
    }

    /// The index of a task by name.
    ///
    /// # Errors
    /// A name that no task has; the message lists those there are.
    pub fn find(&self, name: &str) -> Result<usize> {
        self.tasks.iter().position(|task| task.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
            let help = format!("the tasks are {}; --task NAME=OUTPUT,… groups outputs", names.join(", "));
            Error::input(format!("there is no task `{name}`")).help(help)
        })
    }

    /// The tasks that a node feeds.
    pub fn of_node(&self, node: NodeId) -> &TaskSet {
        &self.by_node[node.0 as usize]
    }

    /// The names of a set of tasks, joined for people.
    pub fn names(&self, set: &TaskSet) -> String {
        let names: Vec<&str> = set.iter().filter_map(|t| self.tasks.get(t)).map(|t| t.name.as_str()).collect();
        names.join("+")
    }
}

/// One pass in reverse topological order.
fn reach(graph: &Graph, tasks: &[Task]) -> Vec<TaskSet> {
    let mut sets = vec![TaskSet::default(); graph.nodes.len()];
    for (index, task) in tasks.iter().enumerate() {
        for output in &task.outputs {
            if let Source::Node(node, _) = graph.value(*output).source {
                sets[node.0 as usize].insert(index);
            }
        }
    }
    for id in graph.order.iter().rev() {
        let mut set = std::mem::take(&mut sets[id.0 as usize]);
        let index = NodeIndex::new(id.0 as usize);
        for reader in graph.dependencies.neighbors_directed(index, Direction::Outgoing) {
            set.extend(&sets[reader.index()]);
        }
        sets[id.0 as usize] = set;
    }
    sets
}

fn unknown_output(graph: &Graph, task: &str, output: &str) -> Error {
    let names: Vec<&str> = graph.outputs.iter().map(|id| graph.value(*id).name).collect();
    Error::input(format!("task `{task}` names output `{output}`, which the model does not have"))
        .help(format!("its outputs are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::text;

    #[test]
    fn trunk_and_branches_are_told_apart() {
        let model = text::parse(
            "in x [1,3]
             t = Gemm(x, w0[3,4])
             a = Gemm(t, w1[4,2])
             b = Gemm(t, w2[4,2])
             d = Relu(b)
             out a, b",
        )
        .unwrap();
        let graph = Graph::new(&model).unwrap();
        let tasks = Tasks::of(&graph, &[("second".into(), vec!["b".into()])]).unwrap();
        let sets: Vec<String> = tasks.by_node.iter().map(|s| tasks.names(s)).collect();
        assert_eq!(sets, ["second+a", "a", "second", ""]);
        assert!(Tasks::of(&graph, &[("z".into(), vec!["q".into()])]).unwrap_err().to_string().contains("a, b"));
        let same = Tasks::of(&graph, &[("b".into(), vec!["a".into()])]).unwrap_err().to_string();
        assert!(same.contains("task `b` has the name of an output"), "{same}");
        assert_eq!(Tasks::of(&graph, &[("b".into(), vec!["a".into(), "b".into()])]).unwrap().tasks.len(), 1);
    }
}
