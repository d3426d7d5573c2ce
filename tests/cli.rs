//! The command line as a user meets it: the real program on small models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::program::{Folder, fixture};
use serde_json::Value;

fn json(folder: &Folder, name: &str) -> Value {
    serde_json::from_slice(&folder.bytes(name)).unwrap()
}

fn shapes(folder: &Folder, name: &str) -> BTreeMap<String, Vec<i64>> {
    let graph = folder.read(name).graph.unwrap();
    graph.initializer.iter().map(|t| (t.name().to_owned(), t.dims.clone())).collect()
}

/// Times differ from run to run.
fn without_times(page: &str) -> String {
    page.lines().filter(|l| !l.starts_with("time ")).map(|l| format!("{l}\n")).collect()
}

#[test]
fn half_of_the_channels_go() {
    let folder = Folder::with_model();
    let page = folder.succeed(&["model.onnx", "small.onnx", "--ratio", "0.5"]);
    let shapes = shapes(&folder, "small.onnx");
    assert_eq!(shapes["trunk"], [8, 3, 3, 3]);
    assert_eq!(shapes["trunk_bias"], [8]);
    assert_eq!(shapes["a_weight"], [4, 8, 1, 1]);
    assert_eq!(shapes["a_head"], [4, 4, 1, 1]);
    assert_eq!(shapes["b_head"], [5, 3, 1, 1]);
    assert_eq!(shapes["shift"], [5, 1, 1]);
    assert_eq!(folder.names(), ["model.onnx", "small.onnx"]);
    fixture("summary.txt", &without_times(&page));
}

