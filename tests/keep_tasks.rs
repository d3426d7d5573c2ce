//! Tasks kept alone: every multi-task model that is there, each output bit by bit what it was, and bodies of `If`.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use onnx_mtprune::engine::inputs::input_shapes;
use onnx_mtprune::engine::samples::random_feeds;
use onnx_mtprune::engine::{Engine, Feeds, Tract, Value, run_once};
use onnx_mtprune::extract::extract;
use onnx_mtprune::graph::Graph;
use onnx_mtprune::proto::onnx::{GraphProto, ModelProto};
use onnx_mtprune::proto::{self, WriteOptions};
use onnx_mtprune::prune::Analysis;
use onnx_mtprune::tasks::Tasks;
use rayon::prelude::*;

fn names<'m>(list: impl Iterator<Item = &'m str>) -> Vec<String> {
    list.map(str::to_owned).collect()
}

/// What a graph with bodies holds that feeds no output of it.
fn dead(graph: &GraphProto) -> Vec<String> {
    let mut needed: BTreeSet<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
    let mut dead: Vec<String> = Vec::new();
    let mut alive = vec![false; graph.node.len()];
    loop {
        let before = needed.len();
        for (node, alive) in graph.node.iter().zip(&mut alive) {
            if node.output.iter().any(|name| needed.contains(name)) {
                *alive = true;
                reads(node, &mut needed);
            }
        }
        if needed.len() == before {
            break;
        }
    }
    for (node, _) in graph.node.iter().zip(&alive).filter(|(_, alive)| !**alive) {
        dead.push(format!("node {}", node.output.join(",")));
    }
    for node in &graph.node {
        for body in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
            dead.extend(self::dead(body).into_iter().filter(|what| what.starts_with("node")));
        }
    }
    dead.extend(graph.initializer.iter().map(|t| t.name().to_owned()).filter(|name| !needed.contains(name)));
    dead
}

fn reads(node: &onnx_mtprune::proto::onnx::NodeProto, names: &mut BTreeSet<String>) {
    names.extend(node.input.iter().cloned());
    for body in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
        names.extend(body.output.iter().map(|o| o.name().to_owned()));
        body.node.iter().for_each(|node| reads(node, names));
    }
}

