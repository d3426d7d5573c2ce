//! What a rule sees of a node: attributes, shapes, constants and shape arithmetic; never the graph around it.
//!
//! Invariants: read-only but for the symbol table, which rules may extend; accessors return errors or `None`, they
//! never panic, whatever the file holds.

use std::cell::RefCell;

use crate::axes::{Expr, Extent, Space, Symbols};
use crate::graph::Node;
use crate::ops::{Integers, Refusal, Refused};
use crate::proto::onnx::TensorProto;
use crate::proto::tensor;

/// A tensor's extents, axis by axis.
pub type Extents = [Extent];

/// What is known of one input.
#[derive(Clone, Debug, Default)]
pub struct InputView<'a> {
    /// Its extents; `None` if even the rank is unknown.
    pub shape: Option<Vec<Extent>>,
    /// Its value, if it is a constant.
    pub constant: Option<&'a TensorProto>,
    /// Its entries, if it is a small integer tensor of which something is known.
    pub integers: Option<Integers>,
    /// Its axes, while axes are being coupled.
    pub axes: Option<&'a [Expr]>,
}

/// A node as its rule sees it.
pub struct NodeView<'a> {
    /// The node.
    pub node: &'a Node<'a>,
    /// Its inputs by slot; `None` = left out.
    pub inputs: Vec<Option<InputView<'a>>>,
    /// How many of the node's outputs are used or named.
    pub outputs: usize,
    /// The symbols of the analysis.
    pub symbols: &'a RefCell<Symbols>,
    /// The space of the inputs' axes, while axes are being coupled.
    pub space: Option<&'a Space>,
}

impl<'a> NodeView<'a> {
    /// The version of the node's operator set.
    pub fn opset(&self) -> i64 {
        self.node.opset
    }

    /// True if input `slot` is there.
    pub fn has(&self, slot: usize) -> bool {
        self.inputs.get(slot).is_some_and(Option::is_some)
    }

    /// How many input slots the node has, left-out ones included.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Input `slot`.
    pub fn input(&self, slot: usize) -> Option<&InputView<'a>> {
        self.inputs.get(slot).and_then(Option::as_ref)
    }

    /// The extents of input `slot`.
    ///
    /// # Errors
    /// A refusal if the input is left out or its rank is unknown.
    pub fn shape(&self, slot: usize) -> Result<&Extents, Refusal> {
        match self.input(slot) {
            None => Err(Refusal::new(format!("input {slot} is missing"))),
            Some(input) => {
                input.shape.as_deref().ok_or_else(|| Refusal::new(format!("the rank of input {slot} is not known")))
            }
        }
    }

    /// The rank of input `slot`.
    ///
    /// # Errors
    /// As [`NodeView::shape`].
    pub fn rank(&self, slot: usize) -> Result<usize, Refusal> {
        Ok(self.shape(slot)?.len())
    }

    /// The extent of one axis of an input.
    ///
    /// # Errors
    /// A refusal if the input has no such axis.
    pub fn extent(&self, slot: usize, axis: usize) -> Result<Extent, Refusal> {
        let shape = self.shape(slot)?;
        shape.get(axis).cloned().ok_or_else(|| Refusal::new(format!("input {slot} has no axis {axis}")))
    }

    /// True if the axis is known to be locked already.
    pub fn is_locked(&self, slot: usize, axis: usize) -> bool {
        let expr = self.input(slot).and_then(|i| i.axes).and_then(|axes| axes.get(axis));
        expr.zip(self.space).is_some_and(|(expr, space)| space.is_locked(*expr))
    }

    /// An integer attribute, or its default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.node.attribute(name).map_or(default, |a| a.i())
    }

    /// An integer attribute, if given.
    pub fn maybe_int(&self, name: &str) -> Option<i64> {
        self.node.attribute(name).map(|a| a.i())
    }

    /// A float attribute, or its default.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.node.attribute(name).map_or(default, |a| a.f())
    }

    /// A list attribute of integers, if given.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.node.attribute(name).map(|a| a.ints.as_slice())
    }

    /// A list attribute of floats, if given.
    pub fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.node.attribute(name).map(|a| a.floats.as_slice())
    }

    /// A text attribute, or its default.
    pub fn string(&self, name: &str, default: &'static str) -> String {
        self.node.attribute(name).map_or(default.to_owned(), |a| String::from_utf8_lossy(a.s()).into_owned())
    }

    /// The axis attribute `name` (default `default`), counted from the front of a tensor of `rank`.
    ///
    /// # Errors
    /// A refusal if it lies outside the tensor.
    pub fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize, Refusal> {
        normalise_axis(self.int(name, default), rank)
    }

    /// The entries of input `slot` as shape arithmetic knows them.
    pub fn integers(&self, slot: usize) -> Option<&Integers> {
        self.input(slot).and_then(|i| i.integers.as_ref())
    }

    /// The entries of input `slot`, all known.
    pub fn known_integers(&self, slot: usize) -> Option<Vec<i64>> {
        self.integers(slot).and_then(Integers::known)
    }

    /// A list that is attribute `name` in older operator sets and input `slot` in newer ones; `Ok(None)` if neither is
    /// there.
    ///
    /// # Errors
    /// A refusal if the input is computed at run time.
    pub fn list(&self, name: &str, slot: usize) -> Result<Option<Vec<i64>>, Refusal> {
        if let Some(list) = self.ints(name) {
            return Ok(Some(list.to_vec()));
        }
        if !self.has(slot) {
            return Ok(None);
        }
        self.known_integers(slot)
            .map(Some)
            .ok_or_else(|| Refusal::new(format!("`{name}` is computed when the model runs")))
    }

    /// The constant in input `slot`.
    pub fn constant(&self, slot: usize) -> Option<&'a TensorProto> {
        self.input(slot).and_then(|i| i.constant)
    }

    /// The floats of input `slot`, a constant or what shape arithmetic made of constants.
    pub fn known_floats(&self, slot: usize) -> Option<Vec<f32>> {
        if let Some(constant) = self.constant(slot) {
            return tensor::to_f32(constant).ok();
        }
        let entries = self.integers(slot)?;
        let symbols = self.symbols.borrow();
        entries.values.iter().map(|v| v.as_ref().and_then(|v| symbols.as_float(v))).collect()
    }

    /// `f(symbols)`: arithmetic on extents.
    pub fn symbolic<T>(&self, f: impl FnOnce(&mut Symbols) -> T) -> T {
        f(&mut self.symbols.borrow_mut())
    }

    /// An extent that nothing else is known to equal.
    pub fn fresh(&self, hint: &str) -> Extent {
        self.symbolic(|s| s.fresh(hint))
    }
}

/// An axis counted from either end, counted from the front.
///
/// # Errors
/// A refusal if it lies outside a tensor of `rank`.
pub fn normalise_axis(axis: i64, rank: usize) -> Refused<usize> {
    let length = i64::try_from(rank).unwrap_or(i64::MAX);
    let from_front = if axis < 0 { axis.checked_add(length).unwrap_or(-1) } else { axis };
    match usize::try_from(from_front) {
        Ok(axis) if axis < rank => Ok(axis),
        _ => Err(Refusal::new(format!("axis {axis} lies outside a tensor of rank {rank}"))),
    }
}
