//! Backward: the walk from the outputs to what gradients are wanted of.
//!
//! Invariants: the nodes of the model come first and unchanged, those of the backward pass follow in an order in which
//! they can run; a value behind a stop gets no gradient, not even a part of one.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Context;
use super::facts::{Fact, Facts};
use super::step::Step;
use super::table;
use crate::proto::build::Nodes;
use crate::proto::onnx::tensor_shape_proto::Dimension;
use crate::proto::onnx::{
    GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto, type_proto,
};
use crate::{Error, Result};

/// The oldest operator set that backward nodes are written for.
const OLDEST: i64 = 11;

/// A model that computes gradients, and what it does not compute.
#[derive(Clone, Debug)]
pub struct Backward {
    /// Inputs: those of the original, and `gradient/OUTPUT` for every chosen output. Outputs: the gradients.
    pub model: ModelProto,
    /// What gets a gradient, and the name of the output that holds it.
    pub gradients: Vec<(String, String)>,
    /// Where gradients stop, from the outputs on.
    pub stopped: Vec<Stop>,
    /// What was wanted and lies behind a stop.
    pub behind: Vec<String>,
    /// What was wanted and no chosen output depends on: its gradient is 0.
    pub unconnected: Vec<String>,
}

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

/// Differentiates the chosen `outputs`, each multiplied with its `gradient/OUTPUT` and summed, with respect to the
/// values `wanted`: initializers, inputs, or inner values. Local functions must be written out.
///
/// # Errors
/// A model without a graph or of an operator set that is too old, outputs that do not exist, and values that are
/// unknown or no floating-point numbers.
pub fn backward(model: &ModelProto, facts: &Facts, outputs: &[String], wanted: &[String]) -> Result<Backward> {
    let graph = model.graph.as_ref().ok_or_else(|| Error::input("the model has no graph"))?;
    let opset = model.opset_import.iter().find(|o| matches!(o.domain(), "" | "ai.onnx")).map_or(1, |o| o.version());
    if opset < OLDEST {
        return Err(Error::input(format!("gradients need operator set {OLDEST}, the model has {opset}"))
            .help("convert it with onnx.version_converter"));
    }
    let declared: BTreeMap<&str, &ValueInfoProto> = graph.output.iter().map(|o| (o.name(), o)).collect();
    let mut names = taken(graph);
    let mut inputs = Vec::new();
    for output in outputs {
        let info =
            declared.get(output.as_str()).ok_or_else(|| Error::input("the model has no such output").tensor(output))?;
        inputs.push(cotangent(info, float(facts, output)?, &mut names)?);
    }
    for name in wanted {
        float(facts, name)?;
    }
    let context = Context { nodes: Nodes::new("backward", names), facts, constants: constants(graph), opset };
    let dependent = dependent(graph, facts, wanted);
    let mut walk = Walk { context, dependent, parts: BTreeMap::new(), behind: BTreeSet::new(), stopped: Vec::new() };
    for (output, input) in outputs.iter().zip(&inputs) {
        walk.add(output, input.name().to_owned());
    }
    for node in graph.node.iter().rev() {
        walk.pass(node);
    }
    walk.finish(model, graph, inputs, wanted)
}

fn float<'f>(facts: &'f Facts, name: &str) -> Result<&'f Fact> {
    let fact = facts.get(name).ok_or_else(|| Error::input("the model has no such value").tensor(name))?;
    if !fact.is_float() {
        return Err(Error::input(format!("{} has no gradient", fact.element.as_str_name())).tensor(name));
    }
    Ok(fact)
}

/// The input for the gradient of an output: declared as the output is.
fn cotangent(info: &ValueInfoProto, fact: &Fact, names: &mut BTreeSet<String>) -> Result<ValueInfoProto> {
    let name = reserve(format!("gradient/{}", info.name()), names)?;
    let mut input = open(&name, fact);
    let shape = |i: &ValueInfoProto| match i.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.clone(),
        _ => None,
    };
    if shape(info).is_some() {
        input.r#type.clone_from(&info.r#type);
    }
    Ok(input)
}

