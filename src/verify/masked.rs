//! Masked: the reference that a pruned model is compared with, the original with every removed index forced to zero.
//!
//! Constants of floating-point type get zeros in place. An activation is renamed at its producer and comes back under
//! its own name from a `Where(mask, value, 0)`, so that every consumer, captures of nested graphs included, reads the
//! masked value and nothing else changes. `Where` and not a product with the mask, because NaN or infinity in a removed
//! channel would survive a product. Integer constants stay as they are: a zero there need not mean zero (zero points,
//! indices, shapes), and what is computed from them is masked as an activation anyway. A quantised activation gets the
//! stored number that stands for zero, where the kept indices come with one.
//!
//! Masks and zeros are `Constant` nodes, not initializers: before IR version 4 initializers must be listed as inputs.
//! `Where` exists since opset 9; before that a product, or `And` for bool, has to do.
//!
//! Invariants: graph inputs and outputs are never masked; names, order and types of all values stay.

use std::collections::{BTreeMap, BTreeSet};

use super::constants::{element, element_size, extents, for_each_body_mut, for_each_constant_mut, remaining, walk};
use crate::engine::ElementType;
use crate::kept::{Kept, KeptAxes, Zero};
use crate::proto::build::constant;
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::{Error, Result};

/// Element type and extents of every activation that gets smaller, as seen in a run of the original.
pub(super) type Facts = BTreeMap<String, (ElementType, Vec<usize>)>;

/// Builds the masked original.
///
/// # Errors
/// When `kept` does not fit the model: unknown names, indices out of range, graph inputs or outputs that get smaller.
pub(super) fn masked(original: &ModelProto, kept: &Kept, facts: &Facts) -> Result<ModelProto> {
    let mut model = original.clone();
    let opset = super::opset(&model);
    let graph = model.graph.as_mut().ok_or_else(|| Error::input("the model has no graph"))?;
    let mut seen = BTreeSet::new();
    for_each_constant_mut(graph, "", &mut |name, tensor| match kept.constants.get(name) {
        Some(axes) => {
            seen.insert(name.to_string());
            zero(tensor, axes).map_err(|e| e.tensor(name))
        }
        None => Ok(()),
    })?;
    for (kind, infos) in [("input", &graph.input), ("output", &graph.output)] {
        if let Some(info) = infos.iter().find(|i| kept.activations.contains_key(i.name())) {
            return Err(Error::verification(format!("a graph {kind} must not get smaller")).tensor(info.name()));
        }
    }
    let mut masks = Masks { kept, facts, opset, names: all_names(graph), done: BTreeSet::new() };
    masks.graph(graph, "")?;
    let placed = kept.constants.keys().filter(|n| !seen.contains(*n));
    if let Some(name) = placed.chain(kept.activations.keys().filter(|n| !masks.done.contains(*n))).next() {
        return Err(Error::verification("nothing in the original produces a value that gets smaller").tensor(name));
    }
    Ok(model)
}

/// Sets the removed entries of a floating-point constant to zero.
fn zero(tensor: &mut TensorProto, axes: &KeptAxes) -> Result<()> {
    let extents = extents(tensor)?;
    let masks = remaining(axes, &extents)?;
    let is_float = matches!(
        element(tensor),
        Some(ElementType::Float | ElementType::Double | ElementType::Float16 | ElementType::Bfloat16)
    );
    let Some(size) = element_size(tensor).filter(|_| is_float) else { return Ok(()) };
    let mut bytes = super::constants::bytes(tensor).into_owned();
    walk(&extents, &masks, |position, keeps| {
        if !keeps && let Some(place) = bytes.get_mut(position * size..(position + 1) * size) {
            place.fill(0);
        }
    })?;
    tensor.raw_data = Some(bytes.into());
    tensor.float_data.clear();
    tensor.double_data.clear();
    tensor.int32_data.clear();
    Ok(())
}

struct Masks<'k> {
    kept: &'k Kept,
    facts: &'k Facts,
    opset: i64,
    /// Every name in use, so that new ones are new.
    names: BTreeSet<String>,
    done: BTreeSet<String>,
}

