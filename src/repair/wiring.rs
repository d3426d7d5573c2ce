//! Wiring: who makes and who reads the values of a model's main graph, by position of the node.
//!
//! Invariants: what bodies capture counts as read by the node that holds them; `order` is topological and, where the
//! file is, the order of the file; what depends on constants alone is never given, but computed where it is read: engines
//! want to know such values beforehand, and weights behind them may change.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::onnx::{GraphProto, ModelProto, NodeProto};
use crate::{Error, Result};

/// The main graph of a model as positions and names.
#[derive(Clone, Debug, Default)]
pub(super) struct Wiring {
    /// The node that makes a value.
    pub(super) producer: BTreeMap<String, usize>,
    /// The nodes and input slots that read a value; what a body captures has the slot `usize::MAX`.
    pub(super) readers: BTreeMap<String, Vec<(usize, usize)>>,
    /// All names that a node reads.
    pub(super) reads: Vec<Vec<String>>,
    /// What each node makes.
    pub(super) makes: Vec<Vec<String>>,
    /// A topological order of the nodes.
    pub(super) order: Vec<usize>,
    /// Graph outputs.
    pub(super) outputs: BTreeSet<String>,
    /// Values that depend on constants alone.
    fixed: BTreeSet<String>,
}

impl Wiring {
    /// Reads a model's main graph.
    ///
    /// # Errors
    /// No graph; a cycle.
    pub(super) fn of(model: &ModelProto) -> Result<Self> {
        let graph = model.graph.as_ref().ok_or_else(|| Error::input("the model has no graph"))?;
        let mut wiring =
            Self { outputs: graph.output.iter().map(|o| o.name().to_owned()).collect(), ..Self::default() };
        for (position, node) in graph.node.iter().enumerate() {
            for (slot, name) in node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                wiring.readers.entry(name.clone()).or_default().push((position, slot));
            }
            for name in captures(node) {
                wiring.readers.entry(name).or_default().push((position, usize::MAX));
            }
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                wiring.producer.insert(name.clone(), position);
            }
            wiring.makes.push(node.output.iter().filter(|name| !name.is_empty()).cloned().collect());
            wiring.reads.push(reads(node));
        }
        wiring.order = wiring.sorted()?;
        wiring.fixed = wiring.fixed(graph);
        Ok(wiring)
    }

    fn fixed(&self, graph: &GraphProto) -> BTreeSet<String> {
        // An initializer that is listed among the inputs is a constant.
        let initializers: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
        let inputs: BTreeSet<&str> =
            graph.input.iter().map(|i| i.name()).filter(|name| !initializers.contains(name)).collect();
        let mut fixed = BTreeSet::new();
        for position in &self.order {
            let (Some(reads), Some(makes)) = (self.reads.get(*position), self.makes.get(*position)) else { continue };
            let is_fixed = |name: &String| {
                fixed.contains(name) || !inputs.contains(name.as_str()) && !self.producer.contains_key(name)
            };
            if reads.iter().all(is_fixed) {
                fixed.extend(makes.iter().cloned());
            }
        }
        fixed
    }

    fn sorted(&self) -> Result<Vec<usize>> {
        let mut missing: Vec<usize> = Vec::with_capacity(self.reads.len());
        let mut ready = BTreeSet::new();
        for (position, reads) in self.reads.iter().enumerate() {
            let count = reads.iter().filter(|name| self.producer.contains_key(*name)).count();
            if count == 0 {
                ready.insert(position);
            }
            missing.push(count);
        }
        let mut order = Vec::with_capacity(self.reads.len());
        while let Some(position) = ready.pop_first() {
            order.push(position);
            for name in self.makes.get(position).into_iter().flatten() {
                for (reader, _) in self.readers.get(name).into_iter().flatten() {
                    let Some(count) = missing.get_mut(*reader) else { continue };
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        ready.insert(*reader);
                    }
                }
            }
        }
        if order.len() < self.reads.len() {
            return Err(Error::input("the nodes of the model depend on each other in a circle"));
        }
        Ok(order)
    }

    /// The only reader of a value that is no graph output.
    pub(super) fn only_reader(&self, name: &str) -> Option<(usize, usize)> {
        match self.readers.get(name).map(Vec::as_slice) {
            Some([one]) if !self.outputs.contains(name) => Some(*one),
            _ => None,
        }
    }

    /// What must run so that `wanted` can be computed from values for which `given` holds: the nodes in topological
    /// order, and those of the given values that they and the caller read.
    pub(super) fn needed<'w>(
        &'w self,
        wanted: impl IntoIterator<Item = &'w str>,
        given: &dyn Fn(&str) -> bool,
    ) -> (Vec<usize>, BTreeSet<&'w str>) {
        let (mut nodes, mut border) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<&str> = wanted.into_iter().collect();
        while let Some(name) = open.pop() {
            if given(name) && !self.fixed.contains(name) {
                border.insert(name);
            } else if let Some(position) = self.producer.get(name).filter(|position| nodes.insert(**position)) {
                open.extend(self.reads.get(*position).into_iter().flatten().map(String::as_str));
            }
        }
        (self.order.iter().copied().filter(|position| nodes.contains(position)).collect(), border)
    }
}

/// All names that a node reads, once per slot, and those that its bodies capture.
pub(super) fn reads(node: &NodeProto) -> Vec<String> {
    let own = node.input.iter().filter(|name| !name.is_empty()).cloned();
    own.chain(captures(node)).collect()
}

/// The names that the bodies of a node read from outside.
fn captures(node: &NodeProto) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for body in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
        names.extend(free_names(body));
    }
    names
}

fn free_names(graph: &GraphProto) -> BTreeSet<String> {
    let mut read: BTreeSet<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
    let mut made: BTreeSet<&str> = graph.input.iter().map(|i| i.name()).collect();
    made.extend(graph.initializer.iter().map(|t| t.name()));
    for node in &graph.node {
        read.extend(node.input.iter().filter(|name| !name.is_empty()).cloned());
        read.extend(captures(node));
        made.extend(node.output.iter().map(String::as_str));
    }
    read.retain(|name| !made.contains(name.as_str()));
    read
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_is_not_given_must_run() {
        let model =
            crate::text::parse("in x [1,2]\na = Relu(x)\nb = Relu(a)\nc = Add(a, b)\nd = Relu(c)\nout d").unwrap();
        let wiring = Wiring::of(&model).unwrap();
        let (nodes, border) = wiring.needed(["c"], &|name| matches!(name, "x" | "b"));
        assert_eq!((nodes, border), (vec![0, 2], BTreeSet::from(["b", "x"])));
        assert_eq!(wiring.only_reader("b"), Some((2, 1)));
        assert_eq!(wiring.only_reader("a"), None);
        assert_eq!(wiring.only_reader("d"), None);
    }

    #[test]
    fn what_depends_on_constants_alone_is_computed_again() {
        let text = "in x [1,2]\nw = DequantizeLinear(q:int8[2,2], <0.1>)\na = MatMul(x, w)\nb = MatMul(a, w)\nout b";
        let model = crate::text::parse(text).unwrap();
        let wiring = Wiring::of(&model).unwrap();
        let (nodes, border) = wiring.needed(["b"], &|name| matches!(name, "x" | "a" | "w"));
        assert_eq!((nodes, border), (vec![0, 2], BTreeSet::from(["a"])));
    }
}
