//! Unchanged: is a model field by field what it was, but for the constants that a repair names?
//!
//! Invariants: what a repair says about itself is a permission for those places only; where the data of a tensor lies, in
//! the file or beside it, is no part of the model.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use half::{bf16, f16};
use prost::Message;

use super::constants::{bytes, element, element_size, extents};
use super::repaired::Declared;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, type_proto};
use crate::proto::visit;

/// The first difference that is not declared, in words.
pub(super) fn deviation(pruned: &ModelProto, repaired: &ModelProto, declared: &Declared) -> Option<String> {
    let (pruned, repaired) = (without_places(pruned), without_places(repaired));
    let (pruned, repaired) = (pruned.as_ref(), repaired.as_ref());
    let bare = |model: &ModelProto| ModelProto { graph: None, ..model.clone() };
    if !same(&bare(pruned), &bare(repaired)) {
        return Some("its versions, operator sets, functions or metadata are not those of the pruned model".to_owned());
    }
    let (before, after) = match (&pruned.graph, &repaired.graph) {
        (Some(before), Some(after)) => (before, after),
        (None, None) => return None,
        _ => return Some("one of the models has no graph".to_owned()),
    };
    interface(before, after, declared)
        .or_else(|| nodes(before, after, declared))
        .or_else(|| initializers(before, after, declared))
        .or_else(|| unread(after, &declared.added))
}

/// Everything of a graph but nodes and initializers.
fn interface(before: &GraphProto, after: &GraphProto, declared: &Declared) -> Option<String> {
    let parts = after.input.split_at_checked(before.input.len());
    let Some((_, new)) = parts.filter(|(own, _)| own.iter().zip(&before.input).all(|(a, b)| same(a, b))) else {
        return Some("its graph inputs are not those of the pruned model".to_owned());
    };
    // Old files list initializers among the inputs.
    if let Some(input) = new.iter().find(|input| !declared.added.contains_key(input.name())) {
        return Some(format!("it has the new graph input `{}`", input.name()));
    }
    for input in new {
        let constant = after.initializer.iter().find(|t| t.name() == input.name());
        if constant.is_none_or(|t| declared_as(input.r#type.as_ref().and_then(|t| t.value.as_ref())) != header(t)) {
            return Some(format!("the new constant `{}` is declared with another type or shape", input.name()));
        }
    }
    let rest = |graph: &GraphProto| GraphProto {
        name: graph.name.clone(),
        doc_string: graph.doc_string.clone(),
        output: graph.output.clone(),
        value_info: graph.value_info.clone(),
        quantization_annotation: graph.quantization_annotation.clone(),
        sparse_initializer: graph.sparse_initializer.clone(),
        metadata_props: graph.metadata_props.clone(),
        ..GraphProto::default()
    };
    let differs = !same(&rest(before), &rest(after));
    differs.then(|| "its graph outputs, value types or metadata are not those of the pruned model".to_owned())
}

fn header(tensor: &TensorProto) -> Option<(i32, Vec<i64>)> {
    Some((tensor.data_type(), tensor.dims.clone()))
}

fn declared_as(declared: Option<&type_proto::Value>) -> Option<(i32, Vec<i64>)> {
    use crate::proto::onnx::tensor_shape_proto::dimension::Value::DimValue;
    let Some(type_proto::Value::TensorType(tensor)) = declared else { return None };
    let extents = tensor.shape.as_ref()?.dim.iter().map(|d| match d.value {
        Some(DimValue(n)) => Some(n),
        _ => None,
    });
    Some((tensor.elem_type(), extents.collect::<Option<_>>()?))
}

/// Nodes are the same, but for slots that read added constants and the numbers of changed ones.
fn nodes(before: &GraphProto, after: &GraphProto, declared: &Declared) -> Option<String> {
    if before.node.len() != after.node.len() {
        return Some(format!("it has {} nodes instead of {}", after.node.len(), before.node.len()));
    }
    let constants: BTreeSet<&str> = constants_of(before).into_keys().collect();
    for (position, (old, new)) in before.node.iter().zip(&after.node).enumerate() {
        let name = label(old);
        let (mut old, mut new) = (old.clone(), new.clone());
        let (reads, now) = (std::mem::take(&mut old.input), std::mem::take(&mut new.input));
        for slot in 0..reads.len().max(now.len()) {
            let (read, now) = (reads.get(slot).map_or("", |n| n), now.get(slot).map_or("", |n| n));
            if read == now {
                continue;
            }
            if declared.added.get(now) != Some(&(position, slot)) {
                return Some(format!("input {slot} of node `{name}` was `{read}` and is `{now}`"));
            }
            if !read.is_empty() && !constants.contains(read) {
                return Some(format!("input {slot} of node `{name}` was computed as `{read}`, now it is constant"));
            }
        }
        if let Some(output) = constant_of(&old).map(|(output, _)| output.to_owned())
            && declared.changed.contains(&output)
        {
            let change = constant_of(&old).zip(constant_of(&new)).and_then(|((_, old), (_, new))| changed(old, new));
            if let Some(what) = change {
                return Some(format!("constant `{output}` {what}"));
            }
            // What they hold has been looked at; the rest is compared.
            blank(&mut old);
            blank(&mut new);
        }
        if !same(&old, &new) {
            return Some(format!("node `{name}` is not that of the pruned model"));
        }
    }
    None
}

fn label(node: &NodeProto) -> String {
    if node.name().is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name().to_owned() }
}