impl Masks<'_> {
    fn graph(&mut self, graph: &mut GraphProto, prefix: &str) -> Result<()> {
        let mut nodes = Vec::with_capacity(graph.node.len());
        for mut node in std::mem::take(&mut graph.node) {
            for_each_body_mut(&mut node, prefix, &mut |prefix, inner| self.graph(inner, prefix))?;
            let mut selections = Vec::new();
            for output in &mut node.output {
                let kept = self.kept;
                if let Some((key, axes)) = kept.activations.get_key_value(&format!("{prefix}{output}")) {
                    let name = output.clone();
                    *output = self.fresh(&format!("{name}/unmasked"));
                    selections.extend(self.selection(key, &name, output, axes).map_err(|e| e.tensor(key))?);
                    self.done.insert(key.clone());
                }
            }
            nodes.push(node);
            nodes.extend(selections);
        }
        graph.node = nodes;
        Ok(())
    }

    /// The nodes that compute `name` from `unmasked`: one selection for every axis that gets smaller. `key` is the name
    /// with the prefix of its body.
    fn selection(&mut self, key: &str, name: &str, unmasked: &str, axes: &KeptAxes) -> Result<Vec<NodeProto>> {
        let Some((element, extents)) = self.facts.get(key) else {
            let extents = self.kept.extents.get(key);
            let missing = || Error::verification("the original has no such activation, or its shape is not known");
            let extents = extents.filter(|e| e.len() == axes.len()).ok_or_else(missing)?;
            if self.kept.zeros.contains_key(key) {
                return Err(Error::verification("a zero point inside a body is not understood"));
            }
            let opset = self.opset;
            return super::nested::selection(name, unmasked, axes, extents, opset, &mut |wish| self.fresh(wish));
        };
        let masks = remaining(axes, extents)?;
        let n = axes.iter().flatten().count();
        if n == 0 {
            return Err(Error::verification("an activation is listed as smaller, but keeps everything"));
        }
        let mut nodes = Vec::new();
        let mut value = unmasked.to_string();
        let shrunk = axes.iter().zip(masks).enumerate().filter(|(_, (axis, _))| axis.is_some());
        for (done, (axis, (_, mask))) in shrunk.enumerate() {
            let mut dims = vec![1i64; extents.len()];
            if let Some(extent) = dims.get_mut(axis) {
                *extent = i64::try_from(mask.len()).map_err(|_| Error::input("an axis is too long"))?;
            }
            let output = if done + 1 == n { name.to_string() } else { self.fresh(&format!("{name}/masked_{axis}")) };
            let mask_name = self.fresh(&format!("{name}/mask_{axis}"));
            // The mask as bool, or as numbers of the value's own type where it is multiplied in.
            let by_product = self.opset < 9 && *element != ElementType::Bool;
            let mask_element = if by_product { *element } else { ElementType::Bool };
            let data = mask.iter().flat_map(|keeps| one_or_zero(mask_element, *keeps)).collect::<Vec<u8>>();
            nodes.push(constant(&mask_name, mask_element, dims, data));
            let (operator, inputs) = if self.opset >= 9 {
                let zero_name = match self.kept.zeros.get(key) {
                    Some(Zero::Activation(zero)) => {
                        // Only what is quantised has another zero than 0.
                        integer(*element, 0)?;
                        zero.clone()
                    }
                    other => {
                        let zero_name = self.fresh(&format!("{name}/zero_{axis}"));
                        let data = match other {
                            Some(Zero::Number(number)) => integer(*element, *number)?,
                            _ => one_or_zero(*element, false),
                        };
                        nodes.push(constant(&zero_name, *element, vec![], data));
                        zero_name
                    }
                };
                ("Where", vec![mask_name, value, zero_name])
            } else if self.kept.zeros.contains_key(key) {
                return Err(Error::verification("a zero point before operator set 9 is not understood"));
            } else {
                (if by_product { "Mul" } else { "And" }, vec![value, mask_name])
            };
            // Exporters like to name a node after its output, and runtimes want node names that differ.
            let node_name = self.fresh(&format!("{name}/select_{axis}"));
            nodes.push(NodeProto {
                op_type: Some(operator.into()),
                name: Some(node_name),
                input: inputs,
                output: vec![output.clone()],
                ..Default::default()
            });
            value = output;
        }
        Ok(nodes)
    }

    fn fresh(&mut self, wish: &str) -> String {
        let mut name = wish.to_string();
        let mut n = 1u64;
        while !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{wish}_{n}");
        }
        name
    }
}

/// The bytes of the number one or zero.
fn one_or_zero(element: ElementType, one: bool) -> Vec<u8> {
    let size = match element {
        ElementType::Bool | ElementType::Int8 | ElementType::Uint8 => 1,
        ElementType::Float16 | ElementType::Bfloat16 | ElementType::Int16 | ElementType::Uint16 => 2,
        ElementType::Float | ElementType::Int32 | ElementType::Uint32 => 4,
        _ => 8,
    };
    match (one, element) {
        (false, _) => vec![0; size],
        (true, ElementType::Float) => 1f32.to_le_bytes().to_vec(),
        (true, ElementType::Double) => 1f64.to_le_bytes().to_vec(),
        (true, ElementType::Float16) => half::f16::ONE.to_le_bytes().to_vec(),
        (true, ElementType::Bfloat16) => half::bf16::ONE.to_le_bytes().to_vec(),
        (true, _) => 1u64.to_le_bytes().into_iter().take(size).collect(),
    }
}

/// The bytes of an integer.
fn integer(element: ElementType, number: i64) -> Result<Vec<u8>> {
    let size = match element {
        ElementType::Int8 | ElementType::Uint8 => 1,
        ElementType::Int16 | ElementType::Uint16 => 2,
        ElementType::Int32 | ElementType::Uint32 => 4,
        ElementType::Int64 | ElementType::Uint64 => 8,
        _ => return Err(Error::verification("a value that is no integer is given a zero point")),
    };
    Ok(number.to_le_bytes().into_iter().take(size).collect())
}

/// The names of all values and nodes, at every depth.
pub(super) fn all_names(graph: &GraphProto) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = graph.initializer.iter().map(|t| t.name().to_string()).collect();
    names.extend(graph.input.iter().map(|i| i.name().to_string()));
    for node in &graph.node {
        names.insert(node.name().to_string());
        names.extend(node.input.iter().chain(&node.output).cloned());
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|inner| names.extend(all_names(inner)));
        }
    }
    names
}
