//! Tasks kept alone, tasks with ratios of their own, and protected tasks: the real program, and every multi-task model
//! that is there.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::program::Folder;
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
use serde_json::Value as Json;

/// Three tasks: two on halves of the trunk, one of which takes an input of its own, and one on all of it.
const THREE: &str = "opset 13
    in x [1,3,8,8]
    in offset [1,2,8,8]
    t = Conv(x, trunk[12,3,3,3], trunk_bias[12], pads=[1,1,1,1])
    r = Relu(t)
    p, q = Split(r, {4,8}, axis=1)
    a1 = Conv(p, a_weight[8,4,1,1])
    a = Conv(a1, a_head[2,8,1,1])
    b1 = Conv(q, b_weight[6,8,1,1])
    b2 = Conv(b1, b_head[2,6,1,1])
    b = Add(b2, offset)
    c1 = Conv(r, c_weight[10,12,1,1])
    c = Conv(c1, c_head[3,10,1,1])
    out a, b, c";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.model("model.onnx", THREE);
    folder
}

fn json(folder: &Folder, name: &str) -> Json {
    serde_json::from_slice(&folder.bytes(name)).unwrap()
}

fn dims(model: &ModelProto, name: &str) -> Vec<i64> {
    let found = model.graph.as_ref().unwrap().initializer.iter().find(|tensor| tensor.name() == name);
    found.unwrap_or_else(|| panic!("{name} is gone")).dims.clone()
}

fn names<'m>(list: impl Iterator<Item = &'m str>) -> Vec<String> {
    list.map(str::to_owned).collect()
}

#[test]
fn a_task_alone_needs_no_ratio() {
    let folder = folder();
    let page =
        folder.succeed(&["model.onnx", "a.onnx", "--keep-tasks", "a", "--report", "r.json", "--plan-out", "p.json"]);
    assert!(page.contains("b + c went with"), "{page}");
    assert!(page.contains("inputs that nobody else reads: offset; 8 channels that nobody else reads"), "{page}");
    let model = folder.read("a.onnx");
    let graph = model.graph.as_ref().unwrap();
    assert_eq!(names(graph.input.iter().map(|i| i.name())), ["x"]);
    assert_eq!(names(graph.output.iter().map(|o| o.name())), ["a"]);
    assert_eq!(dims(&model, "trunk"), [4, 3, 3, 3]);
    assert_eq!(dims(&model, "trunk_bias"), [4]);
    assert_eq!(dims(&model, "a_weight"), [8, 4, 1, 1]);
    let report = json(&folder, "r.json");
    assert_eq!(report["verification"]["outcome"], "passed");
    assert_eq!(report["dropped"]["tasks"], serde_json::json!(["b", "c"]));
    assert_eq!(report["dropped"]["inputs"], serde_json::json!(["offset"]));
    // 12·27 + 12 + 32 + 16 + 48 + 12 + 120 + 30, and 4·27 + 4 + 32 + 16.
    assert_eq!(report["parameters"], serde_json::json!({ "before": 594, "after": 160 }));
    folder.succeed(&["verify", "model.onnx", "a.onnx", "--plan", "p.json"]);
    folder.succeed(&["model.onnx", "again.onnx", "--plan", "p.json"]);
    assert_eq!(folder.bytes("a.onnx"), folder.bytes("again.onnx"));
}

#[test]
fn tasks_are_kept_and_pruned_at_once() {
    let folder = folder();
    folder.succeed(&["model.onnx", "ab.onnx", "--keep-tasks", "b,a", "--ratio", "0.5", "--plan-out", "p.json"]);
    let model = folder.read("ab.onnx");
    assert_eq!(names(model.graph.as_ref().unwrap().output.iter().map(|o| o.name())), ["a", "b"]);
    assert_eq!(dims(&model, "trunk"), [6, 3, 3, 3]);
    assert_eq!(dims(&model, "b_weight"), [3, 4, 1, 1]);
    folder.succeed(&["verify", "model.onnx", "ab.onnx", "--plan", "p.json"]);
    folder.succeed(&["model.onnx", "again.onnx", "--plan", "p.json"]);
    assert_eq!(folder.bytes("ab.onnx"), folder.bytes("again.onnx"));
    // Everything is kept: nothing changes.
    folder.succeed(&["model.onnx", "all.onnx", "--keep-tasks", "a,b,c"]);
    assert_eq!(folder.bytes("all.onnx"), folder.bytes("model.onnx"));
    // Several outputs as one task.
    folder.succeed(&["model.onnx", "two.onnx", "--task", "halves=a,b", "--keep-tasks", "halves", "--ratio", "0.5"]);
    assert_eq!(folder.bytes("two.onnx"), folder.bytes("ab.onnx"));
}

