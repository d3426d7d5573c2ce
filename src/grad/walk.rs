//! Walk: node by node from the last to the first, what each node's rule says.
//!
//! Invariants: a value is asked for its gradient once all its readers have been passed; a value behind a stop gets no
//! gradient, not even a part of one.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Context;
use super::facts::{Fact, Facts};
use super::step::Step;
use super::table;
use crate::engine::ElementType;
use crate::proto::onnx::{GraphProto, NodeProto};

/// A node that no gradient passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The node's name, or its first output where it has none.
    pub node: String,
    /// The operator.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// The state of a walk.
pub(super) struct Walk<'a> {
    pub(super) context: Context<'a>,
    /// The values that depend on what is wanted and carry a gradient.
    dependent: BTreeSet<String>,
    /// What the readers of a value contribute to its gradient.
    parts: BTreeMap<String, Vec<String>>,
    /// The values that a gradient would have to pass a stop for.
    pub(super) behind: BTreeSet<String>,
    pub(super) stopped: Vec<Stop>,
}

impl<'a> Walk<'a> {
    /// Before the first step; `nodes` are those that will be passed.
    pub(super) fn new(context: Context<'a>, nodes: &[NodeProto], wanted: &[String]) -> Self {
        let dependent = dependent(nodes, context.facts, wanted);
        Self { context, dependent, parts: BTreeMap::new(), behind: BTreeSet::new(), stopped: Vec::new() }
    }

    /// Adds to the gradient of a value.
    pub(super) fn add(&mut self, value: &str, gradient: String) {
        if self.dependent.contains(value) {
            self.parts.entry(value.to_owned()).or_default().push(gradient);
        }
    }

    /// The whole gradient of a value all of whose readers have been passed.
    pub(super) fn gradient(&mut self, value: &str) -> Option<String> {
        let parts = self.parts.get_mut(value)?;
        if parts.len() > 1 {
            let all: Vec<&str> = parts.iter().map(String::as_str).collect();
            let sum = self.context.op("Sum", &all);
            *parts = vec![sum];
        }
        parts.first().cloned()
    }

    /// One step back.
    pub(super) fn pass(&mut self, node: &NodeProto) {
        let mut inner: Vec<String> = bodies(node).flat_map(taken).collect();
        inner.extend(node.input.iter().cloned());
        inner.retain(|name| self.dependent.contains(name));
        if inner.is_empty() {
            return;
        }
        if node.output.iter().any(|output| self.behind.contains(output)) {
            self.behind.extend(inner);
            return;
        }
        let gradients: Vec<Option<String>> = node.output.iter().map(|output| self.gradient(output)).collect();
        if gradients.iter().all(Option::is_none) {
            return;
        }
        let needs = node.input.iter().map(|input| self.dependent.contains(input)).collect();
        let step = Step { node, gradients, needs };
        let facts = self.context.facts;
        let is_quantised = inner.iter().any(|name| facts.get(name).is_some_and(|fact| !fact.is_float()));
        let before = self.context.nodes.list.len();
        let outcome = match table::rule_for(node.domain(), node.op_type()) {
            Some(_) if is_quantised && !table::MOVING.contains(&node.op_type()) => {
                Err("computes with quantised numbers".to_owned())
            }
            Some(rule) => rule(&step, &mut self.context),
            None => Err("no rule".to_owned()),
        };
        match outcome {
            Ok(found) => {
                for (slot, input) in node.input.iter().enumerate().filter(|(slot, _)| step.needs(*slot)) {
                    match found.get(slot).and_then(Option::as_ref) {
                        Some(gradient) => self.add(input, gradient.clone()),
                        None => {
                            self.stop(node, format!("input {slot} has no formula"));
                            self.behind.insert(input.clone());
                        }
                    }
                }
            }
            Err(reason) => {
                // What a rule emitted before it gave up may not even be valid.
                self.context.nodes.list.truncate(before);
                self.stop(node, reason);
                self.behind.extend(inner);
            }
        }
    }

    fn stop(&mut self, node: &NodeProto, reason: String) {
        let name = if node.name().is_empty() { node.output.first() } else { node.name.as_ref() };
        let (node, operator) = (name.cloned().unwrap_or_default(), node.op_type().to_owned());
        self.stopped.push(Stop { node, operator, reason });
    }
}

/// All names of the main graph and of the bodies inside.
pub(super) fn taken(graph: &GraphProto) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = graph.initializer.iter().map(|t| t.name().to_owned()).collect();
    names.extend(graph.input.iter().chain(&graph.output).map(|v| v.name().to_owned()));
    for node in &graph.node {
        names.insert(node.name().to_owned());
        names.extend(node.output.iter().chain(&node.input).cloned());
        names.extend(bodies(node).flat_map(taken));
    }
    names
}

fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

/// The values that depend on what is wanted and carry a gradient: floating-point numbers, and the integers that stand for
/// some, or are made of such integers; places, extents and truths stand for none. A body may read any value around it.
fn dependent(nodes: &[NodeProto], facts: &Facts, wanted: &[String]) -> BTreeSet<String> {
    let mut dependent: BTreeSet<String> = wanted.iter().cloned().collect();
    for node in nodes {
        let reads = node.input.iter().any(|name| dependent.contains(name))
            || bodies(node).flat_map(taken).any(|name| dependent.contains(&name));
        if reads {
            let stands_for_some =
                |name: &String| dependent.contains(name) && facts.get(name).is_some_and(|f| !f.is_float());
            let is_quantised = node.op_type() == "QuantizeLinear" || node.input.iter().any(stands_for_some);
            let carries = |name: &&String| {
                let is_place = |fact: &Fact| matches!(fact.element, ElementType::Int64 | ElementType::Bool);
                facts.get(*name).is_some_and(|fact| fact.is_float() || is_quantised && !is_place(fact))
            };
            dependent.extend(node.output.iter().filter(carries).cloned());
        }
    }
    dependent
}
