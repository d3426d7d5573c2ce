//! Tasks kept alone, tasks with ratios of their own, and protected tasks: the real program.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::program::Folder;
use onnx_mtprune::proto::onnx::ModelProto;
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
    let page = folder.succeed(&["model.onnx", "all.onnx", "--keep-tasks", "a,b,c"]);
    assert_eq!(folder.bytes("all.onnx"), folder.bytes("model.onnx"));
    assert!(!page.contains("dropped"), "{page}");
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
    refused(&["--ratio", "0.5", "--protect", "heads*"], &["--protect heads* matches no node and no tensor"]);
    refused(&["--ratio", "0.5", "--protect-task", "a", "--task-ratio", "a=0.1"], &["is protected and has a ratio"]);
    let all = ["--protect-task", "a", "--protect-task", "b", "--protect-task", "c"];
    refused(&[&["--ratio", "0.5"], all.as_slice()].concat(), &["every task is protected"]);
}

/// Eight samples of `x`, as an array alone.
fn samples(folder: &Folder, name: &str) {
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
    std::fs::write(folder.file(name), array).unwrap();
}

#[test]
fn samples_of_inputs_that_went_are_not_asked_for() {
    let folder = Folder::new();
    folder.model("model.onnx", THREE);
    // No array for `offset`, which only `b` reads.
    samples(&folder, "x.npy");
    let words = ["model.onnx", "a.onnx", "--keep-tasks", "a,c", "--ratio", "0.3", "--calibration", "x.npy"];
    folder.succeed(&[&words[..], &["--report", "r.json", "--engine", "tract"]].concat());
    let report = json(&folder, "r.json");
    let tasks: Vec<&str> =
        report["calibration"]["fidelity"].as_array().unwrap().iter().map(|row| row["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["a", "c"]);
}

#[test]
fn the_report_says_what_all_tasks_say_where_one_is_protected() {
    let folder = Folder::with_model();
    samples(&folder, "x.npy");
    let run = |more: &[&str]| {
        let words = ["model.onnx", "out.onnx", "--ratio", "0.5", "--calibration", "x.npy", "--repair", "none"];
        folder.succeed(&[&words[..], &["--engine", "tract", "--report", "r.json"], more].concat());
        json(&folder, "r.json")
    };
    let said = |report: &Json| {
        let groups = report["agreement"]["groups"].as_array().unwrap().iter();
        groups.map(|group| (group["group"].clone(), group["importance"].clone())).collect::<Vec<_>>()
    };
    let (plain, protected) = (run(&["--criterion", "taylor"]), run(&["--criterion", "taylor", "--protect-task", "b"]));
    assert_eq!(said(&plain), said(&protected));
    let trunk = protected["agreement"]["groups"].as_array().unwrap().iter().find(|group| group["group"] == "trunk.0");
    assert!(trunk.unwrap()["overlap"].is_number() && trunk.unwrap()["importance"]["a"].is_number(), "{trunk:?}");
    // Importances that come from gradients are those of the protected task, too.
    let protect = ["--criterion", "column-subset", "--importance", "fisher", "--protect-task", "b"];
    assert_eq!(run(&protect)["groups"]["shrunk"], 2);
}

#[test]
fn ratios_of_branches_and_trunk_are_met_where_groups_compete() {
    let folder = folder();
    let kept = |more: &[&str]| {
        let words = ["model.onnx", "out.onnx", "--ratio", "0.5", "--task-ratio", "c=0.25", "--trunk-ratio", "0.25"];
        folder.succeed(&[&words[..], more].concat());
        let model = folder.read("out.onnx");
        ["trunk", "a_weight", "b_weight", "c_weight"].map(|name| dims(&model, name)[0])
    };
    let [trunk, a, b, c] = kept(&[]);
    let global = kept(&["--scope", "global"]);
    assert_eq!([global[0], global[1] + global[2], global[3]], [trunk, a + b, c]);
}

#[test]
fn two_tasks_cannot_have_one_name() {
    let folder = folder();
    let line = folder.fail(2, &["model.onnx", "out.onnx", "--ratio", "0.5", "--task", "b=a"]);
    assert!(line.contains("task `b` has the name of an output that it does not hold"), "{line}");
}

#[test]
fn a_mask_of_a_part_holds_the_scores_of_that_part() {
    let folder = folder();
    folder.succeed(&["model.onnx", "a.onnx", "--keep-tasks", "a", "--ratio", "0.5", "--plan-out", "p.json"]);
    folder.succeed(&["masks", "add", "part", "p.json", "--model", "model.onnx"]);
    let mask = json(&folder, "masks/part.json");
    let groups = mask["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2, "{mask}");
    for group in groups {
        let scores = mask["scores"]["groups"][group["name"].as_str().unwrap()].as_array();
        assert_eq!(scores.map(Vec::len), group["extent"].as_u64().map(|n| n as usize), "{group} of {mask}");
    }
}
