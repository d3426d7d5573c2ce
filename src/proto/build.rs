//! Messages put together: attributes, declarations, and nodes with names of their own.
//!
//! Invariant: nothing here knows what an operator means; callers say which nodes they want.

use std::collections::BTreeSet;

use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::{Dimension, dimension};
use super::onnx::{AttributeProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

/// An attribute that holds one integer.
pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// An attribute that holds integers.
pub(crate) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto { ints: signed(values), ..attribute(name, AttributeType::Ints) }
}

/// An attribute that holds one number.
pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

/// An attribute that holds a text.
pub(crate) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec()), ..attribute(name, AttributeType::String) }
}

/// An attribute without a value.
pub(crate) fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..Default::default() }
}

/// A node that holds a constant.
pub(crate) fn constant(name: &str, element: DataType, dims: Vec<i64>, data: Vec<u8>) -> NodeProto {
    let tensor =
        TensorProto { dims, data_type: Some(element as i32), raw_data: Some(data.into()), ..Default::default() };
    let value = AttributeProto { t: Some(tensor), ..attribute("value", AttributeType::Tensor) };
    NodeProto {
        op_type: Some("Constant".into()),
        name: Some(name.into()),
        output: vec![name.into()],
        attribute: vec![value],
        ..Default::default()
    }
}

/// The declaration of a tensor with a known shape.
pub(crate) fn declaration(name: &str, data_type: i32, dims: &[i64]) -> ValueInfoProto {
    let extent = |d: &i64| Dimension { value: Some(dimension::Value::DimValue(*d)), ..Default::default() };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(extent).collect() });
    let value = type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(data_type), shape });
    let r#type = Some(TypeProto { value: Some(value), ..Default::default() });
    ValueInfoProto { name: Some(name.to_owned()), r#type, ..Default::default() }
}

/// Extents as the file has them.
pub(crate) fn signed(values: &[usize]) -> Vec<i64> {
    values.iter().map(|v| i64::try_from(*v).unwrap_or(i64::MAX)).collect()
}

/// Nodes in the order in which they were asked for, each with one output of a new name.
pub(crate) struct Nodes {
    /// What was emitted so far.
    pub(crate) list: Vec<NodeProto>,
    prefix: &'static str,
    names: BTreeSet<String>,
    /// The number that the next name tries first.
    next: usize,
}

impl Nodes {
    /// New names begin with `prefix` and are none of `names`.
    pub(crate) fn new(prefix: &'static str, names: BTreeSet<String>) -> Self {
        Self { list: Vec::new(), prefix, names, next: 0 }
    }

    /// `operator(inputs…)`; gives the name of its output.
    pub(crate) fn node(&mut self, operator: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = self.fresh();
        self.list.push(NodeProto {
            op_type: Some(operator.into()),
            name: Some(output.clone()),
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![output.clone()],
            attribute,
            ..Default::default()
        });
        output
    }

    /// A constant; gives its name.
    pub(crate) fn constant(&mut self, element: DataType, dims: &[usize], data: Vec<u8>) -> String {
        let name = self.fresh();
        self.list.push(constant(&name, element, signed(dims), data));
        name
    }

    /// A constant list of integers.
    pub(crate) fn integers(&mut self, values: &[i64]) -> String {
        self.constant(DataType::Int64, &[values.len()], values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A new name.
    pub(crate) fn fresh(&mut self) -> String {
        loop {
            let name = format!("{}/{}", self.prefix, self.next);
            self.next += 1;
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }
}