/// What an engine makes of an output, from the first made-up inputs that it runs with.
fn ran(engine: &dyn Engine, model: &ModelProto, output: &str) -> Result<(Feeds, Value), String> {
    let mut reason = "no inputs".to_owned();
    for facts in input_shapes(model, &Default::default()).map_err(|e| e.to_string())? {
        let feeds = random_feeds(&facts, 7).map_err(|e| e.to_string())?;
        match run_once(engine, model, &feeds, &[output.to_owned()]) {
            Ok(mut values) => return Ok((feeds, values.remove(0))),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

/// The outcome of one task of one model, as a line, and which engine compared bits.
fn alone(path: &Path, model: &ModelProto, output: &str, folder: &Path) -> (String, Option<&'static str>) {
    let name = format!("{} {output}", path.display());
    let extracted = extract(model, &[output.to_owned()]).unwrap_or_else(|e| panic!("{name}: {e}"));
    let graph = extracted.model.graph.as_ref().unwrap();
    assert_eq!(dead(graph), Vec::<String>::new(), "{name}");
    assert_eq!(names(graph.output.iter().map(|o| o.name())), [output], "{name}");
    let out = folder.join(format!("{}.onnx", output.replace(['/', ':'], "_")));
    let written = proto::Output { model: extracted.model.clone(), ..Default::default() };
    let bytes = proto::write(&written, &out, &WriteOptions::default()).unwrap();
    let whole =
        proto::write(&proto::Output { model: model.clone(), ..Default::default() }, &out, &WriteOptions::default());
    assert!(bytes < whole.unwrap(), "{name} is not smaller");
    // The engines: what tract cannot run, ONNX Runtime may. Both get the inputs of the whole model.
    let runtime = common::runtimes::library()
        .map(|library| onnx_mtprune::engine::OnnxRuntime::load(&library, onnx_mtprune::engine::Device::Cpu).unwrap());
    let engines: Vec<&dyn Engine> =
        std::iter::once(&Tract as &dyn Engine).chain(runtime.iter().map(|r| r as _)).collect();
    let mut reasons = Vec::new();
    for engine in engines {
        match ran(engine, model, output) {
            Ok((feeds, expected)) => {
                let found = run_once(engine, &extracted.model, &feeds, &[output.to_owned()]);
                let found =
                    found.unwrap_or_else(|e| panic!("{name}: the part does not run with {}: {e}", engine.name()));
                assert!(found[0] == expected, "{name} differs with {}", engine.name());
                let parameters = |model: &ModelProto| -> i64 {
                    let tensors = model.graph.iter().flat_map(|g| &g.initializer);
                    tensors.map(|t| t.dims.iter().product::<i64>()).sum()
                };
                let (before, after) = (parameters(model), parameters(&extracted.model));
                let line = format!("{name}: initializers {before} -> {after}, {}", engine.name());
                return (line, Some(engine.name()));
            }
            Err(reason) => reasons.push(format!("{}: {reason}", engine.name())),
        }
    }
    (format!("{name}: no engine runs it: {reasons:?}"), None)
}

#[test]
fn every_task_of_every_model_alone_is_what_it_was_bit_by_bit() {
    let own = common::runtimes::models("onnx-models");
    assert!(own.len() >= 3, "the project's own models are missing");
    let all: Vec<PathBuf> = own.into_iter().chain(common::runtimes::models("../shared/models")).collect();
    let found: Vec<(String, Option<&'static str>)> = all
        .par_iter()
        .flat_map_iter(|path| {
            let file = proto::read(path).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let outputs = names(file.model.graph.as_ref().unwrap().output.iter().map(|o| o.name()));
            let outputs = if outputs.len() > 1 { outputs } else { Vec::new() };
            outputs.iter().map(|output| alone(path, &file.model, output, folder.path())).collect::<Vec<_>>()
        })
        .collect();
    found.iter().for_each(|(line, _)| println!("{line}"));
    let judged = found.iter().filter(|(_, engine)| engine.is_some()).count();
    println!("{} tasks, {judged} compared bit by bit", found.len());
    assert!(found.len() >= 9 && judged * 20 >= found.len() * 19, "{judged} of {}", found.len());
}

#[test]
fn branches_of_if_lose_what_nobody_reads() {
    let model = onnx_mtprune::proto::onnx::ModelProto::clone(&with_if());
    let extracted = extract(&model, &["y".to_owned()]).unwrap();
    let graph = extracted.model.graph.as_ref().unwrap();
    assert_eq!(graph.node.len(), 2);
    let branches: Vec<&GraphProto> =
        graph.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.g.as_ref()).collect();
    assert!(branches.iter().all(|branch| branch.node.len() == 1 && branch.output.len() == 1), "{branches:?}");
    // Only the second output's branches read this.
    assert_eq!(names(graph.initializer.iter().map(|t| t.name())), ["half"]);
    let tasks = Tasks::of(&Graph::new(&extracted.model).unwrap(), &[]).unwrap();
    assert_eq!(tasks.tasks.len(), 1);
    let whole = Analysis::of(&model, &[]).unwrap();
    assert_eq!(whole.tasks.tasks.len(), 2);
    let (feeds, expected) = ran(&Tract, &model, "y").unwrap();
    assert_eq!(run_once(&Tract, &extracted.model, &feeds, &["y".to_owned()]).unwrap()[0], expected);
}

/// Two outputs of one node with branches, each read by a task of its own.
fn with_if() -> ModelProto {
    use onnx_mtprune::proto::onnx::attribute_proto::AttributeType;
    use onnx_mtprune::proto::onnx::{AttributeProto, NodeProto, ValueInfoProto};
    let mut model = onnx_mtprune::text::parse(
        "in c [1]
         in x [1,4]
         s = Mul(x, half[4])
         o = Add(x, other[4])
         m = Sigmoid(s)
         y = Relu(m)
         z = Relu(o)
         out y, z",
    )
    .unwrap();
    let graph = model.graph.as_mut().unwrap();
    let node = |op: &str, input: &[&str], output: &str| NodeProto {
        op_type: Some(op.to_owned()),
        input: input.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    };
    let branch = |first: &str, second: &str, mark: &str| {
        let (p, q) = (format!("{mark}p"), format!("{mark}q"));
        let output = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..Default::default() };
        GraphProto {
            name: Some(mark.to_owned()),
            node: vec![node(first, &["x", "half"], &p), node(second, &["x", "other"], &q)],
            output: vec![output(&p), output(&q)],
            ..Default::default()
        }
    };
    let held = |name: &str, body: GraphProto| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(body),
        ..Default::default()
    };
    let choice = NodeProto {
        op_type: Some("If".to_owned()),
        name: Some("choice".to_owned()),
        input: vec!["c".to_owned()],
        output: vec!["u".to_owned(), "v".to_owned()],
        attribute: vec![held("then_branch", branch("Mul", "Add", "t")), held("else_branch", branch("Sub", "Mul", "e"))],
        ..Default::default()
    };
    graph.node = vec![choice, node("Relu", &["u"], "y"), node("Relu", &["v"], "z")];
    if let Some(input) = graph.input.first_mut().and_then(|i| i.r#type.as_mut())
        && let Some(onnx_mtprune::proto::onnx::type_proto::Value::TensorType(tensor)) = &mut input.value
    {
        tensor.elem_type = Some(9);
    }
    model
}
