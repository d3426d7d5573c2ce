//! A step: one node on the way back, with the gradients of its outputs.

use super::Gradients;
use crate::proto::onnx::{AttributeProto, NodeProto};

/// What a rule is given.
pub(super) struct Step<'a> {
    pub(super) node: &'a NodeProto,
    /// The gradient of each output; `None` where nobody asks.
    pub(super) gradients: Vec<Option<String>>,
    /// Whether each input needs a gradient.
    pub(super) needs: Vec<bool>,
}

impl<'a> Step<'a> {
    /// The gradient of the only output that may have one.
    pub(super) fn gradient(&self) -> Result<&str, String> {
        if self.gradients.iter().skip(1).any(Option::is_some) {
            return Err("another output than the first is used".to_owned());
        }
        self.gradients.first().and_then(Option::as_deref).ok_or_else(|| "no gradient arrives".to_owned())
    }

    /// An input that must be there.
    pub(super) fn input(&self, slot: usize) -> Result<&'a str, String> {
        self.optional(slot).ok_or_else(|| format!("input {slot} is missing"))
    }

    /// An input that may be left out.
    pub(super) fn optional(&self, slot: usize) -> Option<&'a str> {
        self.node.input.get(slot).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The first output.
    pub(super) fn output(&self) -> Result<&'a str, String> {
        self.node.output.first().map(String::as_str).ok_or_else(|| "the first output is missing".to_owned())
    }

    /// True if an input needs a gradient.
    pub(super) fn needs(&self, slot: usize) -> bool {
        self.needs.get(slot).copied().unwrap_or(false)
    }

    /// The gradient of the first input, and of nothing else.
    pub(super) fn first(&self, gradient: String) -> Gradients {
        Ok(vec![Some(gradient)])
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|a| a.name() == name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i())
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f64 {
        f64::from(self.attribute(name).map_or(default, |a| a.f()))
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> &'a [u8] {
        self.attribute(name).map_or(&[], |a| a.s())
    }
}