/// The tensor that a node holds, with the name of what the node makes.
fn constant_of(node: &NodeProto) -> Option<(&str, &TensorProto)> {
    let output = node.output.first().filter(|_| node.input.iter().all(String::is_empty))?;
    Some((output, node.attribute.iter().find(|a| a.name() == "value")?.t.as_ref()?))
}

fn blank(node: &mut NodeProto) {
    for tensor in node.attribute.iter_mut().filter(|a| a.name() == "value").filter_map(|a| a.t.as_mut()) {
        *tensor = without_data(tensor);
    }
}

/// The main graph's constants.
fn constants_of(graph: &GraphProto) -> BTreeMap<&str, &TensorProto> {
    let stored = graph.initializer.iter().map(|t| (t.name(), t));
    stored.chain(graph.node.iter().filter_map(constant_of)).collect()
}

/// Initializers are the same in the same order, then come the added ones.
fn initializers(before: &GraphProto, after: &GraphProto, declared: &Declared) -> Option<String> {
    for (index, old) in before.initializer.iter().enumerate() {
        let name = old.name();
        let Some(new) = after.initializer.get(index).filter(|new| new.name() == name) else {
            return Some(format!("constant `{name}` is gone or stands elsewhere"));
        };
        let what = if declared.changed.contains(name) {
            changed(old, new).or_else(|| {
                let same = same(&without_data(old), &without_data(new));
                (!same).then(|| "has another name, place or metadata".to_owned())
            })
        } else {
            (!same(old, new)).then(|| "has changed, and the repair does not say so".to_owned())
        };
        if let Some(what) = what {
            return Some(format!("constant `{name}` {what}"));
        }
    }
    let taken = names(before);
    let mut seen = BTreeSet::new();
    for new in after.initializer.iter().skip(before.initializer.len()) {
        let name = new.name();
        let what = if !declared.added.contains_key(name) {
            Some("is new, and the repair does not say so".to_owned())
        } else if taken.contains(name) || !seen.insert(name) {
            Some("is new, but its name is taken".to_owned())
        } else {
            unusable(new)
        };
        if let Some(what) = what {
            return Some(format!("constant `{name}` {what}"));
        }
    }
    let missing = declared.added.keys().find(|name| !seen.contains(name.as_str()));
    missing.map(|name| format!("constant `{name}` should have been added and is not there"))
}

/// All names of a graph and of the bodies inside it.
fn names(graph: &GraphProto) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = graph.initializer.iter().map(|t| t.name().to_owned()).collect();
    found.extend(graph.input.iter().map(|i| i.name().to_owned()));
    for node in &graph.node {
        found.extend(node.output.iter().chain(&node.input).cloned());
        for body in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
            found.extend(names(body));
        }
    }
    found
}

