//! Mutated model files through the library: no panic, no hang, bounded memory.
//!
//! `MUTATIONS=100000 cargo test --release --test mutations` runs more than CI does; `make fuzz` does that.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::random_graph::{Random, model};
use onnx_mtprune::proto::onnx::{FunctionProto, GraphProto, ModelProto};
use onnx_mtprune::prune::{Analysis, Options, PruneConfig};
use onnx_mtprune::{functions, proto, text};
use prost::Message;
use rayon::prelude::*;

/// No single file may take longer; typical ones take less than a millisecond.
const HANG: Duration = Duration::from_secs(20);

/// How far a mutated file came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Decode,
    Analyse,
    Rewrite,
    Done,
}

fn run(bytes: Vec<u8>) -> Stage {
    let Ok(model) = proto::decode(bytes.into()) else { return Stage::Decode };
    let inlined = functions::inline(&model);
    let Ok(analysis) = Analysis::of_inlined(&inlined, &Options::default()) else { return Stage::Analyse };
    let config = PruneConfig { ratio: 0.5, ..Default::default() };
    let Ok(rewritten) = analysis.plan(&config).and_then(|plan| analysis.apply(&plan)) else { return Stage::Rewrite };
    match rewritten.output.materialise() {
        Ok(model) => {
            assert!(!model.encode_to_vec().is_empty());
            Stage::Done
        }
        Err(_) => Stage::Rewrite,
    }
}

/// Small models of many kinds, as bytes.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = (0..40).map(|seed| text::parse(&model(seed)).unwrap().encode_to_vec()).collect();
    for folder in ["fixtures/ops", "fixtures/groups", "fixtures/rewrite"] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            for case in text.split("\n===\n") {
                let model = case.split_once("\n---\n").map_or(case, |(model, _)| model);
                corpus.extend(text::parse(model).ok().map(|m| m.encode_to_vec()));
            }
        }
    }
    corpus
}

/// Bit flips, truncations, insertions, splices of another file, or changed fields of the decoded model.
fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(corpus);
    match random.below(9) {
        0 => {
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        1 => bytes.truncate(random.below(bytes.len())),
        2 => {
            let at = random.below(bytes.len());
            let value = random.pick(&[0u8, 1, 0x7f, 0x80, 0xff]);
            bytes.insert(at, value);
        }
        3 => {
            let other = random.pick(corpus);
            let (from, length) = (random.below(other.len()), 1 + random.below(64));
            let piece = &other[from..(from + length).min(other.len())];
            let at = random.below(bytes.len());
            bytes.splice(at..(at + random.below(64)).min(bytes.len()), piece.iter().copied());
        }
        _ => {
            let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
            let other = ModelProto::decode(random.pick(corpus).as_slice()).unwrap();
            for _ in 0..1 + random.below(3) {
                change(&mut model, &other, random);
            }
            bytes = model.encode_to_vec();
        }
    }
    bytes
}

/// The graph, or one of its bodies.
fn some_graph<'g>(graph: &'g mut GraphProto, random: &mut Random) -> &'g mut GraphProto {
    let mut inside: Vec<(usize, usize)> = Vec::new();
    for (at, node) in graph.node.iter().enumerate() {
        inside.extend(node.attribute.iter().enumerate().filter(|(_, a)| a.g.is_some()).map(|(slot, _)| (at, slot)));
    }
    if inside.is_empty() || random.below(3) == 0 {
        return graph;
    }
    let (at, slot) = random.pick(&inside);
    some_graph(graph.node[at].attribute[slot].g.as_mut().unwrap(), random)
}

fn change_function(function: &mut FunctionProto, other: &ModelProto, random: &mut Random) {
    let other = other.functions.first().cloned().unwrap_or_default();
    match random.below(6) {
        0 => function.node.extend(other.node),
        1 => drop(function.input.pop()),
        2 => function.output.reverse(),
        3 => function.name = function.node.first().and_then(|n| n.op_type.clone()),
        4 => function.attribute_proto.clear(),
        _ => function.opset_import.iter_mut().for_each(|o| o.version = Some(random.pick(&[1, 17, i64::MAX]))),
    }
}

