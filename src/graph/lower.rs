//! Model -> Graph: names become ids, readings are counted, order and names are checked.
//!
//! Invariants checked here: every name read is defined before use in some order (no cycle), no name is defined twice,
//! graph outputs exist. One pass over the nodes, with a name table; no step is quadratic.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use super::capture::captured_names;
use super::check;
use super::{Constant, Graph, Node, NodeId, Place, Source, Value, ValueId};
use crate::proto::onnx::{ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use crate::{Error, Result};

pub(super) fn lower<'m>(model: &'m ModelProto, divided: &BTreeSet<Place>) -> Result<Graph<'m>> {
    let graph = model.graph.as_ref().ok_or_else(|| Error::input("the model has no graph"))?;
    let opsets: HashMap<&str, i64> = model
        .opset_import
        .iter()
        .map(|o| (if o.domain() == "ai.onnx" { "" } else { o.domain() }, o.version()))
        .collect();
    let mut builder = Builder { values: Vec::new(), names: HashMap::new() };
    for (index, tensor) in graph.initializer.iter().enumerate() {
        check::constant(tensor)?;
        let constant = Constant { tensor: Cow::Borrowed(tensor), place: Place::Initializer(index) };
        builder.define(tensor.name(), Source::Constant(constant))?;
    }
    for sparse in &graph.sparse_initializer {
        if let Some(values) = &sparse.values {
            builder.define(values.name(), Source::OpaqueConstant)?;
        }
    }
    for input in &graph.input {
        // An initializer that is also an input (always so up to IR version 3) is a constant with a default.
        if !builder.names.contains_key(input.name()) {
            builder.define(input.name(), Source::Input(input))?;
        }
    }
    let mut nodes = Vec::with_capacity(graph.node.len());
    for (position, proto) in graph.node.iter().enumerate() {
        if let Some(source) = constant_node(proto, position) {
            if let Source::Constant(constant) = &source {
                check::constant(&constant.tensor).map_err(|e| e.node(label(proto)))?;
            }
            for output in &proto.output {
                builder.define(output, source.clone()).map_err(|e| e.node(label(proto)))?;
            }
            continue;
        }
        let id = NodeId(u32::try_from(nodes.len()).map_err(|_| Error::input("the graph has too many nodes"))?);
        let mut outputs = Vec::with_capacity(proto.output.len());
        for (slot, name) in proto.output.iter().enumerate() {
            outputs.push(if name.is_empty() {
                None
            } else {
                Some(builder.define(name, Source::Node(id, slot)).map_err(|e| e.node(label(proto)))?)
            });
        }
        let domain = if proto.domain() == "ai.onnx" { "" } else { proto.domain() };
        let opset = opsets.get(domain).copied().unwrap_or(1);
        nodes.push(Node { proto, position, opset, inputs: Vec::new(), input_count: 0, outputs });
    }
    let mut outputs = Vec::with_capacity(graph.output.len());
    for output in &graph.output {
        let id =
            builder.names.get(output.name()).copied().ok_or_else(|| {
                Error::input("the graph returns a tensor that nothing computes").tensor(output.name())
            })?;
        builder.values[id.0 as usize].is_output = true;
        outputs.push(id);
    }
    read_inputs(&mut builder, &mut nodes, divided)?;
    let (dependencies, order) = connect(&builder.values, &nodes)?;
    Ok(Graph { model, nodes, values: builder.values, order, outputs, dependencies, divided: divided.clone() })
}

struct Builder<'m> {
    values: Vec<Value<'m>>,
    names: HashMap<&'m str, ValueId>,
}

impl<'m> Builder<'m> {
    fn define(&mut self, name: &'m str, source: Source<'m>) -> Result<ValueId> {
        let id = self.add(name, source);
        if self.names.insert(name, id).is_some() {
            return Err(Error::input("two tensors have the same name").tensor(name).help("export the model again"));
        }
        Ok(id)
    }

    fn add(&mut self, name: &'m str, source: Source<'m>) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).unwrap_or(u32::MAX));
        self.values.push(Value { name, source, readers: Vec::new(), is_output: false });
        id
    }
}