/// An added constant that something else reads as well, or that nothing reads.
fn unread(after: &GraphProto, added: &BTreeMap<String, (usize, usize)>) -> Option<String> {
    let mut count: BTreeMap<&str, usize> = added.keys().map(|name| (name.as_str(), 0)).collect();
    fn readers(graph: &GraphProto, count: &mut BTreeMap<&str, usize>) {
        let outputs = graph.output.iter().map(|o| o.name());
        for name in graph.node.iter().flat_map(|n| &n.input).map(String::as_str).chain(outputs) {
            if let Some(count) = count.get_mut(name) {
                *count += 1;
            }
        }
        for body in graph.node.iter().flat_map(|n| &n.attribute).flat_map(|a| a.g.iter().chain(&a.graphs)) {
            readers(body, count);
        }
    }
    readers(after, &mut count);
    let (name, count) = count.into_iter().find(|(_, count)| *count != 1)?;
    Some(format!("the new constant `{name}` is read {count} times instead of once"))
}

/// What is wrong with a constant that may hold other numbers.
fn changed(old: &TensorProto, new: &TensorProto) -> Option<String> {
    if header(old) != header(new) {
        let (was, is) = (header(old)?, header(new)?);
        return Some(format!("had the type and shape {was:?} and has {is:?}"));
    }
    unusable(new)
}

/// Why a tensor cannot hold repaired weights, biases or statistics.
fn unusable(tensor: &TensorProto) -> Option<String> {
    use DataType::*;
    let data = bytes(tensor);
    let count: Option<usize> = extents(tensor).ok().and_then(|e| e.iter().try_fold(1usize, |n, d| n.checked_mul(*d)));
    let size = element_size(tensor).unwrap_or(0);
    if count.and_then(|n| n.checked_mul(size)) != Some(data.len()) {
        return Some("holds data that does not fit its shape".to_owned());
    }
    let finite = match element(tensor) {
        Some(Float) => data.as_chunks::<4>().0.iter().all(|x| f32::from_le_bytes(*x).is_finite()),
        Some(Double) => data.as_chunks::<8>().0.iter().all(|x| f64::from_le_bytes(*x).is_finite()),
        Some(Float16) => data.as_chunks::<2>().0.iter().all(|x| f16::from_le_bytes(*x).is_finite()),
        Some(Bfloat16) => data.as_chunks::<2>().0.iter().all(|x| bf16::from_le_bytes(*x).is_finite()),
        // Numbers that are stored quantised.
        Some(Int8 | Uint8 | Int16 | Uint16 | Int32) => true,
        _ => return Some("is of a type that no repair may change".to_owned()),
    };
    (!finite).then(|| "holds NaN or infinity".to_owned())
}

fn without_data(tensor: &TensorProto) -> TensorProto {
    TensorProto {
        raw_data: None,
        float_data: Vec::new(),
        double_data: Vec::new(),
        int32_data: Vec::new(),
        int64_data: Vec::new(),
        uint64_data: Vec::new(),
        ..tensor.clone()
    }
}

/// Equal as they would be written; what is NaN equals itself.
fn same<M: Message + PartialEq>(a: &M, b: &M) -> bool {
    a == b || a.encode_to_vec() == b.encode_to_vec()
}

/// The model whose tensors do not say in which file their data lies, once it has been read.
fn without_places(model: &ModelProto) -> Cow<'_, ModelProto> {
    let mut copy = model.clone();
    let mut found = false;
    let walked = visit::tensors_mut(&mut copy, &mut |tensor| {
        if tensor.raw_data.is_some() && (tensor.data_location.is_some() || !tensor.external_data.is_empty()) {
            found = true;
            tensor.data_location = None;
            tensor.external_data.clear();
        }
        Ok(())
    });
    if found && walked.is_ok() { Cow::Owned(copy) } else { Cow::Borrowed(model) }
}
