//! Compose: an operator that is defined by others gets its gradient through them. A rule writes the definition down, and
//! the walk goes back over what was written.
//!
//! Invariants: the node itself stays as it is; what its definition computes again belongs to the backward pass. Shapes
//! are worked out while the definition is written.

use super::Gradients;
use super::context::Context;
use super::facts::{Fact, Facts};
use super::step::Step;
use super::walk::Walk;
use crate::engine::ElementType;
use crate::proto::build::{Nodes, int};
use crate::proto::onnx::AttributeProto;

/// A definition that is being written.
pub(super) struct Composition<'c, 'a> {
    context: &'c mut Context<'a>,
    facts: Facts,
    /// Where the nodes of the definition begin.
    start: usize,
    /// By slot: the name that the definition reads an input by.
    inputs: Vec<Option<String>>,
}

impl<'c, 'a> Composition<'c, 'a> {
    /// The inputs of a step, each under a name of its own, because one value may stand in several slots.
    pub(super) fn new(step: &Step, context: &'c mut Context<'a>) -> Self {
        let start = context.nodes.list.len();
        let (mut facts, mut inputs) = (Facts::new(), Vec::new());
        for slot in 0..step.node.input.len() {
            let known = step.optional(slot).and_then(|name| Some((name, context.facts.get(name)?)));
            inputs.push(known.map(|(name, fact)| {
                let own = context.op("Identity", &[name]);
                facts.insert(own.clone(), fact.clone());
                own
            }));
        }
        Self { context, facts, start, inputs }
    }

    /// An input that must be there.
    pub(super) fn input(&self, slot: usize) -> Result<String, String> {
        self.optional(slot).ok_or_else(|| format!("input {slot} is missing"))
    }

    /// An input that may be left out.
    pub(super) fn optional(&self, slot: usize) -> Option<String> {
        self.inputs.get(slot).cloned().flatten()
    }

    pub(super) fn shape(&self, name: &str) -> Result<Vec<usize>, String> {
        Ok(self.facts.get(name).ok_or_else(|| format!("the shape of `{name}` is not known"))?.shape.clone())
    }

    /// The type of a value.
    pub(super) fn element(&self, name: &str) -> Result<ElementType, String> {
        Ok(self.facts.get(name).ok_or_else(|| format!("the type of `{name}` is not known"))?.element)
    }

