//! Whole cuts against fixtures/rewrite: every model is pruned to half, judged by the independent verifier, and what
//! changed in it is compared with what is expected. A line `#! --allow-approximate --heads prune --head-dims keep` in a
//! case stands for these options.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fmt::Write;

use onnx_mtprune::allocate::{Choice, Rounding};
use onnx_mtprune::engine::Tract;
use onnx_mtprune::functions;
use onnx_mtprune::proto::onnx::{
    AttributeProto, GraphProto, NodeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use onnx_mtprune::proto::tensor;
use onnx_mtprune::prune::{Analysis, Options, PruneConfig};
use onnx_mtprune::report::words;
use onnx_mtprune::text;
use onnx_mtprune::verify::{Outcome, VerifyOptions, verify};

#[test]
fn cuts_and_patches() {
    common::fixtures::check("fixtures/rewrite", |text| {
        let original = text::parse(text).unwrap();
        let inlined = functions::inline(&original);
        let asked = |what: &str| text.lines().filter_map(|l| l.strip_prefix("#!")).any(|l| l.contains(what));
        let choice = |part: &str| {
            let keep = asked(&format!("{part} keep")).then_some(Choice::Keep);
            keep.or(asked(&format!("{part} prune")).then_some(Choice::Prune))
        };
        let (heads, head_dims) = (choice("--heads"), choice("--head-dims"));
        let options = Options { allow_approximate: asked("--allow-approximate"), ..Default::default() };
        let analysis = Analysis::of_inlined(&inlined, &options).unwrap();
        let rounding = Rounding::Multiple(1);
        let config = PruneConfig { ratio: 0.5, rounding, heads, head_dims, ..Default::default() };
        let rewritten = analysis.apply(&analysis.plan(&config).unwrap()).unwrap();
        let pruned = rewritten.output.materialise().unwrap();
        let mut out = changes(original.graph.as_ref().unwrap(), pruned.graph.as_ref().unwrap());
        for group in analysis.groups.iter().filter(|group| group.part.is_some()) {
            writeln!(out, "{} is of {}", group.name, words::part(group.part.unwrap())).unwrap();
        }
        for function in &original.functions {
            let stays = pruned.functions.contains(function);
            writeln!(out, "function {} {}", function.name(), if stays { "stays" } else { "goes" }).unwrap();
        }
        let (altered, approximated) = (rewritten.altered.clone(), rewritten.approximated.clone());
        let options = VerifyOptions { altered, approximated, ..Default::default() };
        let verdict = verify(&original, &pruned, &rewritten.kept, &Tract, &options).unwrap();
        if verdict.approximated > 0 {
            let nodes: Vec<&str> = rewritten.approximated.iter().map(String::as_str).collect();
            writeln!(out, "statistics over what remains: {}", nodes.join(", ")).unwrap();
        }
        match verdict.outcome {
            Outcome::Passed => out += "equals the masked original\n",
            outcome => writeln!(out, "{outcome:?}").unwrap(),
        }
        out
    });
}

/// Constants with another shape or value, new constants, and nodes that are new or read or say something else.
fn changes(before: &GraphProto, after: &GraphProto) -> String {
    let mut out = String::new();
    for (info, old) in after.input.iter().zip(&before.input).filter(|(info, old)| info != old) {
        let dims = |info: &ValueInfoProto| match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
            Some(type_proto::Value::TensorType(tensor)) => tensor.shape.as_ref().map(|shape| {
                let words = |d: &tensor_shape_proto::Dimension| match &d.value {
                    Some(tensor_shape_proto::dimension::Value::DimValue(value)) => value.to_string(),
                    Some(tensor_shape_proto::dimension::Value::DimParam(name)) => name.clone(),
                    None => "?".to_owned(),
                };
                shape.dim.iter().map(words).collect::<Vec<_>>().join(", ")
            }),
            _ => None,
        };
        let [from, to] = [old, info].map(|info| dims(info).unwrap_or_default());
        writeln!(out, "{}: declared [{from}] -> [{to}]", info.name()).unwrap();
    }
    for tensor in &after.initializer {
        let old = before.initializer.iter().find(|t| t.name() == tensor.name());
        if old.is_none_or(|old| old.dims != tensor.dims) {
            let values = tensor::to_i64(tensor).map(|v| format!(" = {v:?}")).unwrap_or_default();
            let from = old.map(|old| format!("{:?} -> ", old.dims)).unwrap_or_default();
            writeln!(out, "{}: {from}{:?}{values}", tensor.name(), tensor.dims).unwrap();
        }
    }
    for tensor in before.initializer.iter().filter(|t| !after.initializer.iter().any(|a| a.name() == t.name())) {
        writeln!(out, "{} is gone", tensor.name()).unwrap();
    }
    let shallow: Vec<NodeProto> = before.node.iter().map(without_bodies).collect();
    for node in &after.node {
        if !shallow.contains(&without_bodies(node)) {
            writeln!(out, "{}", call(&without_bodies(node))).unwrap();
        }
        let Some(old) = before.node.iter().find(|old| old.output == node.output) else { continue };
        for (body, old) in bodies(node).zip(bodies(old)) {
            let changes = changes(old.1, body.1);
            if !changes.is_empty() {
                writeln!(out, "in {} of {}:", body.0, node.output.join(", ")).unwrap();
                changes.lines().for_each(|line| writeln!(out, "  {line}").unwrap());
            }
        }
    }
    out
}

fn bodies(node: &NodeProto) -> impl Iterator<Item = (&str, &GraphProto)> {
    node.attribute.iter().filter_map(|a| Some((a.name(), a.g.as_ref()?)))
}

fn without_bodies(node: &NodeProto) -> NodeProto {
    let mut node = node.clone();
    node.attribute.retain(|a| a.g.is_none());
    node
}

fn call(node: &NodeProto) -> String {
    let attribute = |a: &AttributeProto| {
        let value = match (&a.t, &a.f) {
            (Some(tensor), _) => format!("{:?}", tensor.dims),
            (_, Some(number)) => number.to_string(),
            _ if a.ints.is_empty() => a.i().to_string(),
            _ => format!("{:?}", a.ints),
        };
        format!(", {}={value}", a.name())
    };
    let attributes: String = node.attribute.iter().map(attribute).collect();
    format!("{} = {}({}{attributes})", node.output.join(", "), node.op_type(), node.input.join(", "))
}