/// One change to one field that the schema allows and sense does not.
fn change(model: &mut ModelProto, other: &ModelProto, random: &mut Random) {
    let numbers = [0, 1, -1, 2, 3, 7, 64, i64::MAX, i64::MIN, 1 << 40, -5];
    if let (Some(function), 0) = (model.functions.first_mut(), random.below(4)) {
        change_function(function, other, random);
        return;
    }
    let graph = some_graph(model.graph.as_mut().unwrap(), random);
    let names: Vec<String> = graph.node.iter().flat_map(|n| n.input.iter().chain(&n.output)).cloned().collect();
    if graph.node.is_empty() || names.is_empty() {
        return;
    }
    let at = random.below(graph.node.len());
    match random.below(14) {
        0 => {
            let node = &mut graph.node[at];
            if !node.input.is_empty() {
                let slot = random.below(node.input.len());
                node.input[slot] = random.pick(&names);
            }
        }
        1 => {
            let slot = random.below(graph.node[at].output.len().max(1));
            if let Some(output) = graph.node[at].output.get_mut(slot) {
                *output = random.pick(&names);
            }
        }
        2 => {
            let operators: Vec<String> =
                other.graph.iter().flat_map(|g| &g.node).map(|n| n.op_type().to_owned()).collect();
            if !operators.is_empty() {
                graph.node[at].op_type = Some(random.pick(&operators));
            }
        }
        3 => {
            if let Some(attribute) = graph.node[at].attribute.first_mut() {
                attribute.i = Some(random.pick(&numbers));
                if !attribute.ints.is_empty() {
                    let index = random.below(attribute.ints.len());
                    attribute.ints[index] = random.pick(&numbers);
                }
            }
        }
        4 => {
            if let Some(attribute) = graph.node[at].attribute.first_mut() {
                let length = random.below(9);
                attribute.ints.resize(length, 1);
            }
        }
        5 => drop(graph.node.remove(at)),
        6 => {
            let node = graph.node[at].clone();
            graph.node.push(node);
        }
        7 if !graph.initializer.is_empty() => {
            let index = random.below(graph.initializer.len());
            let dims = &mut graph.initializer[index].dims;
            if !dims.is_empty() {
                let axis = random.below(dims.len());
                dims[axis] = random.pick(&numbers);
            }
        }
        8 if !graph.initializer.is_empty() => {
            let index = random.below(graph.initializer.len());
            graph.initializer[index].data_type = Some(random.below(28) as i32);
        }
        9 if !graph.initializer.is_empty() => {
            let index = random.below(graph.initializer.len());
            let tensor = &mut graph.initializer[index];
            tensor.dims.push(random.pick(&numbers));
        }
        11 if !graph.output.is_empty() => {
            let slot = random.below(graph.output.len());
            graph.output[slot].name = Some(random.pick(&names));
        }
        12 => drop(graph.input.pop()),
        10 => {
            if let Some(input) = graph.node[at].input.first_mut() {
                input.clear();
            }
        }
        _ => {
            if let Some(opset) = model.opset_import.first_mut() {
                opset.version = Some(random.pick(&[1, 6, 7, 9, 10, 11, 12, 13, 18, 23, -1, i64::MAX]));
            }
        }
    }
}

#[test]
fn mutated_files_do_no_harm() {
    let count: u64 = std::env::var("MUTATIONS").ok().and_then(|c| c.parse().ok()).unwrap_or(30_000);
    let corpus = corpus();
    let worst = Mutex::new((Duration::ZERO, 0));
    let panics = Mutex::new(Vec::new());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let stages: Vec<Stage> = (0..count)
        .into_par_iter()
        .map(|seed| {
            let bytes = mutate(&corpus, &mut Random::new(seed));
            let start = Instant::now();
            let stage = catch_unwind(AssertUnwindSafe(|| run(bytes)));
            let mut worst = worst.lock().unwrap();
            *worst = (*worst).max((start.elapsed(), seed));
            stage.unwrap_or_else(|cause| {
                let text = cause.downcast_ref::<String>().cloned();
                let text = text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                panics.lock().unwrap().push((seed, text.unwrap_or_default()));
                Stage::Decode
            })
        })
        .collect();
    std::panic::set_hook(hook);
    let (worst, mut panics) = (worst.into_inner().unwrap(), panics.into_inner().unwrap());
    panics.sort();
    let reached = |stage: Stage| stages.iter().filter(|s| **s == stage).count();
    println!(
        "{count} mutated files: {} refused by the reader, {} by the graph, {} by the rewriter, {} pruned; slowest {:?} (seed {})",
        reached(Stage::Decode),
        reached(Stage::Analyse),
        reached(Stage::Rewrite),
        reached(Stage::Done),
        worst.0,
        worst.1
    );
    let peak = peak_memory();
    println!("peak memory {peak:?} kB");
    assert!(panics.is_empty(), "{} panics, first {:?}", panics.len(), &panics[..panics.len().min(5)]);
    assert!(worst.0 < HANG, "seed {} takes {:?}", worst.1, worst.0);
    assert!(peak.is_none_or(|kb| kb < 1 << 20), "peak memory {peak:?} kB");
    assert!(reached(Stage::Done) * 6 > count as usize, "too few files get through to prove anything");
}

/// The peak resident memory of this process in kB, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
