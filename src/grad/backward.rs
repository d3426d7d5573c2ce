//! Backward: the walk from the outputs to what gradients are wanted of.
//!
//! Invariants: the nodes of the model come first and unchanged, those of the backward pass follow in an order in which
//! they can run; a value behind a stop gets no gradient, not even a part of one.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Context;
use super::facts::{Fact, Facts};
use super::upgrade;
use super::walk::{Stop, Walk, taken};
use crate::proto::build::Nodes;
use crate::proto::onnx::tensor_shape_proto::Dimension;
use crate::proto::onnx::{
    GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto, type_proto,
};
use crate::{Error, Result};

/// A model that computes gradients, and what it does not compute.
#[derive(Clone, Debug)]
pub struct Backward {
    /// Inputs: those of the original, and `gradient/OUTPUT` for every chosen output. Outputs: the gradients.
    pub model: ModelProto,
    /// What gets a gradient, and the name of the output that holds it.
    pub gradients: Vec<(String, String)>,
    /// Where gradients stop, from the outputs on.
    pub stopped: Vec<Stop>,
    /// How many nodes the backward pass has.
    pub added: usize,
    /// What was wanted and lies behind a stop.
    pub behind: Vec<String>,
    /// What was wanted and no chosen output depends on: its gradient is 0.
    pub unconnected: Vec<String>,
}

/// Differentiates the chosen `outputs`, each multiplied with its `gradient/OUTPUT` and summed, with respect to the
/// values `wanted`: initializers, inputs, or inner values. Local functions must be written out.
///
/// # Errors
/// A model without a graph or of an operator set that is too old, outputs that do not exist, and values that are
/// unknown or no floating-point numbers.
pub fn backward(model: &ModelProto, facts: &Facts, outputs: &[String], wanted: &[String]) -> Result<Backward> {
    let mut upgraded = None;
    let opset = crate::proto::opset(model);
    if opset < upgrade::OLDEST {
        return Err(Error::input(format!("gradients need operator set {}, the model has {opset}", upgrade::OLDEST))
            .help("convert it with onnx.version_converter"));
    }
    if opset < upgrade::TARGET {
        let names = model.graph.as_ref().map(taken).unwrap_or_default();
        upgraded = Some(upgrade::upgrade(model, facts, names).map_err(Error::input)?);
    }
    let (model, opset) = (upgraded.as_ref().unwrap_or(model), opset.max(upgrade::TARGET));
    let graph = model.graph.as_ref().ok_or_else(|| Error::input("the model has no graph"))?;
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
    let mut walk = Walk::new(context, &graph.node, wanted);
    for (output, input) in outputs.iter().zip(&inputs) {
        walk.add(output, input.name().to_owned());
    }
    for node in graph.node.iter().rev() {
        walk.pass(node);
    }
    finish(walk, model, graph, inputs, wanted)
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

/// What initializers and `Constant` nodes hold.
pub(super) fn constants(graph: &GraphProto) -> BTreeMap<&str, &TensorProto> {
    let stored = graph.initializer.iter().map(|t| (t.name(), t));
    stored.chain(constants_of(&graph.node)).collect()
}

/// What `Constant` nodes hold.
pub(super) fn constants_of(nodes: &[NodeProto]) -> BTreeMap<&str, &TensorProto> {
    let nodes = nodes.iter().filter(|n| n.op_type() == "Constant").filter_map(|n| {
        let value = n.attribute.iter().find(|a| a.name() == "value")?;
        Some((n.output.first()?.as_str(), value.t.as_ref()?))
    });
    nodes.collect()
}

fn finish(
    mut walk: Walk,
    model: &ModelProto,
    graph: &GraphProto,
    inputs: Vec<ValueInfoProto>,
    wanted: &[String],
) -> Result<Backward> {
    let mut names = taken(graph);
    let (mut gradients, mut outputs) = (Vec::new(), Vec::new());
    let (mut behind, mut unconnected) = (Vec::new(), Vec::new());
    for value in wanted {
        if walk.behind.contains(value) {
            behind.push(value.clone());
            continue;
        }
        let Some(gradient) = walk.gradient(value) else {
            unconnected.push(value.clone());
            continue;
        };
        let name = reserve(format!("gradient_of/{value}"), &mut names)?;
        outputs.push(open(&name, float(walk.context.facts, value)?));
        walk.context.nodes.list.push(NodeProto {
            op_type: Some("Identity".to_owned()),
            name: Some(name.clone()),
            input: vec![gradient],
            output: vec![name.clone()],
            ..Default::default()
        });
        gradients.push((value.clone(), name));
    }
    let mut graph = graph.clone();
    let added = walk.context.nodes.list.len();
    graph.node.extend(walk.context.nodes.list);
    graph.input.extend(inputs);
    graph.output = outputs;
    let model = ModelProto { graph: Some(graph), training_info: Vec::new(), ..model.clone() };
    Ok(Backward { model, gradients, stopped: walk.stopped, added, behind, unconnected })
}
