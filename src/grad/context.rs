//! Context: what rules emit nodes with, and what they may ask about values.
//!
//! Invariants: constants have the float type of the value that they are computed with; nothing is emitted that operator
//! set 11 does not have, except where a rule says so and asks for the version.

use std::collections::BTreeMap;

use half::f16;

use super::facts::{Fact, Facts};
use crate::engine::ElementType;
use crate::proto::build::{Nodes, int, ints};
use crate::proto::onnx::{AttributeProto, NodeProto, TensorProto};
use crate::proto::tensor;

/// What rules work with.
pub(super) struct Context<'a> {
    pub(super) nodes: Nodes,
    pub(super) facts: &'a Facts,
    pub(super) constants: BTreeMap<&'a str, &'a TensorProto>,
    /// The version of the default operator set.
    pub(super) opset: i64,
}

impl<'a> Context<'a> {
    /// Emits a node without attributes.
    pub(super) fn op(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.nodes.node(operator, inputs, Vec::new())
    }

    /// Emits a node.
    pub(super) fn node(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.nodes.node(operator, inputs, attributes)
    }

    pub(super) fn fact(&self, name: &str) -> Result<&'a Fact, String> {
        self.facts.get(name).ok_or_else(|| format!("the shape of `{name}` is not known"))
    }

    pub(super) fn shape(&self, name: &str) -> Result<&'a [usize], String> {
        Ok(&self.fact(name)?.shape)
    }

    /// An axis of a value, counted from the front.
    pub(super) fn axis(&self, of: &str, axis: i64) -> Result<usize, String> {
        let rank = self.shape(of)?.len();
        let turned = if axis < 0 { axis.checked_add(i64::try_from(rank).unwrap_or(i64::MAX)) } else { Some(axis) };
        let turned = turned.and_then(|a| usize::try_from(a).ok()).filter(|a| *a < rank);
        turned.ok_or_else(|| format!("`{of}` has no axis {axis}"))
    }

    /// Integers that are constant in the model.
    pub(super) fn constant(&self, name: &str) -> Result<Vec<i64>, String> {
        match self.constants.get(name) {
            Some(tensor) => tensor::to_i64(tensor).map_err(|error| error.to_string()),
            None => Ok(self.known(name)?.into_iter().map(|number| number as i64).collect()),
        }
    }

    /// Numbers that are constant in the model, in order.
    pub(super) fn constant_floats(&self, name: &str) -> Result<Vec<f64>, String> {
        let Some(tensor) = self.constants.get(name) else { return self.known(name) };
        let values = tensor::to_f32(tensor).map_err(|error| error.to_string())?;
        Ok(values.into_iter().map(f64::from).collect())
    }

    /// Numbers that are computed from constants.
    fn known(&self, name: &str) -> Result<Vec<f64>, String> {
        let known = self.facts.get(name).and_then(|fact| fact.known.clone());
        known.ok_or_else(|| format!("`{name}` is not constant"))
    }

    /// A number of the float type of `like`.
    pub(super) fn scalar(&mut self, like: &str, value: f64) -> Result<String, String> {
        let element = self.fact(like)?.element;
        let data = bytes(element, value)?;
        Ok(self.nodes.constant(element, &[], data))
    }

    /// A constant tensor of the float type of `like`.
    pub(super) fn numbers(&mut self, like: &str, shape: &[usize], values: &[f64]) -> Result<String, String> {
        let element = self.fact(like)?.element;
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if count != Some(values.len()) {
            return Err(format!("{} numbers for {shape:?}", values.len()));
        }
        let mut data = Vec::new();
        for value in values {
            data.extend(bytes(element, *value)?);
        }
        Ok(self.nodes.constant(element, shape, data))
    }

    /// `value · factor`.
    pub(super) fn scale(&mut self, value: &str, like: &str, factor: f64) -> Result<String, String> {
        if factor == 1.0 {
            return Ok(value.to_owned());
        }
        let factor = self.scalar(like, factor)?;
        Ok(self.op("Mul", &[value, &factor]))
    }

    /// `gradient` where `condition` holds, 0 elsewhere.
    pub(super) fn masked(&mut self, condition: &str, gradient: &str, like: &str) -> Result<String, String> {
        let zero = self.scalar(like, 0.0)?;
        Ok(self.op("Where", &[condition, gradient, &zero]))
    }

    /// 1 where two values are equal, 0 elsewhere.
    pub(super) fn equal(&mut self, a: &str, b: &str, like: &str) -> Result<String, String> {
        let same = self.op("Equal", &[a, b]);
        self.number(&same, like)
    }

    /// 1 where a flag is set, 0 elsewhere.
    pub(super) fn number(&mut self, flag: &str, like: &str) -> Result<String, String> {
        let element = self.fact(like)?.element;
        Ok(self.node("Cast", &[flag], vec![int("to", i64::from(element as i32))]))
    }

    pub(super) fn shape_of(&mut self, name: &str) -> String {
        self.op("Shape", &[name])
    }

    /// A list of one extent, taken when the model runs.
    pub(super) fn extent_of(&mut self, name: &str, axis: usize) -> String {
        let shape = self.shape_of(name);
        let axis = i64::try_from(axis).unwrap_or(i64::MAX);
        let (start, end) = (self.nodes.integers(&[axis]), self.nodes.integers(&[axis.saturating_add(1)]));
        self.op("Slice", &[&shape, &start, &end])
    }

    pub(super) fn reshape_like(&mut self, value: &str, of: &str) -> String {
        let shape = self.shape_of(of);
        self.op("Reshape", &[value, &shape])
    }

    /// A reshape to known extents, one of which may be -1.
    pub(super) fn reshape(&mut self, value: &str, shape: &[i64]) -> String {
        let shape = self.nodes.integers(shape);
        self.op("Reshape", &[value, &shape])
    }

    pub(super) fn zeros_like(&mut self, of: &str) -> Result<String, String> {
        let zero = self.scalar(of, 0.0)?;
        let shape = self.shape_of(of);
        Ok(self.op("Expand", &[&zero, &shape]))
    }

    pub(super) fn transpose(&mut self, value: &str, order: &[usize]) -> String {
        self.node("Transpose", &[value], vec![ints("perm", order)])
    }

    /// The values along an axis cut into parts of these extents.
    pub(super) fn split(&mut self, value: &str, axis: usize, extents: &[usize]) -> Vec<String> {
        let outputs: Vec<String> = extents.iter().map(|_| self.nodes.fresh()).collect();
        let mut node = NodeProto {
            op_type: Some("Split".to_owned()),
            name: outputs.first().cloned(),
            input: vec![value.to_owned()],
            output: outputs.clone(),
            attribute: vec![int("axis", i64::try_from(axis).unwrap_or(i64::MAX))],
            ..Default::default()
        };
        if self.opset < 13 {
            node.attribute.push(ints("split", extents));
        } else {
            node.input.push(self.nodes.integers(&crate::proto::build::signed(extents)));
        }
        self.nodes.list.push(node);
        outputs
    }

    /// The sum over axes.
    pub(super) fn sum(&mut self, value: &str, axes: &[usize], keep: bool) -> String {
        self.reduce("ReduceSum", 13, value, axes, keep)
    }

    /// The mean over axes.
    pub(super) fn mean(&mut self, value: &str, axes: &[usize]) -> String {
        self.reduce("ReduceMean", 18, value, axes, true)
    }

    /// Axes are an input since set `since`.
    pub(super) fn reduce(&mut self, operator: &str, since: i64, value: &str, axes: &[usize], keep: bool) -> String {
        let keep = int("keepdims", i64::from(keep));
        if self.opset < since {
            return self.node(operator, &[value], vec![ints("axes", axes), keep]);
        }
        let axes = self.nodes.integers(&crate::proto::build::signed(axes));
        self.node(operator, &[value, &axes], vec![keep])
    }

    /// Axes of extent 1 put in.
    pub(super) fn unsqueeze(&mut self, value: &str, axes: &[usize]) -> String {
        if self.opset < 13 {
            return self.node("Unsqueeze", &[value], vec![ints("axes", axes)]);
        }
        let axes = self.nodes.integers(&crate::proto::build::signed(axes));
        self.op("Unsqueeze", &[value, &axes])
    }

    /// The gradient of `of` from that of what it was broadcast to, which has the shape `from`.
    pub(super) fn unbroadcast(&mut self, gradient: &str, from: &[usize], of: &str) -> Result<String, String> {
        let shape = self.shape(of)?;
        self.shrink(gradient, from, shape, of)
    }

    /// The same for a value of a shape that is known otherwise.
    pub(super) fn shrink(
        &mut self,
        gradient: &str,
        from: &[usize],
        shape: &[usize],
        of: &str,
    ) -> Result<String, String> {
        let lead = from.len().checked_sub(shape.len()).ok_or("a broadcast that loses axes")?;
        let shrunk = from.iter().skip(lead).zip(shape).enumerate().filter(|(_, (f, s))| f != s);
        let axes: Vec<usize> = (0..lead).chain(shrunk.map(|(axis, _)| axis + lead)).collect();
        if axes.is_empty() {
            return Ok(gradient.to_owned());
        }
        let sum = self.sum(gradient, &axes, false);
        Ok(self.reshape_like(&sum, of))
    }
}

/// A number in the form of a tensor's data.
pub(super) fn bytes(element: ElementType, value: f64) -> Result<Vec<u8>, String> {
    Ok(match element {
        ElementType::Float => (value as f32).to_le_bytes().to_vec(),
        ElementType::Double => value.to_le_bytes().to_vec(),
        ElementType::Float16 => f16::from_f64(value).to_le_bytes().to_vec(),
        _ => return Err(format!("no gradients in {}", element.as_str_name())),
    })
}
