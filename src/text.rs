//! A small text form of models, for fixtures, tests and bug reports.
//!
//! ```text
//! # Two convolutions joined.            comments start with #
//! opset 17                              optional; 17 is the default
//! in x [1,3,8,8]                        a float input; a type may stand before the shape: in ids int64 [n,16]
//! a = Conv(x, w[4,3,3,3], b[4], pads=[1,1,1,1])   w, b: float initializers with seeded random values
//! q = DequantizeLinear(v:int8[4,3], <0.1>, z:int8{3})   a type behind the name: small random integers, or these
//! b = Reshape(a, {1,-1,8})              {..}: an int64 constant; named: s{1,-1,8}
//! c = Mul(b, <0.5>)                     <..>: a float constant, a scalar if it is one number
//! d, e = Split(c, axis=1)               several outputs
//! f = com.microsoft.FastGelu(_, d)      `_` leaves an input or output out; a dotted prefix is the domain
//! g = If(c)                             lines that end in `{` hold a body of the node above them
//! then_branch {
//!   h = Relu(f)
//!   out h
//! }
//! function local.Block(x, w, @alpha=0.1) -> y {     a local function; `name=@alpha` refers to its attribute
//!   y = local.Inner(x, w, slope=@alpha)
//! }
//! out f, e
//! ```
//!
//! Constants become initializers of the graph they stand in; functions have none, so there they become `Constant`
//! nodes.
//!
//! Invariants: parsing is deterministic; random values depend on the tensor's name alone and are never repeated, so
//! that a wrong slice shows.

mod constants;
mod words;

use std::collections::BTreeSet;

use crate::proto::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType,
    tensor_shape_proto, type_proto,
};
use crate::{Error, Result};
use constants::operand;
use words::{attribute, split, type_called};

/// Reads a model from its text form.
///
/// # Errors
/// The line that is not understood.
pub fn parse(text: &str) -> Result<ModelProto> {
    let mut model = ModelProto { ir_version: Some(8), ..Default::default() };
    // The main graph, then the bodies and functions that are open, innermost last.
    let mut open = vec![Open { graph: graph("text"), kind: Kind::Main }];
    let mut opset = 17;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong = || Error::input(format!("not understood: `{line}`"));
        let top = open.last_mut().ok_or_else(wrong)?;
        if let Some(version) = line.strip_prefix("opset ") {
            opset = version.trim().parse().map_err(|_| wrong())?;
        } else if let Some(rest) = line.strip_prefix("in ") {
            top.graph.input.push(input(rest).ok_or_else(wrong)?);
        } else if let Some(names) = line.strip_prefix("out ") {
            top.graph.output.extend(names.split(',').map(|n| declaration(n.trim(), DataType::Float, None)));
        } else if line == "}" {
            let closed = open.pop().ok_or_else(wrong)?;
            close(closed, open.last_mut().ok_or_else(wrong)?, &mut model).ok_or_else(wrong)?;
        } else if let Some(head) = line.strip_suffix('{') {
            let kind = match head.strip_prefix("function ") {
                Some(head) => Kind::Function(Box::new(function(head.trim()).ok_or_else(wrong)?)),
                None => Kind::Body(head.trim().to_owned()),
            };
            open.push(Open { graph: graph(head.trim()), kind });
        } else {
            node(line, &mut top.graph).ok_or_else(wrong)?;
        }
    }
    let main = open.pop().filter(|last| open.is_empty() && matches!(last.kind, Kind::Main));
    let main = main.ok_or_else(|| Error::input("a `}` is missing"))?.graph;
    let mut imported = domains(&main.node);
    imported.extend(model.functions.iter().flat_map(|f| domains(&f.node)));
    imported.insert(String::new());
    let imports = |domain: String| {
        let version = if String::is_empty(&domain) { opset } else { 1 };
        OperatorSetIdProto { domain: Some(domain), version: Some(version) }
    };
    model.opset_import = imported.into_iter().map(imports).collect();
    for function in &mut model.functions {
        function.opset_import.clone_from(&model.opset_import);
    }
    model.graph = Some(main);
    Ok(model)
}

/// What is being read.
struct Open {
    graph: GraphProto,
    kind: Kind,
}

enum Kind {
    Main,
    /// A body, by the name of its attribute.
    Body(String),
    Function(Box<FunctionProto>),
}

fn graph(name: &str) -> GraphProto {
    GraphProto { name: Some(name.to_owned()), ..Default::default() }
}

