//! Bodies and local functions: real files as Python writes them, and what must hold for any.
//!
//! The files in fixtures/control were made with onnx.helper; ONNX Runtime computes the same from each pruned one and
//! its masked original. What is kept of each stands in fixtures/control/kept.txt (`make update` rewrites it).
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onnx_mtprune::allocate::Rounding;
use onnx_mtprune::coupling::Coupling;
use onnx_mtprune::engine::Tract;
use onnx_mtprune::graph::Graph;
use onnx_mtprune::kept::{Kept, KeptAxes};
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::{self, Options, PruneConfig};
use onnx_mtprune::verify::{Outcome, VerifyOptions, verify};
use onnx_mtprune::{functions, proto, text};
use prost::Message;

/// The pruned model, what is kept, and how verification ended.
fn prune(original: &ModelProto, ratio: f64) -> (ModelProto, Kept, Outcome) {
    let config = PruneConfig { ratio, rounding: Rounding::Multiple(1), ..Default::default() };
    let rewritten = prune::prune(original, &Options::default(), &config).unwrap();
    let pruned = rewritten.output.materialise().unwrap();
    let options = VerifyOptions { altered: rewritten.altered.clone(), ..Default::default() };
    let verdict = verify(original, &pruned, &rewritten.kept, &Tract, &options).unwrap();
    (pruned, rewritten.kept, verdict.outcome)
}

/// The files, in fixtures/control.
const FILES: &[&str] = &[
    "function_body.onnx",
    "function_constants.onnx",
    "function_weights.onnx",
    "if_convolutions.onnx",
    "if_in_loop.onnx",
    "loop_growing.onnx",
    "loop_state.onnx",
    "scan_cell.onnx",
];

const FOLDER: &str = "fixtures/control";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER)
}

#[test]
fn files_with_bodies_and_functions_shrink() {
    let mut page = String::new();
    for name in FILES {
        let original = proto::read(&folder().join(name)).unwrap().model;
        let (pruned, kept, outcome) = prune(&original, 0.5);
        writeln!(page, "{name}").unwrap();
        let counts = |axes: &KeptAxes| {
            let axes = axes.iter().map(|a| a.as_ref().map_or("-".to_owned(), |kept| kept.len().to_string()));
            axes.collect::<Vec<_>>().join(",")
        };
        for (name, axes) in kept.constants.iter().chain(&kept.activations) {
            writeln!(page, "  {name} keeps {}", counts(axes)).unwrap();
        }
        for function in &pruned.functions {
            writeln!(page, "  function {} stays", function.name()).unwrap();
        }
        match outcome {
            Outcome::Passed => page += "  equals the masked original\n",
            // The engine's words are long and its own business; that it says them is ours.
            Outcome::CannotRun { .. } => page += "  the engine cannot run it\n",
            Outcome::Failed { reason, .. } | Outcome::NotCompared { reason } => panic!("{name}: {reason}"),
        }
    }
    let expected = folder().join("kept.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&expected, &page).unwrap();
    }
    assert_eq!(page, std::fs::read_to_string(expected).unwrap());
}

#[test]
fn what_is_not_cut_is_written_as_it_was() {
    for name in FILES {
        let original = proto::read(&folder().join(name)).unwrap().model;
        let (same, kept, _) = prune(&original, 0.0);
        assert!(kept.is_empty());
        assert_eq!(same.encode_to_vec(), original.encode_to_vec(), "{name}");
    }
}

