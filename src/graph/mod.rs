//! The model as nodes and values under typed ids, over the messages of the file. No operator logic.
//!
//! Invariants: every value has one source; nodes stand in topological order (`order`); a constant that looks like a
//! vector and is read several times appears as one value per reading, so that each reading may shrink on its own
//! (exporters share identical vectors between unrelated layers); bigger shared constants are one value, unless the
//! caller has them divided as well. `Constant`
//! nodes are values, not nodes of the dependency graph.

mod capture;
mod check;
mod lower;
mod pins;

pub use lower::is_constant;
pub use pins::{Pins, is_a_name};

use std::borrow::Cow;
use std::collections::BTreeSet;

use petgraph::graph::DiGraph;

use crate::proto::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

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
    /// `graph.initializer[i]`.
    Initializer(usize),
    /// `graph.node[i]`, a `Constant` node.
    Node(usize),
}

/// A value of the graph.
#[derive(Clone, Debug)]
pub struct Value<'m> {
    /// Its name in the file.
    pub name: &'m str,
    /// Where it comes from.
    pub source: Source<'m>,
    /// Who reads it, in node order: node and input slot. Captures by subgraphs have slots after the inputs.
    pub readers: Vec<(NodeId, usize)>,
    /// True if the graph returns it.
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
    /// Its index in `graph.node`.
    pub position: usize,
    /// The version of its operator set.
    pub opset: i64,
    /// Inputs by slot (`None` = left out), then the values that its subgraphs capture.
    pub inputs: Vec<Option<ValueId>>,
    /// How many of `inputs` are real inputs; the rest are captures.
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

    /// All value ids, in order.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..u32::try_from(self.values.len()).unwrap_or(u32::MAX)).map(ValueId)
    }
}
