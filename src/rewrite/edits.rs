//! Edits: what rules ask for becomes attributes, constants and a few nodes.
//!
//! Invariants: an operand that is replaced gets a constant of its own, so no other reader sees the change; entries of a
//! shape computed at run time are overridden by `computed × keep + new`, which every operator set can spell; a rescaled
//! output keeps its name, the unscaled one gets a new one.

use std::collections::{BTreeMap, BTreeSet};

use super::after::After;
use super::constants::Readings;
use super::names::Names;
use crate::graph::{Graph, NodeId, ScopeId, Source, ValueId, find_graph_mut};
use crate::ops::Edit;
use crate::proto::build::{self, declaration};
use crate::proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};
use crate::proto::tensor;
use crate::{Error, Result};

pub(super) fn apply(
    graph: &Graph,
    after: &After,
    readings: &Readings,
    model: &mut ModelProto,
    names: &mut Names,
    altered: &mut BTreeSet<String>,
) -> Result<()> {
    let is_early = model.ir_version() < 4;
    let mut added = Added { names, before: BTreeMap::new(), behind: BTreeMap::new(), constants: Vec::new() };
    let mut by_scope: BTreeMap<ScopeId, Vec<NodeId>> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let renamed = |slot| readings.contains_key(&(NodeId(u32::try_from(index).unwrap_or(u32::MAX)), slot));
        if !after.edits[index].is_empty() || (0..node.own_count).any(renamed) {
            by_scope.entry(node.scope).or_default().push(NodeId(u32::try_from(index).unwrap_or(u32::MAX)));
        }
    }
    for (scope, nodes) in &by_scope {
        let Some(target) = find_graph_mut(model, &graph.scopes, *scope) else { continue };
        for id in nodes {
            let node = graph.node(*id);
            let Some(proto) = target.node.get_mut(node.position) else { continue };
            for slot in 0..node.own_count {
                if let (Some(name), Some(input)) = (readings.get(&(*id, slot)), proto.input.get_mut(slot)) {
                    input.clone_from(name);
                }
            }
            for edit in &after.edits[id.0 as usize] {
                added.edit(graph, *id, proto, edit, after)?;
            }
        }
    }
    // Bodies before the graphs around them: insertion moves the nodes that bodies are found by.
    for scope in by_scope.into_keys().rev() {
        let Some(target) = find_graph_mut(model, &graph.scopes, scope) else { continue };
        added.insert(scope, target);
    }
    let Some(main) = model.graph.as_mut() else { return Ok(()) };
    for constant in added.constants {
        altered.insert(constant.name().to_owned());
        if is_early {
            main.input.push(declaration(constant.name(), constant.data_type(), &constant.dims));
        }
        main.initializer.push(constant);
    }
    Ok(())
}

/// What is added: nodes before and behind a position of a graph, and constants, which every body sees in the main
/// graph.
struct Added<'n> {
    names: &'n mut Names,
    before: BTreeMap<(ScopeId, usize), Vec<NodeProto>>,
    behind: BTreeMap<(ScopeId, usize), Vec<NodeProto>>,
    constants: Vec<TensorProto>,
}