#[test]
fn calls_that_double_are_refused_and_not_written_out() {
    let mut page = "in x [1,4]\n".to_owned();
    for level in 1..60 {
        let inner = level - 1;
        write!(page, "function f.F{level}(x) -> y {{\n a = f.F{inner}(x)\n y = f.F{inner}(a)\n}}\n").unwrap();
    }
    page += "function f.F0(x) -> y {\n y = Relu(x)\n}\n";
    page += "a = f.F59(x)\nb = f.F29(x)\nc = f.F3(x)\nout a, b, c\n";
    let model = text::parse(&page).unwrap();
    let start = Instant::now();
    let inlined = functions::inline(&model);
    let nodes = |name: &str| inlined.model.graph.as_ref().unwrap().node.iter().filter(|n| n.op_type() == name).count();
    assert_eq!((nodes("F59"), nodes("F29"), nodes("F3"), nodes("Relu")), (1, 1, 0, 8));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_function_is_what_the_file_says_whatever_its_name() {
    let relu = "in x [1,3]\nfunction local.Block(x) -> y {\n y = local.Block(x)\n}\na = local.Block(x)\nout a";
    let mut model = text::parse(relu).unwrap();
    // Recursive, so that it stays a call; and named like an operator whose rule must not be asked.
    let rename = |node: &mut proto::onnx::NodeProto| (node.op_type, node.domain) = (Some("Relu".into()), None);
    model.graph.as_mut().unwrap().node.iter_mut().for_each(rename);
    model.functions[0].node.iter_mut().for_each(rename);
    (model.functions[0].name, model.functions[0].domain) = (Some("Relu".into()), Some("ai.onnx".into()));
    let inlined = functions::inline(&model);
    let graph = Graph::new(&inlined.model).unwrap();
    let coupling = Coupling::of(&graph);
    assert!(coupling.opaque[0].as_ref().unwrap().contains("local function"), "{:?}", coupling.opaque);
}

#[test]
fn functions_for_another_operator_set_are_not_followed() {
    let page = "in x [1,3]\nfunction local.Block(x) -> y {\n y = Relu(x)\n}\na = local.Block(x)\nout a";
    for (version, follows) in [(17, true), (13, false)] {
        let mut model = text::parse(page).unwrap();
        for import in model.functions[0].opset_import.iter_mut().filter(|o| o.domain().is_empty()) {
            import.version = Some(version);
        }
        let inlined = functions::inline(&model);
        assert_eq!(inlined.model.graph.as_ref().unwrap().node[0].op_type() == "Relu", follows);
    }
}

#[test]
fn bodies_nested_beyond_measure_are_not_followed() {
    let mut page = "in x [1,4]\nin c bool []\nt = MatMul(x, w[4,6])\n".to_owned();
    for level in 0..60 {
        write!(page, "y{level} = If(c)\nthen_branch {{\n").unwrap();
    }
    page += "y = Relu(t)\nout y\n}\nelse_branch {\n z = Relu(t)\n out z\n}\n";
    for level in (0..59).rev() {
        writeln!(page, "out y{}\n}}\nelse_branch {{\n e{level} = Relu(t)\n out e{level}\n}}", level + 1).unwrap();
    }
    page += "out y0\n";
    let model = text::parse(&page).unwrap();
    let graph = Graph::new(&model).unwrap();
    assert!(graph.scopes.len() < 100);
    let coupling = Coupling::of(&graph);
    assert!(coupling.locks.iter().any(|lock| lock.why.contains("inside a subgraph")));
}

#[test]
fn names_that_two_branches_share_are_kept_apart() {
    let model = text::parse(
        "in x [1,8]
         in c bool []
         t = MatMul(x, w0[8,6])
         y = If(c)
         then_branch {
           a = MatMul(t, w[6,10])
           b = MatMul(a, v[10,3])
           out b
         }
         else_branch {
           a = MatMul(t, w[6,4])
           b = MatMul(a, v[4,3])
           out b
         }
         out y",
    )
    .unwrap();
    let (_, kept, outcome) = prune(&model, 0.5);
    let keeps = |name: &str| kept.activations[name][1].as_ref().map(|k| k.len());
    assert_eq!((keeps("y.then_branch/a"), keeps("y.else_branch/a")), (Some(5), Some(2)));
    assert_eq!(kept.extents["y.then_branch/a"], [None, Some(10)]);
    assert_eq!(outcome, Outcome::Passed);
}