#[test]
fn help_and_version() {
    let folder = Folder::new();
    fixture("help.txt", &folder.succeed(&["--help"]));
    fixture("inspect_help.txt", &folder.succeed(&["inspect", "--help"]));
    fixture("verify_help.txt", &folder.succeed(&["verify", "--help"]));
    assert_eq!(folder.succeed(&["--version"]), format!("onnx-mtprune {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(folder.run(&[]).code, 2);
}

#[test]
fn two_runs_give_the_same_bytes() {
    let folder = Folder::with_model();
    for criterion in ["l2", "random"] {
        folder.succeed(&["model.onnx", "1.onnx", "--ratio", "0.4", "--criterion", criterion, "--seed", "7"]);
        folder.succeed(&["model.onnx", "2.onnx", "--ratio", "0.4", "--criterion", criterion, "--seed", "7"]);
        assert_eq!(folder.bytes("1.onnx"), folder.bytes("2.onnx"), "{criterion}");
    }
    folder.succeed(&["model.onnx", "2.onnx", "--ratio", "0.4", "--criterion", "random", "--seed", "8"]);
    assert_ne!(folder.bytes("1.onnx"), folder.bytes("2.onnx"), "the seed decides");
}

#[test]
fn a_ratio_of_zero_changes_nothing() {
    let folder = Folder::with_model();
    folder.succeed(&["model.onnx", "same.onnx", "--ratio", "0"]);
    assert_eq!(folder.read("model.onnx"), folder.read("same.onnx"));
}

#[test]
fn a_dry_run_writes_no_model() {
    let folder = Folder::with_model();
    let page = folder.succeed(&[
        "model.onnx",
        "small.onnx",
        "--ratio",
        "0.5",
        "--dry-run",
        "--report",
        "r.json",
        "--plan-out",
        "p.json",
    ]);
    assert!(page.contains("dry run, nothing written"), "{page}");
    assert_eq!(folder.names(), ["model.onnx", "p.json", "r.json"]);
    let report = json(&folder, "r.json");
    assert_eq!(report["written"], false);
    assert_eq!(report["verification"]["outcome"], "passed");
}

#[test]
fn a_plan_replays_the_cut_and_verifies_it() {
    let folder = Folder::with_model();
    folder.succeed(&["model.onnx", "1.onnx", "--ratio", "0.5", "--protect", "b_weight", "--plan-out", "p.json"]);
    folder.succeed(&["model.onnx", "2.onnx", "--plan", "p.json"]);
    assert_eq!(folder.bytes("1.onnx"), folder.bytes("2.onnx"));
    let page = folder.succeed(&["verify", "model.onnx", "2.onnx", "--plan", "p.json"]);
    assert!(page.contains("equals the masked original"), "{page}");

    folder.model("other.onnx", "in x [1,3,4,4]\n y = Conv(x, w[4,3,1,1])\n out y");
    let line = folder.fail(2, &["other.onnx", "3.onnx", "--plan", "p.json"]);
    assert!(line.contains("p.json: the plan was made for another file than `other.onnx`"), "{line}");
    let line = folder.fail(2, &["verify", "other.onnx", "2.onnx", "--plan", "p.json"]);
    assert!(line.contains("another file"), "{line}");
    fs::write(folder.file("p.json"), "{}").unwrap();
    assert!(folder.fail(2, &["model.onnx", "3.onnx", "--plan", "p.json"]).contains("no plan file"));
}

#[test]
fn a_wrong_model_fails_verification_with_code_1() {
    let folder = Folder::with_model();
    folder.succeed(&["model.onnx", "small.onnx", "--ratio", "0.5", "--plan-out", "p.json"]);
    // One weight that does not belong there.
    let mut model = folder.read("small.onnx");
    let weight = model.graph.as_mut().unwrap().initializer.iter_mut().find(|t| t.name() == "a_head").unwrap();
    let mut raw = weight.raw_data.clone().unwrap().to_vec();
    raw[2] ^= 0x40;
    weight.raw_data = Some(raw.into());
    folder.proto("small.onnx", &model);
    let line = folder.fail(1, &["verify", "model.onnx", "small.onnx", "--plan", "p.json"]);
    assert!(line.contains("`a_head`"), "{line}");
}

#[test]
fn the_report_holds_the_numbers() {
    let folder = Folder::with_model();
    folder.succeed(&["model.onnx", "s.onnx", "--ratio", "0.5", "--protect", "b_head", "--report", "r.json"]);
    let report = json(&folder, "r.json");
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    fixture("report_keys.txt", &keys.iter().map(|k| format!("{k}\n")).collect::<String>());
    let before = 16 * 3 * 9 + 16 + 8 * 16 + 4 * 8 + 6 * 16 + 5 * 6 + 5;
    let after = 8 * 3 * 9 + 8 + 4 * 8 + 4 * 4 + 6 * 8 + 5 * 6 + 5;
    assert_eq!(report["parameters"]["before"], before);
    assert_eq!(report["parameters"]["after"], after);
    assert_eq!(report["macs"]["before"], 64 * (16 * 27 + 8 * 16 + 4 * 8 + 6 * 16 + 5 * 6));
    assert_eq!(report["macs"]["after"], 64 * (8 * 27 + 4 * 8 + 4 * 4 + 6 * 8 + 5 * 6));
    assert_eq!(report["groups"]["shrunk"], 2);
    assert_eq!(report["groups"]["protected"], 1);
    assert_eq!(report["channels"]["before"], 16 + 8 + 6);
    assert_eq!(report["channels"]["after"], 8 + 4 + 6);
    assert_eq!(report["output"]["bytes"], folder.bytes("s.onnx").len());
    let parts = report["parts"].as_array().unwrap();
    let sum: i64 = parts.iter().map(|p| p["parameters"]["after"].as_i64().unwrap()).sum();
    assert_eq!(sum, after, "the parts make up the model");
    // Of the constants only `b_head` and `shift` have no free axis: a graph output, and the protected group.
    let stays: i64 = report["stays"].as_array().unwrap().iter().map(|r| r["parameters"].as_i64().unwrap()).sum();
    assert_eq!(stays, 5 * 6 + 5, "{}", report["stays"]);
}

#[test]
fn tasks_are_told_apart() {
    let folder = Folder::with_model();
    let labels = |words: &[&str]| {
        folder.succeed(&[&["model.onnx", "s.onnx", "--ratio", "0.5", "--report", "r.json"], words].concat());
        let parts = json(&folder, "r.json")["parts"].as_array().unwrap().clone();
        parts.iter().map(|p| p["label"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(labels(&[]), ["trunk, shared by all tasks", "branch of a", "branch of b"]);
    assert_eq!(labels(&["--task", "both=a,b"]), ["task both"]);
    assert_eq!(labels(&["--task", "second=b"]), ["trunk, shared by all tasks", "branch of second", "branch of a"]);
    let line = folder.fail(2, &["model.onnx", "s.onnx", "--ratio", "0.5", "--task", "t=nothing"]);
    assert!(line.contains("`nothing`") && line.contains("a, b"), "{line}");
    assert!(folder.fail(2, &["model.onnx", "s.onnx", "--ratio", "0.5", "--task", "t"]).contains("NAME=OUTPUT"));
}

#[test]
fn protected_groups_stay_whole() {
    let folder = Folder::with_model();
    folder.succeed(&["model.onnx", "s.onnx", "--ratio", "0.5", "--protect", "a_*", "--protect", "trunk"]);
    let shapes = shapes(&folder, "s.onnx");
    assert_eq!(shapes["trunk"], [16, 3, 3, 3]);
    assert_eq!(shapes["a_weight"], [8, 16, 1, 1]);
    assert_eq!(shapes["b_weight"], [3, 16, 1, 1]);
}

#[test]
fn quiet_and_verbose() {
    let folder = Folder::with_model();
    let said = folder.run(&["model.onnx", "s.onnx", "--ratio", "0.5", "-q"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""));
    let page = folder.succeed(&["model.onnx", "s.onnx", "--ratio", "0.5", "-v"]);
    assert!(page.contains("group trunk.0: 16 -> 8, feeds a+b\n"), "{page}");
}

#[test]
fn inspection_shows_groups_and_reasons() {
    let folder = Folder::with_model();
    fixture("inspect.txt", &folder.succeed(&["inspect", "model.onnx"]));
    let inspection: Value = serde_json::from_str(&folder.succeed(&["inspect", "model.onnx", "--json"])).unwrap();
    let groups = inspection["groups"].as_array().unwrap();
    let free = groups.iter().filter(|g| g["prunable"] == true).count();
    assert_eq!(free, 3, "{groups:?}");
    assert!(groups.iter().all(|g| (g["prunable"] == true) == g["reason"].is_null()));
    // A file that is called like a subcommand.
    folder.model("inspect", common::program::TWO_TASKS);
    folder.succeed(&["./inspect", "s.onnx", "--ratio", "0.5"]);
}

#[test]
fn opaque_nodes_are_reported() {
    let folder = Folder::new();
    folder.model("m.onnx", "in x [1,3,4,4]\n a = Conv(x, w[8,3,1,1])\n b = my.domain.Mystery(a)\n out b");
    let said = folder.run(&["m.onnx", "s.onnx", "--ratio", "0.5"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("1 node kept as they are: my.domain.Mystery"), "{said:?}");
    assert!(said.err.contains("warning: no channel was removed"), "{said:?}");
    assert!(said.err.contains("warning: not verified: "), "{said:?}");
    assert_eq!(shapes(&folder, "s.onnx")["w"], [8, 3, 1, 1]);
    fs::remove_file(folder.file("s.onnx")).unwrap();
    let line = folder.fail(2, &["m.onnx", "s.onnx", "--ratio", "0.5", "--require-verify"]);
    assert!(line.contains("not verified"), "{line}");
    let said = folder.run(&["m.onnx", "s.onnx", "--ratio", "0.5", "--no-verify"]);
    assert!(said.out.contains("not verified: switched off"), "{said:?}");
}

#[test]
fn dynamic_axes_are_counted_per_element() {
    let folder = Folder::new();
    folder.model("m.onnx", "in x [n,3,8,8]\n a = Conv(x, w[8,3,1,1])\n b = Conv(a, v[2,8,1,1])\n out b");
    let page = folder.succeed(&["m.onnx", "s.onnx", "--ratio", "0.5", "--report", "r.json"]);
    assert!(page.contains("per element of the dynamic axes"), "{page}");
    assert_eq!(json(&folder, "r.json")["macs"]["before"], 64 * (8 * 3 + 2 * 8));
}

#[test]
fn inputs_are_never_overwritten() {
    let folder = Folder::with_model();
    let prune = |out: &str, more: &[&str]| folder.fail(2, &[&["model.onnx", out, "--ratio", "0.5"], more].concat());
    std::os::unix::fs::symlink("model.onnx", folder.file("link.onnx")).unwrap();
    fs::hard_link(folder.file("model.onnx"), folder.file("hard.onnx")).unwrap();
    for out in ["model.onnx", "./model.onnx", "link.onnx", "hard.onnx"] {
        let line = prune(out, &[]);
        assert!(line.contains("OUT is the same file as an input"), "{line}");
    }
    assert!(prune("-", &[]).contains("cannot be `-`"));
    assert!(prune("s.onnx", &["--report", "model.onnx"]).contains("--report is the same file as an input"));
    assert!(prune("s.onnx", &["--report", "./s.onnx"]).contains("--report is the same file as OUT"));
    assert!(prune("s.onnx", &["--plan-out", "p", "--report", "p"]).contains("--report is the same file as --plan-out"));
    assert!(prune("s.onnx", &["--ratio", "0.1"]).contains("ratio"), "given twice");
    assert!(prune("s.onnx", &["--plan", "p"]).contains("--plan"), "not both");
}

#[test]
fn an_existing_output_is_replaced_only_by_success() {
    let folder = Folder::with_model();
    fs::write(folder.file("s.onnx"), "precious").unwrap();
    folder.fail(2, &["missing.onnx", "s.onnx", "--ratio", "0.5"]);
    folder.fail(2, &["model.onnx", "s.onnx", "--ratio", "1.5"]);
    folder.fail(2, &["model.onnx", "s.onnx", "--ratio", "0.5", "--samples", "missing.npz"]);
    folder.fail(2, &["model.onnx", "s.onnx", "--ratio", "0.5", "--report", "no/r.json"]);
    assert_eq!(folder.bytes("s.onnx"), b"precious");
    folder.succeed(&["model.onnx", "s.onnx", "--ratio", "0.5"]);
    assert_eq!(shapes(&folder, "s.onnx")["trunk"], [8, 3, 3, 3]);
}

#[test]
fn unknown_fields_are_not_dropped_unasked() {
    let folder = Folder::with_model();
    let mut bytes = folder.bytes("model.onnx");
    // Field 1000 of the model: a text of three bytes.
    bytes.extend([0xc2, 0x3e, 3, b'n', b'e', b'w']);
    fs::write(folder.file("model.onnx"), bytes).unwrap();
    let line = folder.fail(2, &["model.onnx", "s.onnx", "--ratio", "0.5"]);
    assert!(line.contains("6 bytes") && line.contains("--drop-unknown-fields"), "{line}");
    let said = folder.run(&["model.onnx", "s.onnx", "--ratio", "0.5", "--drop-unknown-fields"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.starts_with("warning: 6 bytes"), "{said:?}");
}

#[test]
fn a_model_that_fails_verification_is_not_written() {
    let folder = Folder::new();
    let trained = concat!(env!("CARGO_MANIFEST_DIR"), "/onnx-models/mmnist_lenet/model.onnx");
    fs::copy(trained, folder.file("m.onnx")).unwrap();
    fs::write(folder.file("s.onnx"), "precious").unwrap();
    // Sums in another order differ in their last bits, so no tolerance at all is too little.
    let line = folder.fail(
        1,
        &["m.onnx", "s.onnx", "--ratio", "0.5", "--tolerance", "0", "--report", "r.json", "--plan-out", "p.json"],
    );
    for words in ["differs from the masked original", "the first that differs is", "nothing was written"] {
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = Folder::with_model();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let program = std::process::Command::new(env!("CARGO_BIN_EXE_onnx-mtprune"))
        .args(["inspect", "model.onnx"])
        .current_dir(folder.path())
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((program.status.code(), program.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_backward_model_is_written() {
    let folder = Folder::with_model();
    let page = folder.succeed(&["gradient", "model.onnx", "back.onnx", "--engine", "tract"]);
    assert!(page.starts_with("gradients of a, b: 7, 739 numbers in all, by "), "{page}");
    assert!(page.contains("\n  gradient_of/trunk [16, 3, 3, 3]\n"), "{page}");
    let graph = folder.read("back.onnx").graph.unwrap();
    let inputs: Vec<&str> = graph.input.iter().map(|i| i.name()).collect();
    assert_eq!(inputs, ["x", "gradient/a", "gradient/b"]);
    assert!(graph.output.iter().any(|o| o.name() == "gradient_of/trunk_bias"));
    let words =
        ["gradient", "model.onnx", "back.onnx", "--of", "b", "--with-respect-to", "x", "--with-respect-to", "a1"];
    let page = folder.succeed(&words);
    assert!(page.starts_with("gradients of b: 1, 192 numbers in all, by "), "{page}");
    assert!(page.ends_with("\n  gradient_of/x [1, 3, 8, 8]\nnot connected, no gradient: a1\n"), "{page}");
    assert!(folder.fail(2, &["gradient", "model.onnx", "model.onnx"]).contains("the same file as an input"));
    assert!(folder.fail(2, &["gradient", "model.onnx", "b.onnx", "--of", "c"]).contains("no such output"));
}
