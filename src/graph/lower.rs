//! Model -> Graph: names become ids, readings are counted, order and names are checked.
//!
//! Invariants checked here: every name read is defined before use in some order (no cycle), no name is defined twice in
//! one graph, graph outputs exist. One pass over the nodes with a name table per graph, then one over the readings; no
//! step is quadratic.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use super::capture::{captured_names, named_bodies};
use super::{Constant, Graph, MAIN, Node, NodeId, Passage, Place, Scope, ScopeId, Source, Value, ValueId, check};
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_proto::DataType};
use crate::{Error, Result, kept};

/// Bodies that are nested deeper are not followed. A file cannot nest deeper than about 30, a model in memory can.
const MAX_DEPTH: usize = 40;

pub(super) fn lower<'m>(model: &'m ModelProto, divided: &BTreeSet<Place>) -> Result<Graph<'m>> {
    let graph = model.graph.as_ref().ok_or_else(|| Error::input("the model has no graph"))?;
    let opsets = model.opset_import.iter().map(|o| (plain(o.domain()), o.version())).collect();
    let functions = model.functions.iter().map(|f| (plain(f.domain()), f.name())).collect();
    let main = Scope::default();
    let mut builder = Builder {
        opsets,
        functions,
        values: Vec::new(),
        nodes: Vec::new(),
        unread: Vec::new(),
        scopes: vec![main],
        names: vec![HashMap::new()],
    };
    builder.constants(graph, MAIN)?;
    for input in &graph.input {
        // An initializer that is also an input (always so up to IR version 3) is a constant with a default.
        if !builder.names[0].contains_key(input.name()) {
            builder.define(MAIN, input.name(), Source::Input(input))?;
        }
    }
    builder.nodes(graph, MAIN, 0)?;
    let mut outputs = Vec::with_capacity(graph.output.len());
    for output in &graph.output {
        let id = builder.names[0]
            .get(output.name())
            .copied()
            .ok_or_else(|| Error::input("the graph returns a tensor that nothing computes").tensor(output.name()))?;
        builder.values[id.0 as usize].is_output = true;
        outputs.push(id);
    }
    builder.read_inputs(divided)?;
    let Builder { values, nodes, scopes, .. } = builder;
    let (dependencies, order) = connect(&values, &nodes)?;
    Ok(Graph { model, scopes, nodes, values, order, outputs, dependencies, divided: divided.clone() })
}

/// One input of a node by name, and the graph in which the name is meant.
type Unread<'m> = (ScopeId, &'m str);

/// A body of a node: the attribute that holds it, its place there, the graph.
type Body<'m> = (&'m str, usize, &'m GraphProto);

/// A node of the file and where it stands.
#[derive(Clone, Copy)]
struct Call<'m> {
    proto: &'m NodeProto,
    scope: ScopeId,
    position: usize,
}

struct Builder<'m> {
    opsets: HashMap<&'m str, i64>,
    /// Local functions by domain and name.
    functions: HashSet<(&'m str, &'m str)>,
    values: Vec<Value<'m>>,
    nodes: Vec<Node<'m>>,
    /// What each node reads, to be looked up once all names are known.
    unread: Vec<Vec<Unread<'m>>>,
    scopes: Vec<Scope>,
    /// The names that each graph defines.
    names: Vec<HashMap<&'m str, ValueId>>,
}

impl<'m> Builder<'m> {
    fn define(&mut self, scope: ScopeId, name: &'m str, source: Source<'m>) -> Result<ValueId> {
        let id = self.add(scope, name, source);
        if self.names[scope.0 as usize].insert(name, id).is_some() {
            return Err(Error::input("two tensors have the same name").tensor(name).help("export the model again"));
        }
        Ok(id)
    }