#[test]
fn a_wrong_part_is_not_accepted() {
    let folder = folder();
    folder.succeed(&["model.onnx", "a.onnx", "--keep-tasks", "a", "--plan-out", "p.json"]);
    let mut model = folder.read("a.onnx");
    let graph = model.graph.as_mut().unwrap();
    graph.node.last_mut().unwrap().input[0] = "p".to_owned();
    graph.initializer.iter_mut().find(|t| t.name() == "a_head").unwrap().dims = vec![4, 4, 1, 1];
    folder.proto("wrong.onnx", &model);
    folder.fail(1, &["verify", "model.onnx", "wrong.onnx", "--plan", "p.json"]);
    // Another task's output under the name.
    folder.succeed(&["model.onnx", "b.onnx", "--keep-tasks", "b"]);
    folder.fail(1, &["verify", "model.onnx", "b.onnx", "--plan", "p.json"]);
}

#[test]
fn branches_and_trunk_have_ratios_of_their_own() {
    let folder = folder();
    let run = |more: &[&str]| {
        let words = [&["model.onnx", "out.onnx", "--report", "r.json"], more].concat();
        let page = folder.succeed(&words);
        let model = folder.read("out.onnx");
        (page, ["trunk", "a_weight", "b_weight", "c_weight"].map(|name| dims(&model, name)[0]))
    };
    let (page, kept) = run(&["--ratio", "0.5", "--task-ratio", "a=0.25", "--trunk-ratio", "0"]);
    assert_eq!(kept, [12, 6, 3, 5]);
    assert!(page.contains("trunk 0, branch of a 0.25, the rest 0.5"), "{page}");
    let report = json(&folder, "r.json");
    assert_eq!(report["options"]["task_ratios"], serde_json::json!({ "a": 0.25 }));
    assert_eq!(report["options"]["trunk_ratio"], 0.0);
    // Without a ratio for everything the rest stays.
    assert_eq!(run(&["--task-ratio", "c=0.9", "--task-ratio", "b=0.5"]).1, [12, 8, 3, 1]);
    assert_eq!(run(&["--trunk-ratio", "0.5"]).1, [6, 8, 6, 10]);
}

#[test]
fn a_protected_task_keeps_its_branch_and_its_share() {
    let folder = folder();
    let page =
        folder.succeed(&["model.onnx", "out.onnx", "--ratio", "0.5", "--protect-task", "a", "--report", "r.json"]);
    assert!(page.contains("a protected") && page.contains("1 protected"), "{page}");
    let model = folder.read("out.onnx");
    // The convolution of the trunk feeds three tasks, one of them protected: of its channels a third goes, not a half.
    assert_eq!(dims(&model, "a_weight"), [8, 2, 1, 1]);
    assert_eq!(dims(&model, "a_head"), [2, 8, 1, 1]);
    assert_eq!(dims(&model, "b_weight"), [3, 5, 1, 1]);
    assert_eq!(json(&folder, "r.json")["options"]["protect_tasks"], serde_json::json!(["a"]));
}

