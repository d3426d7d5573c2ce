//! The model as nodes and values under typed ids, over the messages of the file. No operator logic.
//!
//! Invariants: every value has one source; nodes stand in topological order (`order`); a constant that looks like a
//! vector and is read several times appears as one value per reading, so that each reading may shrink on its own
//! (exporters share identical vectors between unrelated layers); bigger shared constants are one value, unless the
//! caller has them divided as well. `Constant` nodes are values, not nodes of the dependency graph.
//!
//! Bodies (subgraphs of If, Loop, Scan and their like) lie flat among the other nodes, each node and value with its
//! scope. Where bodies take no inputs, the node that owns them reads what they return. Where one body takes inputs, its
//! owner appears twice: as an entry, whose outputs are the body's inputs, and as an exit, which reads the body's inputs
//! and outputs. What that means for axes is the rule's business.

mod capture;
mod check;
mod lower;
mod pins;
mod scope;

pub use lower::is_constant;
pub use pins::{Pins, is_a_name};
pub use scope::{MAIN, Scope, ScopeId, find_graph_mut};

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use petgraph::graph::DiGraph;

use crate::proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// A node of the dependency graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// A value: a graph input, a constant (or one reading of it), or an output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Where a value comes from.
// Constants are the large variant and as frequent as the others; a box would cost each an allocation.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Source<'m> {
    /// A graph input that is not an initializer, with its declaration.
    Input(&'m ValueInfoProto),
    /// An initializer or a `Constant` node.
    Constant(Constant<'m>),
    /// A sparse initializer, or a constant that this program cannot read.
    OpaqueConstant,
    /// Output `slot` of a node.
    Node(NodeId, usize),
}

/// A constant tensor and its place in the file.
#[derive(Clone, Debug)]
pub struct Constant<'m> {
    /// The tensor; borrowed unless a `Constant` node spells it as a scalar or a list.
    pub tensor: Cow<'m, TensorProto>,
    /// Where it is stored.
    pub place: Place,
}

/// Where a constant is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// `initializer[i]` of a graph.
    Initializer(ScopeId, usize),
    /// `node[i]` of a graph, a `Constant` node.
    Node(ScopeId, usize),
}

/// What a node of the dependency graph is of the message behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// All of it. Bodies that it may have are not followed; what they capture stands behind its inputs.
    Whole,
    /// All of it, bodies that take no inputs included: what they return stands behind its inputs, body by body.
    Join,
    /// The way into a body: from the node's inputs to the body's inputs.
    Entry,
    /// The way out of a body: it reads the body's inputs, the body's outputs and the node's inputs.
    Exit,
}

/// A value of the graph.
#[derive(Clone, Debug)]
pub struct Value<'m> {
    /// Its name in the file.
    pub name: &'m str,
    /// The graph that defines it.
    pub scope: ScopeId,
    /// Where it comes from.
    pub source: Source<'m>,
    /// Who reads it, in node order: node and input slot. Slots after a node's own inputs are those of its bodies.
    pub readers: Vec<(NodeId, usize)>,
    /// True if its graph, main graph or body, returns it.
    pub is_output: bool,
}

impl<'m> Value<'m> {
    /// The constant, if the value is one.
    pub fn constant(&self) -> Option<&Constant<'m>> {
        match &self.source {
            Source::Constant(constant) => Some(constant),
            _ => None,
        }
    }
}

/// An operator call.
#[derive(Clone, Debug)]
pub struct Node<'m> {
    /// The message.
    pub proto: &'m NodeProto,
    /// What part of it this is.
    pub passage: Passage,
    /// The graph that holds it.
    pub scope: ScopeId,
    /// Its index in the `node` list of that graph.
    pub position: usize,
    /// The version of its operator set.
    pub opset: i64,
    /// True if the file itself says what it computes, whatever its name means elsewhere.
    pub is_function: bool,
    /// Inputs by slot (`None` = left out), then what its bodies return, or capture where they are not followed.
    pub inputs: Vec<Option<ValueId>>,
    /// How many of `inputs` are inputs of the message, by slot; none for an exit.
    pub own_count: usize,
    /// Which of `inputs` its bodies return.
    pub returned: Range<usize>,
    /// How many of `inputs` its rule describes; the rest are captures.
    pub input_count: usize,
    /// Outputs by slot (`None` = left out).
    pub outputs: Vec<Option<ValueId>>,
}