    fn add(&mut self, scope: ScopeId, name: &'m str, source: Source<'m>) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).unwrap_or(u32::MAX));
        self.values.push(Value { name, scope, source, readers: Vec::new(), is_output: false });
        id
    }

    /// The initializers of a graph.
    fn constants(&mut self, graph: &'m GraphProto, scope: ScopeId) -> Result<()> {
        for (index, tensor) in graph.initializer.iter().enumerate() {
            check::constant(tensor)?;
            let constant = Constant { tensor: Cow::Borrowed(tensor), place: Place::Initializer(scope, index) };
            self.define(scope, tensor.name(), Source::Constant(constant))?;
        }
        for sparse in &graph.sparse_initializer {
            if let Some(values) = &sparse.values {
                self.define(scope, values.name(), Source::OpaqueConstant)?;
            }
        }
        Ok(())
    }

    fn nodes(&mut self, graph: &'m GraphProto, scope: ScopeId, depth: usize) -> Result<()> {
        for (position, proto) in graph.node.iter().enumerate() {
            if let Some(source) = constant_node(proto, Place::Node(scope, position)) {
                if let Source::Constant(constant) = &source {
                    check::constant(&constant.tensor).map_err(|e| e.node(label(proto)))?;
                }
                for output in &proto.output {
                    self.define(scope, output, source.clone()).map_err(|e| e.node(label(proto)))?;
                }
                continue;
            }
            self.call(Call { proto, scope, position }, depth)?;
        }
        Ok(())
    }

    /// A node with its bodies.
    fn call(&mut self, call: Call<'m>, depth: usize) -> Result<()> {
        let Call { proto, scope, .. } = call;
        let own = || proto.input.iter().map(move |name| (scope, name.as_str()));
        let bodies: Vec<Body<'m>> = named_bodies(proto).collect();
        if bodies.is_empty() {
            return self.node(call, Passage::Whole, own().collect(), 0..0);
        }
        if depth < MAX_DEPTH && bodies.iter().all(|body| formal_inputs(body.2).next().is_none()) {
            let mut reads: Vec<Unread<'m>> = own().collect();
            for (number, body) in bodies.iter().enumerate() {
                let inner = self.enter(call, number, *body)?;
                self.nodes(body.2, inner, depth + 1)?;
                reads.extend(body.2.output.iter().map(|o| (inner, o.name())));
            }
            let returned = proto.input.len()..reads.len();
            return self.node(call, Passage::Join, reads, returned);
        }
        if depth < MAX_DEPTH
            && let [body] = bodies.as_slice()
        {
            let inner = self.enter(call, 0, *body)?;
            let body = body.2;
            let formal: Vec<&'m str> = formal_inputs(body).map(|i| i.name()).collect();
            let id = self.push(call, Passage::Entry, own().collect(), 0..0)?;
            for (slot, name) in formal.iter().enumerate() {
                let value = self.define(inner, name, Source::Node(id, slot)).map_err(|e| e.node(label(proto)))?;
                self.nodes[id.0 as usize].outputs.push(Some(value));
            }
            self.nodes(body, inner, depth + 1)?;
            let returned = formal.len()..formal.len() + body.output.len();
            let inside = formal.into_iter().chain(body.output.iter().map(|o| o.name()));
            let reads = inside.map(|name| (inner, name)).chain(own()).collect();
            return self.node(call, Passage::Exit, reads, returned);
        }
        let captured = captured_names(proto);
        let reads = own().chain(captured.into_iter().map(|name| (scope, name))).collect();
        self.node(call, Passage::Whole, reads, 0..0)
    }

    /// Opens the scope of a body, the one of this number among those of the node, and defines its constants.
    fn enter(&mut self, call: Call<'m>, number: usize, body: Body<'m>) -> Result<ScopeId> {
        let Call { proto, scope, position } = call;
        let (attribute, index, body) = body;
        let id = ScopeId(u32::try_from(self.scopes.len()).map_err(|_| Error::input("the model has too many bodies"))?);
        let output = proto.output.iter().find(|o| !o.is_empty()).map_or("", String::as_str);
        let outer = self.scopes.get(scope.0 as usize).map_or("", |s| s.prefix.as_str());
        let prefix = kept::prefix(outer, output, attribute, index);
        self.scopes.push(Scope { parent: Some((scope, position, number)), prefix });
        self.names.push(HashMap::new());
        self.constants(body, id)?;
        Ok(id)
    }

    /// A node whose outputs are those of the message.
    fn node(&mut self, call: Call<'m>, passage: Passage, reads: Vec<Unread<'m>>, returned: Range<usize>) -> Result<()> {
        let Call { proto, scope, .. } = call;
        let id = self.push(call, passage, reads, returned)?;
        for (slot, name) in proto.output.iter().enumerate() {
            let output = if name.is_empty() {
                None
            } else {
                Some(self.define(scope, name, Source::Node(id, slot)).map_err(|e| e.node(label(proto)))?)
            };
            self.nodes[id.0 as usize].outputs.push(output);
        }
        Ok(())
    }

    fn push(
        &mut self,
        call: Call<'m>,
        passage: Passage,
        reads: Vec<Unread<'m>>,
        returned: Range<usize>,
    ) -> Result<NodeId> {
        let Call { proto, scope, position } = call;
        let id = NodeId(u32::try_from(self.nodes.len()).map_err(|_| Error::input("the graph has too many nodes"))?);
        let domain = plain(proto.domain());
        let is_function = self.functions.contains(&(domain, proto.op_type()));
        let opset = self.opsets.get(domain).copied().unwrap_or(1);
        let own_count = if passage == Passage::Exit { 0 } else { proto.input.len() };
        let input_count = if passage == Passage::Whole { own_count } else { reads.len() };
        self.nodes.push(Node {
            proto,
            passage,
            scope,
            position,
            opset,
            is_function,
            inputs: Vec::new(),
            own_count,
            returned,
            input_count,
            outputs: Vec::new(),
        });
        self.unread.push(reads);
        Ok(id)
    }

    /// What a name means in a graph: its own value, or one of the graphs around it.
    fn find(&self, mut scope: ScopeId, name: &str) -> Option<ValueId> {
        loop {
            if let Some(value) = self.names.get(scope.0 as usize)?.get(name) {
                return Some(*value);
            }
            scope = self.scopes.get(scope.0 as usize)?.parent?.0;
        }
    }

    /// Resolves the inputs of all nodes and notes the readers; vectors get one value per reading.
    fn read_inputs(&mut self, divided: &BTreeSet<Place>) -> Result<()> {
        for (index, reads) in std::mem::take(&mut self.unread).into_iter().enumerate() {
            let id = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
            let (own_count, returned) = (self.nodes[index].own_count, self.nodes[index].returned.clone());
            let mut inputs = Vec::with_capacity(reads.len());
            for (slot, (scope, name)) in reads.into_iter().enumerate() {
                if name.is_empty() {
                    inputs.push(None);
                    continue;
                }
                let mut value = self.find(scope, name).ok_or_else(|| {
                    Error::input("a node reads a tensor that nothing computes")
                        .node(self.nodes[index].label())
                        .tensor(name)
                })?;
                let known = &self.values[value.0 as usize];
                let own_reading = slot < own_count
                    && (known.is_output || !known.readers.is_empty())
                    && known.constant().is_some_and(|c| is_vector(&c.tensor) || divided.contains(&c.place));
                if own_reading {
                    let (source, scope) = (known.source.clone(), known.scope);
                    value = self.add(scope, name, source);
                } else if returned.contains(&slot) {
                    self.values[value.0 as usize].is_output = true;
                }
                self.values[value.0 as usize].readers.push((id, slot));
                inputs.push(Some(value));
            }
            self.nodes[index].inputs = inputs;
        }
        Ok(())
    }
}

/// The domain with the one that has two spellings spelled in one way.
fn plain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// The inputs of a body that its owner must give; those that are initializers have values already.
fn formal_inputs(body: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    let constants: HashSet<&str> = body.initializer.iter().map(|t| t.name()).collect();
    body.input.iter().filter(move |i| !constants.contains(i.name()))
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
fn constant_node(proto: &NodeProto, place: Place) -> Option<Source<'_>> {
    if !is_constant(proto) {
        return None;
    }
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