#[test]
fn trunk_channels_that_a_protected_task_reads_stay() {
    // `a` reads channel 5 of the trunk alone, by weights; the others read everything but that, more loudly.
    let folder = Folder::new();
    let mut model = onnx_mtprune::text::parse(
        "in x [1,3]
         t = Gemm(x, trunk[3,6])
         a = Gemm(t, a_head[6,2])
         b = Gemm(t, b_head[6,2])
         out a, b",
    )
    .unwrap();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        let values: Vec<f32> = match tensor.name() {
            "a_head" => (0..12).map(|i| if i / 2 == 5 { 1.0 } else { 0.0 }).collect(),
            "b_head" => (0..12).map(|i| if i / 2 == 5 { 0.0 } else { 9.0 + i as f32 }).collect(),
            _ => vec![1.0; 18],
        };
        tensor.raw_data = Some(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into());
        tensor.float_data.clear();
    }
    folder.proto("model.onnx", &model);
    let kept = |more: &[&str]| {
        let words = ["model.onnx", "out.onnx", "--trunk-ratio", "0.8", "--plan-out", "p.json"];
        folder.succeed(&[&words, more].concat());
        json(&folder, "p.json")["groups"][0]["kept"].clone()
    };
    assert_eq!(kept(&[]), serde_json::json!([4]));
    assert_eq!(kept(&["--protect-task", "a"]), serde_json::json!([5]));
    assert_eq!(kept(&["--protect-task", "b"]), serde_json::json!([4]));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = folder();
    let refused = |more: &[&str], words: &[&str]| {
        let said = folder.run(&[&["model.onnx", "out.onnx"], more].concat());
        assert_eq!(said.code, 2, "{more:?}: {said:?}");
        words.iter().for_each(|word| assert!(said.err.contains(word), "{more:?} lacks `{word}`: {}", said.err));
        assert!(!folder.names().contains(&"out.onnx".to_owned()));
    };
    refused(&["--keep-tasks", "a,z"], &["no task `z`", "a, b, c"]);
    refused(&["--keep-tasks", ""], &["no task ``"]);
    refused(&["--keep-tasks"], &["--keep-tasks"]);
    refused(&["--keep-tasks", "a", "--plan", "p.json"], &["--plan", "--keep-tasks", "cannot be used with"]);
    refused(&["--plan", "p.json", "--ratio", "0.5"], &["cannot be used with"]);
    refused(&["--plan", "p.json", "--protect-task", "a"], &["cannot be used with"]);
    refused(&["--keep-tasks", "a", "--task-ratio", "b=0.5"], &["no task `b`", "tasks are a"]);
    refused(&["--task-ratio", "a=1"], &["0 up to, but below, 1"]);
    refused(&["--task-ratio", "a=-0.5"], &["0 up to, but below, 1"]);
    refused(&["--task-ratio", "a"], &["TASK=0.5"]);
    refused(&["--task-ratio", "z=0.5"], &["no task `z`", "a, b, c"]);
    refused(&["--task-ratio", "a=0.5", "--task-ratio", "a=0.4"], &["two ratios"]);
    refused(&["--trunk-ratio", "1.5"], &["0 up to, but below, 1"]);
    refused(&["--protect-task", "a"], &["--ratio"]);
    refused(&["--ratio", "0.5", "--protect-task", "z"], &["no task `z`", "a, b, c"]);
    refused(&["--ratio", "0.5", "--protect-task", "a", "--task-ratio", "a=0.1"], &["is protected and has a ratio"]);
    let all = ["--protect-task", "a", "--protect-task", "b", "--protect-task", "c"];
    refused(&[&["--ratio", "0.5"], all.as_slice()].concat(), &["every task is protected"]);
}

#[test]
fn samples_of_inputs_that_went_are_not_asked_for() {
    let folder = Folder::new();
    folder.model("model.onnx", THREE);
    // No array for `offset`, which only `b` reads.
    let header = |dims: &str, bytes: usize| {
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims},), }}");
        let padded = format!("{text:<117}\n");
        assert_eq!((padded.len() + 10) % 16, 0, "{bytes}");
        [b"\x93NUMPY\x01\x00".as_slice(), &(padded.len() as u16).to_le_bytes(), padded.as_bytes()].concat()
    };
    let values: Vec<u8> = (0..8 * 192u32)
        .flat_map(|i| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1.6e7 - 0.5).to_le_bytes())
        .collect();
    let array = [header("8, 3, 8, 8", values.len()), values].concat();
    std::fs::write(folder.file("x.npy"), array).unwrap();
    let words = ["model.onnx", "a.onnx", "--keep-tasks", "a,c", "--ratio", "0.3", "--calibration", "x.npy"];
    folder.succeed(&[&words[..], &["--report", "r.json", "--engine", "tract"]].concat());
    let report = json(&folder, "r.json");
    let tasks: Vec<&str> =
        report["calibration"]["fidelity"].as_array().unwrap().iter().map(|row| row["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["a", "c"]);
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