impl Node<'_> {
    /// The operator's name.
    pub fn op_type(&self) -> &str {
        self.proto.op_type()
    }

    /// The operator's domain, with `ai.onnx` spelled as the empty string.
    pub fn domain(&self) -> &str {
        match self.proto.domain() {
            "ai.onnx" => "",
            domain => domain,
        }
    }

    /// What to call the node in messages: its name, or else its operator and first output.
    pub fn label(&self) -> String {
        match self.proto.name() {
            "" => {
                let output = self.proto.output.iter().find(|o| !o.is_empty());
                format!("{}:{}", self.op_type(), output.map_or("", String::as_str))
            }
            name => name.to_owned(),
        }
    }

    /// An attribute by name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.proto.attribute.iter().find(|a| a.name() == name)
    }
}

/// The dependency graph of one model.
#[derive(Debug)]
pub struct Graph<'m> {
    /// The model it stands for.
    pub model: &'m ModelProto,
    /// The main graph and all bodies that are followed; a body stands behind the graph that holds it.
    pub scopes: Vec<Scope>,
    /// All operator calls, in file order.
    pub nodes: Vec<Node<'m>>,
    /// All values; the original constants before their further readings.
    pub values: Vec<Value<'m>>,
    /// A topological order of the nodes.
    pub order: Vec<NodeId>,
    /// The graph outputs, in file order.
    pub outputs: Vec<ValueId>,
    /// Edges from a node to the readers of its outputs; node weights are in step with `nodes`.
    pub dependencies: DiGraph<NodeId, ValueId>,
    /// Constants bigger than vectors of which every reading is a value of its own.
    pub divided: BTreeSet<Place>,
}

impl<'m> Graph<'m> {
    /// Builds the graph and checks it.
    ///
    /// # Errors
    /// Unknown or duplicate names and cycles, with the node or tensor; constants whose data does not fit their shape.
    pub fn new(model: &'m ModelProto) -> crate::Result<Self> {
        lower::lower(model, &BTreeSet::new())
    }

    /// As [`Graph::new`], with one value per reading for the `divided` constants, too.
    ///
    /// # Errors
    /// As [`Graph::new`].
    pub fn dividing(model: &'m ModelProto, divided: &BTreeSet<Place>) -> crate::Result<Self> {
        lower::lower(model, divided)
    }

    /// The node of an id.
    pub fn node(&self, id: NodeId) -> &Node<'m> {
        &self.nodes[id.0 as usize]
    }

    /// The value of an id.
    pub fn value(&self, id: ValueId) -> &Value<'m> {
        &self.values[id.0 as usize]
    }

    /// The graphs of all scopes; `None` where a scope is not found, which does not happen for the graph's own model.
    pub fn scope_graphs(&self) -> Vec<Option<&'m GraphProto>> {
        let mut graphs: Vec<Option<&'m GraphProto>> = Vec::with_capacity(self.scopes.len());
        for scope in &self.scopes {
            let graph = match scope.parent {
                None => self.model.graph.as_ref(),
                Some((outer, position, number)) => {
                    let outer = graphs.get(outer.0 as usize).copied().flatten();
                    outer.and_then(|g| g.node.get(position)).and_then(|n| capture::subgraphs(n).nth(number))
                }
            };
            graphs.push(graph);
        }
        graphs
    }

    /// The name by which a value is known outside its graph, see [`crate::kept::prefix`].
    pub fn key(&self, id: ValueId) -> String {
        let value = self.value(id);
        format!("{}{}", self.scopes.get(value.scope.0 as usize).map_or("", |s| s.prefix.as_str()), value.name)
    }

    /// All value ids, in order.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..u32::try_from(self.values.len()).unwrap_or(u32::MAX)).map(ValueId)
    }
}