impl Added<'_> {
    /// Puts the new nodes of one graph in their places.
    fn insert(&mut self, scope: ScopeId, target: &mut GraphProto) {
        let of_scope = (scope, 0)..=(scope, usize::MAX);
        if self.before.range(of_scope.clone()).chain(self.behind.range(of_scope)).next().is_none() {
            return;
        }
        let nodes = std::mem::take(&mut target.node);
        for (position, node) in nodes.into_iter().enumerate() {
            target.node.extend(self.before.remove(&(scope, position)).unwrap_or_default());
            target.node.push(node);
            target.node.extend(self.behind.remove(&(scope, position)).unwrap_or_default());
        }
    }

    fn edit(&mut self, graph: &Graph, id: NodeId, proto: &mut NodeProto, edit: &Edit, after: &After) -> Result<()> {
        let node = graph.node(id);
        match edit {
            Edit::Int(name, value) => {
                *attribute(proto, name, AttributeType::Int) = build::int(name, *value);
            }
            Edit::Ints(name, values) => {
                *attribute(proto, name, AttributeType::Ints) =
                    AttributeProto { ints: values.clone(), ..build::attribute(name, AttributeType::Ints) };
            }
            Edit::Float(name, value) => {
                *attribute(proto, name, AttributeType::Float) = build::float(name, *value);
            }
            Edit::Constant(slot, values) => {
                let dims = vec![i64::try_from(values.len()).unwrap_or(i64::MAX)];
                self.operand(graph, id, proto, *slot, dims, values)?;
            }
            Edit::Scalar(slot, value) => self.operand(graph, id, proto, *slot, Vec::new(), &[*value])?,
            Edit::Floats(slot, dims, values) => {
                let old = node.inputs.get(*slot).copied().flatten();
                let data_type = old.map_or(DataType::Float, |value| float_type(graph, value));
                let name = self.point(proto, *slot, &format!("{}_input{slot}", node.label()));
                let values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
                self.constants.push(floats(&name, data_type, dims, &values));
            }
            Edit::Entries(slot, entries) => self.entries(graph, id, proto, *slot, entries, after)?,
            Edit::Ratios(slot, dims, ratios) => self.ratios(graph, id, proto, (*slot, dims), ratios)?,
            Edit::Remove(name) => proto.attribute.retain(|a| a.name() != *name),
            Edit::LeaveInput(slot) => leave(&mut proto.input, *slot),
            Edit::LeaveOutput(slot) => leave(&mut proto.output, *slot),
            Edit::Scale(slot, factor) => {
                let Some(output) = proto.output.get_mut(*slot) else { return Ok(()) };
                let scaled = node.outputs.get(*slot).copied().flatten();
                let data_type = scaled.map_or(DataType::Float, |value| float_type(graph, value));
                let constant = self.names.fresh(&format!("{output}_scale"));
                self.constants.push(floats(&constant, data_type, &[], &[*factor]));
                let unscaled = self.names.fresh(output);
                let scaled = std::mem::replace(output, unscaled.clone());
                let scale = NodeProto {
                    op_type: Some("Mul".to_owned()),
                    name: Some(self.names.fresh(&format!("{}_scale", node.label()))),
                    input: vec![unscaled, constant],
                    output: vec![scaled],
                    ..Default::default()
                };
                self.behind.entry((node.scope, node.position)).or_default().push(scale);
            }
        }
        Ok(())
    }

    /// Gives input `slot` a constant of its own.
    fn operand(
        &mut self,
        graph: &Graph,
        id: NodeId,
        proto: &mut NodeProto,
        slot: usize,
        dims: Vec<i64>,
        values: &[i64],
    ) -> Result<()> {
        let old = graph.node(id).inputs.get(slot).copied().flatten();
        let data_type = old.map_or(DataType::Int64, |v| integer_type(graph, v));
        let base =
            old.map_or_else(|| format!("{}_input{slot}", graph.node(id).label()), |v| graph.value(v).name.to_owned());
        let name = self.point(proto, slot, &base);
        self.constants.push(integers(&name, data_type, dims, values)?);
        Ok(())
    }

    /// Points input `slot` to a name like `base` that is new, and gives the name.
    fn point(&mut self, proto: &mut NodeProto, slot: usize, base: &str) -> String {
        let name = self.names.fresh(base);
        while proto.input.len() <= slot {
            proto.input.push(String::new());
        }
        proto.input[slot].clone_from(&name);
        name
    }

    /// Overrides entries of a vector computed when the model runs.
    fn entries(
        &mut self,
        graph: &Graph,
        id: NodeId,
        proto: &mut NodeProto,
        slot: usize,
        entries: &[(usize, i64)],
        after: &After,
    ) -> Result<()> {
        let node = graph.node(id);
        let missing = || Error::input("an edit overrides an input that is not there").node(node.label());
        let value = node.inputs.get(slot).copied().flatten().ok_or_else(missing)?;
        let computed = proto.input.get(slot).cloned().ok_or_else(missing)?;
        let data_type = integer_type(graph, value);
        let length = after.lengths[value.0 as usize];
        let length = length.filter(|l| entries.iter().all(|(i, _)| i < l)).ok_or_else(missing)?;
        let (mut keep, mut new) = (vec![1; length], vec![0; length]);
        for (index, entry) in entries {
            keep[*index] = 0;
            new[*index] = *entry;
        }
        let dims = vec![i64::try_from(length).unwrap_or(i64::MAX)];
        let place = (node.scope, node.position);
        let step = Step { place, base: graph.value(value).name, data_type, dims };
        let kept = self.step(&step, "Mul", computed, &keep)?;
        let overridden = self.step(&step, "Add", kept, &new)?;
        if let Some(input) = proto.input.get_mut(slot) {
            *input = overridden;
        }
        Ok(())
    }

    /// Multiplies and divides entries of a tensor computed when the model runs.
    fn ratios(
        &mut self,
        graph: &Graph,
        id: NodeId,
        proto: &mut NodeProto,
        (slot, dims): (usize, &[usize]),
        ratios: &[(usize, i64, i64)],
    ) -> Result<()> {
        let node = graph.node(id);
        let missing = || Error::input("an edit scales an input that is not there").node(node.label());
        let value = node.inputs.get(slot).copied().flatten().ok_or_else(missing)?;
        let computed = proto.input.get(slot).cloned().ok_or_else(missing)?;
        let length = dims.iter().product();
        let (mut factors, mut divisors) = (vec![1; length], vec![1; length]);
        for (index, factor, divisor) in ratios {
            *factors.get_mut(*index).ok_or_else(missing)? = *factor;
            *divisors.get_mut(*index).ok_or_else(missing)? = *divisor;
        }
        let dims = dims.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect();
        let data_type = integer_type(graph, value);
        let place = (node.scope, node.position);
        let step = Step { place, base: graph.value(value).name, data_type, dims };
        let multiplied = self.step(&step, "Mul", computed, &factors)?;
        let divided = self.step(&step, "Div", multiplied, &divisors)?;
        if let Some(input) = proto.input.get_mut(slot) {
            *input = divided;
        }
        Ok(())
    }

    /// Adds a node that computes with `input` and a constant, before a position; gives the name of its output.
    fn step(&mut self, step: &Step, op_type: &str, input: String, values: &[i64]) -> Result<String> {
        let constant = self.names.fresh(&format!("{}_{}", step.base, op_type.to_lowercase()));
        self.constants.push(integers(&constant, step.data_type, step.dims.clone(), values)?);
        let output = self.names.fresh(step.base);
        self.before.entry(step.place).or_default().push(NodeProto {
            op_type: Some(op_type.to_owned()),
            name: Some(self.names.fresh(&format!("{}_{}", step.base, op_type.to_lowercase()))),
            input: vec![input, constant],
            output: vec![output.clone()],
            ..Default::default()
        });
        Ok(output)
    }
}