/// Puts a body into the node above it, or a function into the model.
fn close(closed: Open, outer: &mut Open, model: &mut ModelProto) -> Option<()> {
    match closed.kind {
        Kind::Main => return None,
        Kind::Body(name) => {
            let kind = Some(AttributeType::Graph as i32);
            let body = AttributeProto { name: Some(name), g: Some(closed.graph), r#type: kind, ..Default::default() };
            outer.graph.node.last_mut()?.attribute.push(body);
        }
        Kind::Function(mut function) => {
            let constant = |tensor: TensorProto| NodeProto {
                op_type: Some("Constant".to_owned()),
                output: vec![tensor.name().to_owned()],
                attribute: vec![AttributeProto {
                    name: Some("value".to_owned()),
                    t: Some(tensor),
                    r#type: Some(AttributeType::Tensor as i32),
                    ..Default::default()
                }],
                ..Default::default()
            };
            function.node = closed.graph.initializer.into_iter().map(constant).chain(closed.graph.node).collect();
            model.functions.push(*function);
        }
    }
    Some(())
}

/// `domain.Name(input, …, @attribute, @attribute=default) -> output, …`
fn function(head: &str) -> Option<FunctionProto> {
    let (call, outputs) = head.split_once("->")?;
    let (name, arguments) = call.trim().split_once('(')?;
    let (domain, name) = name.rsplit_once('.')?;
    let mut function = FunctionProto {
        name: Some(name.to_owned()),
        domain: Some(domain.to_owned()),
        output: split(outputs),
        ..Default::default()
    };
    for argument in split(arguments.strip_suffix(')')?) {
        match (argument.strip_prefix('@'), argument.split_once('=')) {
            (None, _) => function.input.push(argument),
            (Some(name), None) => function.attribute.push(name.to_owned()),
            (Some(_), Some((name, value))) => function.attribute_proto.push(attribute(name.strip_prefix('@')?, value)?),
        }
    }
    Some(function)
}

/// The domains of all nodes, bodies included.
fn domains(nodes: &[NodeProto]) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = nodes.iter().map(|n| n.domain().to_owned()).collect();
    for inner in nodes.iter().flat_map(|n| &n.attribute).filter_map(|a| a.g.as_ref()) {
        found.extend(domains(&inner.node));
    }
    found
}

/// A declaration without or with a shape; dimensions that are no numbers are `dim_param`s.
fn declaration(name: &str, data_type: DataType, dims: Option<&str>) -> ValueInfoProto {
    let shape = dims.map(|dims| TensorShapeProto {
        dim: split(dims)
            .iter()
            .map(|d| {
                use tensor_shape_proto::{Dimension, dimension::Value};
                let value = d.parse().map_or_else(|_| Value::DimParam(d.clone()), Value::DimValue);
                Dimension { value: Some(value), ..Default::default() }
            })
            .collect(),
    });
    let tensor = type_proto::Tensor { elem_type: Some(data_type as i32), shape };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value, ..Default::default() }),
        ..Default::default()
    }
}

fn input(text: &str) -> Option<ValueInfoProto> {
    // A body may leave the shape of an input open.
    let (head, dims) = text.split_once('[').map_or((text, None), |(head, dims)| (head, Some(dims)));
    let mut words = head.split_whitespace();
    let name = words.next()?;
    let data_type = words.next().map_or(Some(DataType::Float), type_called)?;
    if words.next().is_some() {
        return None;
    }
    let dims = match dims {
        Some(dims) => Some(dims.strip_suffix(']')?),
        None => None,
    };
    Some(declaration(name, data_type, dims))
}

fn node(line: &str, graph: &mut GraphProto) -> Option<()> {
    let (outputs, call) = line.split_once('=')?;
    let (operator, arguments) = call.trim().split_once('(')?;
    let arguments = arguments.strip_suffix(')')?;
    let (domain, op_type) = operator.rsplit_once('.').unwrap_or(("", operator));
    let mut node = NodeProto {
        op_type: Some(op_type.to_owned()),
        domain: (!domain.is_empty()).then(|| domain.to_owned()),
        output: outputs.split(',').map(|o| if o.trim() == "_" { "" } else { o.trim() }.to_owned()).collect(),
        ..Default::default()
    };
    for (index, argument) in split(arguments).iter().enumerate() {
        match argument.split_once('=') {
            Some((name, value)) => node.attribute.push(attribute(name.trim(), value.trim())?),
            None => {
                let fresh = format!("{}.{index}", node.output.iter().find(|o| !o.is_empty())?);
                node.input.push(operand(argument, fresh, graph)?);
            }
        }
    }
    graph.node.push(node);
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_model_is_read() {
        let model = parse(
            "opset 13
             in x [n,3,8,8]
             a = Conv(x, w[4,3,3,3], _, pads=[1,1,1,1], auto_pad=\"NOTSET\") # a comment
             b, c = Split(a, {2,2}, axis=1)
             d = com.microsoft.FastGelu(b, <0.5>)
             out d, c",
        )
        .unwrap();
        let graph = model.graph.unwrap();
        assert_eq!(graph.node.len(), 3);
        assert_eq!(graph.initializer.len(), 3);
        assert_eq!(graph.node[0].input, ["x", "w", ""]);
        assert_eq!(graph.node[1].output, ["b", "c"]);
        assert_eq!(graph.node[2].domain(), "com.microsoft");
        assert_eq!(graph.initializer[2].float_data, [0.5]);
        assert_eq!(model.opset_import.len(), 2);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for text in ["x", "in x [1", "a = Conv", "in x [1] y", "in x float y", "b {", "}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