    /// The context, for what needs no gradient.
    pub(super) fn context(&mut self) -> &mut Context<'a> {
        self.context
    }

    /// Says what is known of a value that was written past the definition.
    pub(super) fn know(&mut self, name: &str, like: &str, shape: Vec<usize>) {
        if let Some(element) = self.facts.get(like).map(|fact| fact.element) {
            self.facts.insert(name.to_owned(), Fact::new(element, &shape));
        }
    }

    /// A node whose output has the type of its first input.
    pub(super) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
        shape: Vec<usize>,
    ) -> String {
        let name = self.context.node(operator, inputs, attributes);
        self.know(&name, inputs.first().copied().unwrap_or_default(), shape);
        name
    }

    /// A function of one value, element by element.
    pub(super) fn map(&mut self, operator: &str, x: &str) -> Result<String, String> {
        let shape = self.shape(x)?;
        Ok(self.node(operator, &[x], Vec::new(), shape))
    }

    /// A function of two values, with broadcasting.
    pub(super) fn join(&mut self, operator: &str, a: &str, b: &str) -> Result<String, String> {
        let shape = broadcast(&self.shape(a)?, &self.shape(b)?);
        Ok(self.node(operator, &[a, b], Vec::new(), shape))
    }

    /// `x · factor`.
    pub(super) fn scale(&mut self, x: &str, factor: f64) -> Result<String, String> {
        let factor = self.number(x, factor)?;
        self.join("Mul", x, &factor)
    }

    /// A number of the type of a value.
    pub(super) fn number(&mut self, like: &str, value: f64) -> Result<String, String> {
        let fact = self.facts.get(like).ok_or("a value that is not known")?.clone();
        let data = super::context::bytes(fact.element, value)?;
        let name = self.context.nodes.constant(fact.element, &[], data);
        self.facts.insert(name.clone(), Fact::new(fact.element, &[]));
        Ok(name)
    }

    /// A constant tensor of the type of a value.
    pub(super) fn constant(&mut self, like: &str, shape: &[usize], values: &[f64]) -> Result<String, String> {
        let fact = self.facts.get(like).ok_or("a value that is not known")?.clone();
        let mut data = Vec::new();
        for value in values {
            data.extend(super::context::bytes(fact.element, *value)?);
        }
        let name = self.context.nodes.constant(fact.element, shape, data);
        self.facts.insert(name.clone(), Fact::new(fact.element, shape));
        Ok(name)
    }

    pub(super) fn matmul(&mut self, a: &str, b: &str) -> Result<String, String> {
        let (left, right) = (self.shape(a)?, self.shape(b)?);
        let (Some((lead, [rows, _])), Some((other, [_, columns]))) =
            (left.split_last_chunk::<2>(), right.split_last_chunk::<2>())
        else {
            return Err("a product of what are no matrices".to_owned());
        };
        let shape = [&broadcast(lead, other)[..], &[*rows, *columns]].concat();
        Ok(self.node("MatMul", &[a, b], Vec::new(), shape))
    }

    pub(super) fn transpose(&mut self, x: &str, order: &[usize]) -> Result<String, String> {
        let before = self.shape(x)?;
        let shape = order.iter().filter_map(|axis| before.get(*axis)).copied().collect();
        let name = self.context.transpose(x, order);
        self.know(&name, x, shape);
        Ok(name)
    }

    /// A reshape to `target`, in which 0 keeps an extent, to what is `shape` where it was measured.
    pub(super) fn reshape(&mut self, x: &str, target: &[i64], shape: Vec<usize>) -> String {
        let name = self.context.reshape(x, target);
        self.know(&name, x, shape);
        name
    }

    /// The values along an axis cut into equal parts.
    pub(super) fn split(&mut self, x: &str, axis: usize, parts: usize) -> Result<Vec<String>, String> {
        let mut shape = self.shape(x)?;
        let extent = shape.get_mut(axis).ok_or("an axis that is not there")?;
        let each = extent.checked_div(parts).filter(|n| n * parts == *extent).ok_or("parts that are not equal")?;
        *extent = each;
        let names = self.context.split(x, axis, &vec![each; parts]);
        names.iter().for_each(|name| self.know(name, x, shape.clone()));
        Ok(names)
    }

    /// The values along an axis cut into parts of these extents.
    pub(super) fn split_into(&mut self, x: &str, axis: usize, extents: &[usize]) -> Result<Vec<String>, String> {
        let shape = self.shape(x)?;
        if shape.get(axis).copied() != extents.iter().try_fold(0usize, |n, d| n.checked_add(*d)) {
            return Err("parts that do not fit".to_owned());
        }
        let names = self.context.split(x, axis, extents);
        for (name, extent) in names.iter().zip(extents) {
            let part = shape.iter().enumerate().map(|(place, n)| if place == axis { *extent } else { *n }).collect();
            self.know(name, x, part);
        }
        Ok(names)
    }

    pub(super) fn concat(&mut self, parts: &[String], axis: usize) -> Result<String, String> {
        let mut shape = self.shape(parts.first().ok_or("nothing to put together")?)?;
        let mut whole = 0;
        for part in parts {
            whole += self.shape(part)?.get(axis).copied().unwrap_or(0);
        }
        shape.iter_mut().skip(axis).take(1).for_each(|extent| *extent = whole);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(self.node("Concat", &parts, vec![int("axis", i64::try_from(axis).unwrap_or(0))], shape))
    }

    /// Axes of extent 1 put in, counted in the result, in rising order.
    pub(super) fn unsqueeze(&mut self, x: &str, axes: &[usize]) -> Result<String, String> {
        let mut shape = self.shape(x)?;
        axes.iter().for_each(|axis| shape.insert((*axis).min(shape.len()), 1));
        let name = self.context.unsqueeze(x, axes);
        self.know(&name, x, shape);
        Ok(name)
    }

    /// The gradients of the inputs, where `results` are what the definition says the node's outputs are.
    pub(super) fn gradients(self, step: &Step, results: &[Option<String>]) -> Gradients {
        let Self { context, facts, start, inputs } = self;
        let written = context.nodes.list.get(start..).unwrap_or_default().to_vec();
        let constants = super::backward::constants_of(&written).into_iter().chain(
            // Settings may be constants of the model.
            step.node.input.iter().filter_map(|name| Some((name.as_str(), *context.constants.get(name.as_str())?))),
        );
        let constants = constants.collect();
        let nodes = std::mem::replace(&mut context.nodes, Nodes::new("backward", Default::default()));
        let wanted: Vec<String> = inputs
            .iter()
            .enumerate()
            .filter(|(slot, _)| step.needs(*slot))
            .filter_map(|(_, name)| name.clone())
            .collect();
        let inner = Context { nodes, facts: &facts, constants, opset: context.opset };
        let mut walk = Walk::new(inner, &written, &wanted);
        for (gradient, result) in step.gradients.iter().zip(results) {
            if let (Some(gradient), Some(result)) = (gradient, result) {
                walk.add(result, gradient.clone());
            }
        }
        written.iter().rev().for_each(|node| walk.pass(node));
        let mut found = Vec::new();
        for (slot, name) in inputs.iter().enumerate() {
            let name = name.as_ref().filter(|_| step.needs(slot));
            found.push(match name {
                Some(name) => match walk.gradient(name) {
                    Some(gradient) => Some(gradient),
                    None => walk.context.zeros_like(name).ok(),
                },
                None => None,
            });
        }
        let stopped = walk.stopped.first().map(|stop| format!("{}: {}", stop.operator, stop.reason));
        context.nodes = std::mem::replace(&mut walk.context.nodes, Nodes::new("backward", Default::default()));
        match stopped {
            Some(reason) => Err(reason),
            None => Ok(found),
        }
    }
}

/// The shape that two shapes are broadcast to.
fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let extent = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(rank).and_then(|at| shape.get(at)).copied().unwrap_or(1)
    };
    let one = |a: usize, b: usize| if a == 1 { b } else { a };
    (0..rank).map(|axis| one(extent(a, axis), extent(b, axis))).collect()
}