fn reserve(name: String, names: &mut BTreeSet<String>) -> Result<String> {
    if !names.insert(name.clone()) {
        return Err(Error::input("this name is needed for a gradient and is taken").tensor(name));
    }
    Ok(name)
}

/// The declaration of a value of known type and rank.
fn open(name: &str, fact: &Fact) -> ValueInfoProto {
    let mut info = crate::proto::build::declaration(name, fact.element as i32, &[]);
    let dim = vec![Dimension::default(); fact.shape.len()];
    if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        tensor.shape = Some(TensorShapeProto { dim });
    }
    info
}

/// All names of the main graph and of the bodies inside.
fn taken(graph: &GraphProto) -> BTreeSet<String> {
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

fn constants(graph: &GraphProto) -> BTreeMap<&str, &TensorProto> {
    let stored = graph.initializer.iter().map(|t| (t.name(), t));
    let nodes = graph.node.iter().filter(|n| n.op_type() == "Constant").filter_map(|n| {
        let value = n.attribute.iter().find(|a| a.name() == "value")?;
        Some((n.output.first()?.as_str(), value.t.as_ref()?))
    });
    stored.chain(nodes).collect()
}

/// The floating-point values that depend on what is wanted. A body may read any value around it.
fn dependent(graph: &GraphProto, facts: &Facts, wanted: &[String]) -> BTreeSet<String> {
    let mut dependent: BTreeSet<String> = wanted.iter().cloned().collect();
    for node in &graph.node {
        let reads = node.input.iter().any(|name| dependent.contains(name))
            || bodies(node).flat_map(taken).any(|name| dependent.contains(&name));
        if reads {
            let is_float = |name: &&String| facts.get(*name).is_some_and(Fact::is_float);
            dependent.extend(node.output.iter().filter(is_float).cloned());
        }
    }
    dependent
}

struct Walk<'a> {
    context: Context<'a>,
    dependent: BTreeSet<String>,
    /// What the readers of a value contribute to its gradient.
    parts: BTreeMap<String, Vec<String>>,
    behind: BTreeSet<String>,
    stopped: Vec<Stop>,
}

impl Walk<'_> {
    fn add(&mut self, value: &str, gradient: String) {
        if self.dependent.contains(value) {
            self.parts.entry(value.to_owned()).or_default().push(gradient);
        }
    }

    /// The whole gradient of a value all of whose readers have been passed.
    fn gradient(&mut self, value: &str) -> Option<String> {
        let parts = self.parts.get_mut(value)?;
        if parts.len() > 1 {
            let all: Vec<&str> = parts.iter().map(String::as_str).collect();
            let sum = self.context.op("Sum", &all);
            *parts = vec![sum];
        }
        parts.first().cloned()
    }

    fn pass(&mut self, node: &NodeProto) {
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
        let outcome = match table::rule_for(node.domain(), node.op_type()) {
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

    fn finish(
        mut self,
        model: &ModelProto,
        graph: &GraphProto,
        inputs: Vec<ValueInfoProto>,
        wanted: &[String],
    ) -> Result<Backward> {
        let mut names = taken(graph);
        let (mut gradients, mut outputs) = (Vec::new(), Vec::new());
        let (mut behind, mut unconnected) = (Vec::new(), Vec::new());
        for value in wanted {
            if self.behind.contains(value) {
                behind.push(value.clone());
                continue;
            }
            let Some(gradient) = self.gradient(value) else {
                unconnected.push(value.clone());
                continue;
            };
            let name = reserve(format!("gradient_of/{value}"), &mut names)?;
            outputs.push(open(&name, float(self.context.facts, value)?));
            self.context.nodes.list.push(NodeProto {
                op_type: Some("Identity".to_owned()),
                name: Some(name.clone()),
                input: vec![gradient],
                output: vec![name.clone()],
                ..Default::default()
            });
            gradients.push((value.clone(), name));
        }
        let mut graph = graph.clone();
        graph.node.extend(self.context.nodes.list);
        graph.input.extend(inputs);
        graph.output = outputs;
        let model = ModelProto { graph: Some(graph), training_info: Vec::new(), ..model.clone() };
        Ok(Backward { model, gradients, stopped: self.stopped, behind, unconnected })
    }
}