/// Resolves the inputs of all nodes and notes the readers; vectors and `divided` constants get one value per reading.
fn read_inputs<'m>(builder: &mut Builder<'m>, nodes: &mut [Node<'m>], divided: &BTreeSet<Place>) -> Result<()> {
    for (index, node) in nodes.iter_mut().enumerate() {
        let id = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
        node.input_count = node.proto.input.len();
        let captured = captured_names(node.proto);
        let names = node.proto.input.iter().map(String::as_str).chain(captured);
        for (slot, name) in names.enumerate() {
            if name.is_empty() {
                node.inputs.push(None);
                continue;
            }
            let mut value = builder.names.get(name).copied().ok_or_else(|| {
                Error::input("a node reads a tensor that nothing computes").node(node.label()).tensor(name)
            })?;
            let known = &builder.values[value.0 as usize];
            let own_reading = slot < node.input_count
                && (known.is_output || !known.readers.is_empty())
                && known.constant().is_some_and(|c| is_vector(&c.tensor) || divided.contains(&c.place));
            if own_reading {
                let source = known.source.clone();
                value = builder.add(name, source);
            }
            builder.values[value.0 as usize].readers.push((id, slot));
            node.inputs.push(Some(value));
        }
    }
    Ok(())
}

/// Scalars and tensors with at most one axis longer than 1: cheap to copy, and shared only by accident.
fn is_vector(tensor: &TensorProto) -> bool {
    tensor.dims.iter().filter(|d| **d != 1).count() <= 1
}

fn connect(values: &[Value<'_>], nodes: &[Node<'_>]) -> Result<(DiGraph<NodeId, ValueId>, Vec<NodeId>)> {
    let mut graph = DiGraph::with_capacity(nodes.len(), nodes.len() * 2);
    for index in 0..nodes.len() {
        graph.add_node(NodeId(u32::try_from(index).unwrap_or(u32::MAX)));
    }
    for (index, value) in values.iter().enumerate() {
        if let Source::Node(producer, _) = value.source {
            for (reader, _) in &value.readers {
                let id = ValueId(u32::try_from(index).unwrap_or(u32::MAX));
                graph.add_edge(NodeIndex::new(producer.0 as usize), NodeIndex::new(reader.0 as usize), id);
            }
        }
    }
    // The file's own order is kept where it is one, which it nearly always is; it reads best in reports.
    let in_order = graph.raw_edges().iter().all(|e| e.source() < e.target());
    let order = if in_order {
        graph.node_indices().map(|i| graph[i]).collect()
    } else {
        toposort(&graph, None)
            .map_err(|cycle| {
                let node = &nodes[graph[cycle.node_id()].0 as usize];
                Error::input("the graph has a cycle").node(node.label()).help("export the model again")
            })?
            .into_iter()
            .map(|i| graph[i])
            .collect()
    };
    Ok((graph, order))
}

/// The source of a `Constant` node's output, or `None` for any other node.
fn constant_node(proto: &NodeProto, position: usize) -> Option<Source<'_>> {
    if !is_constant(proto) {
        return None;
    }
    let place = Place::Node(position);
    let attribute = proto.attribute.first()?;
    let tensor = match attribute.name() {
        "value" => Cow::Borrowed(attribute.t.as_ref()?),
        "value_float" => Cow::Owned(float_tensor(Vec::new(), vec![attribute.f()])),
        "value_floats" => Cow::Owned(float_tensor(vec![length(&attribute.floats)], attribute.floats.clone())),
        "value_int" => Cow::Owned(int_tensor(Vec::new(), vec![attribute.i()])),
        "value_ints" => Cow::Owned(int_tensor(vec![length(&attribute.ints)], attribute.ints.clone())),
        _ => return Some(Source::OpaqueConstant),
    };
    Some(Source::Constant(Constant { tensor, place }))
}

/// True for a node that holds a constant and computes nothing.
pub fn is_constant(proto: &NodeProto) -> bool {
    proto.op_type() == CONSTANT && matches!(proto.domain(), "" | "ai.onnx")
}

/// The one operator that is part of the graph's structure: it holds a constant and computes nothing.
const CONSTANT: &str = "Constant";

fn length<T>(list: &[T]) -> i64 {
    i64::try_from(list.len()).unwrap_or(i64::MAX)
}

fn float_tensor(dims: Vec<i64>, values: Vec<f32>) -> TensorProto {
    TensorProto { dims, data_type: Some(DataType::Float as i32), float_data: values, ..Default::default() }
}

fn int_tensor(dims: Vec<i64>, values: Vec<i64>) -> TensorProto {
    TensorProto { dims, data_type: Some(DataType::Int64 as i32), int64_data: values, ..Default::default() }
}

fn label(proto: &NodeProto) -> String {
    match proto.name() {
        "" => format!("{}:{}", proto.op_type(), proto.output.first().map_or("", String::as_str)),
        name => name.to_owned(),
    }
}