fn leave(names: &mut Vec<String>, slot: usize) {
    if slot < names.len() {
        names.remove(slot);
    }
}

/// Where arithmetic with an operand is added, and what it looks like.
struct Step<'g> {
    place: (ScopeId, usize),
    base: &'g str,
    data_type: DataType,
    dims: Vec<i64>,
}

fn attribute<'p>(proto: &'p mut NodeProto, name: &str, kind: AttributeType) -> &'p mut AttributeProto {
    let at = proto.attribute.iter().position(|a| a.name() == name).unwrap_or_else(|| {
        proto.attribute.push(build::attribute(name, kind));
        proto.attribute.len() - 1
    });
    &mut proto.attribute[at]
}

fn integers(name: &str, data_type: DataType, dims: Vec<i64>, values: &[i64]) -> Result<TensorProto> {
    let mut raw = Vec::with_capacity(values.len() * 8);
    for value in values {
        match data_type {
            DataType::Int32 => {
                let narrow =
                    i32::try_from(*value).map_err(|_| Error::input("a shape does not fit int32").tensor(name))?;
                raw.extend(narrow.to_le_bytes());
            }
            _ => raw.extend(value.to_le_bytes()),
        }
    }
    Ok(tensor::from_raw(name, data_type, &dims, raw.into()))
}

fn floats(name: &str, data_type: DataType, dims: &[i64], values: &[f64]) -> TensorProto {
    let bytes = |value: &f64| match data_type {
        DataType::Float16 => half::f16::from_f64(*value).to_le_bytes().to_vec(),
        DataType::Bfloat16 => half::bf16::from_f64(*value).to_le_bytes().to_vec(),
        DataType::Double => value.to_le_bytes().to_vec(),
        _ => (*value as f32).to_le_bytes().to_vec(),
    };
    let raw: Vec<u8> = values.iter().flat_map(bytes).collect();
    tensor::from_raw(name, data_type, dims, raw.into())
}

/// The integer type of an operand: that of the constant, else int64, as shapes are.
fn integer_type(graph: &Graph, value: ValueId) -> DataType {
    match graph.value(value).constant().map(|c| c.tensor.data_type()) {
        Some(t) if t == DataType::Int32 as i32 => DataType::Int32,
        _ => DataType::Int64,
    }
}

/// The float type of a value: what it was cast to last, else that of the nearest constant or graph input on the way
/// back, else float.
fn float_type(graph: &Graph, value: ValueId) -> DataType {
    let floats = [DataType::Float, DataType::Float16, DataType::Bfloat16, DataType::Double];
    let known = |t: i32| floats.into_iter().find(|f| *f as i32 == t);
    let mut seen = BTreeSet::new();
    let mut queue = std::collections::VecDeque::from([value]);
    while let Some(value) = queue.pop_front() {
        let found = match &graph.value(value).source {
            Source::Constant(constant) => known(constant.tensor.data_type()),
            Source::Input(info) => known(input_type(info)),
            Source::OpaqueConstant => None,
            Source::Node(producer, _) => {
                let producer_node = graph.node(*producer);
                // Operators that cast say so in an attribute of this name.
                let cast = producer_node.attribute("to").and_then(|a| known(i32::try_from(a.i()).ok()?));
                if cast.is_none() && seen.insert(*producer) {
                    queue.extend(producer_node.inputs.iter().flatten());
                }
                cast
            }
        };
        if let Some(found) = found {
            return found;
        }
    }
    DataType::Float
}

fn input_type(info: &crate::proto::onnx::ValueInfoProto) -> i32 {
    use crate::proto::onnx::type_proto::Value;
    match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(Value::TensorType(tensor)) => tensor.elem_type(),
        _ => 0,
    }
}
