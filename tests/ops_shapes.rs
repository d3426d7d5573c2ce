//! The shapes that the rules give to real models against those that the files declare, and what remains opaque.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use onnx_mtprune::coupling::Coupling;
use onnx_mtprune::graph::{Graph, Source};
use onnx_mtprune::proto::onnx::{ModelProto, tensor_shape_proto::dimension::Value, type_proto};
use onnx_mtprune::proto::read;

#[test]
fn shapes_agree_with_what_files_declare() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models");
    if !folder.is_dir() {
        common::skipped(&format!("{} is not there", folder.display()));
        return;
    }
    let (mut compared, mut wrong) = (0, Vec::new());
    for path in onnx_files(&folder) {
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        let file = read(&path).unwrap();
        let graph = Graph::new(&file.model).unwrap();
        let coupling = Coupling::of(&graph);
        let declared = declared(&file.model);
        for id in graph.value_ids() {
            let value = graph.value(id);
            // What an opaque node gives is the declaration itself.
            let Source::Node(producer, _) = value.source else { continue };
            if coupling.opaque[producer.0 as usize].is_some() {
                continue;
            }
            let (Some(own), Some(file)) = (coupling.shape(id), declared.get(value.name)) else { continue };
            let own: Vec<Option<i64>> = own.iter().map(|e| e.value()).collect();
            compared += 1;
            let contradicts = |(a, b): (&Option<i64>, &Option<i64>)| a.is_some() && b.is_some() && a != b;
            if own.len() != file.len() || own.iter().zip(file).any(contradicts) {
                wrong.push(format!("{name}: {}: {own:?}, declared {file:?}", value.name));
            }
        }
        println!("{name}: {} nodes{}", graph.nodes.len(), opaque(&graph, &coupling));
    }
    println!("{compared} shapes compared");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 0, "no model under {} declares a shape", folder.display());
}

/// How many nodes are opaque, by operator and reason.
fn opaque(graph: &Graph, coupling: &Coupling) -> String {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (node, why) in graph.nodes.iter().zip(&coupling.opaque) {
        if let Some(why) = why {
            *reasons.entry(format!("{}: {why}", node.op_type())).or_default() += 1;
        }
    }
    let all: usize = reasons.values().sum();
    let list: Vec<String> = reasons.into_iter().map(|(reason, n)| format!("\n    {n} {reason}")).collect();
    format!(", {all} opaque{}", list.concat())
}

/// Shapes of `value_info` and outputs; `None` where an extent is no number.
fn declared(model: &ModelProto) -> BTreeMap<&str, Vec<Option<i64>>> {
    let graph = model.graph.as_ref().unwrap();
    let mut shapes = BTreeMap::new();
    for info in graph.value_info.iter().chain(&graph.output) {
        let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            continue;
        };
        let Some(shape) = &tensor.shape else { continue };
        let extent = |value: &Option<Value>| match value {
            Some(Value::DimValue(n)) if *n > 0 => Some(*n),
            _ => None,
        };
        shapes.insert(info.name(), shape.dim.iter().map(|d| extent(&d.value)).collect());
    }
    shapes
}

fn onnx_files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(onnx_files(&path));
        } else if path.extension().is_some_and(|e| e == "onnx") {
            files.insert(path);
        }
    }
    files
}
