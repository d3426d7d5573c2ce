//! Whole files, changed in their structure, through everything: analysis, plan, rewriting, and verification of small
//! ones.
//!
//! `make fuzz-files MINUTES=10` runs for a time; `SEED=123 make fuzz-files` replays one case. A finding is a panic, a
//! case that takes too long, memory without bound, a plan that cannot be applied, or a pruned model that the engine
//! tells apart from the masked original.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::random_graph::{Random, model as random_model};
use common::structure::mutate;
use onnx_mtprune::engine::samples::random_feeds;
use onnx_mtprune::engine::{Tract, Value, inputs, run_once};
use onnx_mtprune::kept::Kept;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::verify::{Outcome, VerifyOptions, verify};
use onnx_mtprune::{ErrorKind, proto, text};
use prost::Message;

/// No case may take longer.
const LIMIT: Duration = Duration::from_secs(60);
/// The engine gets so long; some shapes send its symbolic arithmetic into exponential growth.
const ENGINE: Duration = Duration::from_secs(20);
/// No more memory may be in use, in kB.
const MEMORY: u64 = 3 << 20;
/// Files of more bytes are left out; analysis of big files is measured elsewhere.
const FILE_BYTES: u64 = 4 << 20;
/// Models of more bytes are not run.
const RUN_BYTES: usize = 1 << 20;

/// How a case ended that is no finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Refused,
    Pruned,
    NotRun,
    EngineHangs,
    Rounding,
    Equal,
}

/// Valid models: fixtures, random graphs, the trained models of the repository, and others beside it.
fn corpus() -> Vec<ModelProto> {
    let mut corpus: Vec<ModelProto> = (0..160).map(|seed| text::parse(&random_model(seed)).unwrap()).collect();
    for folder in ["fixtures/ops", "fixtures/groups", "fixtures/rewrite"] {
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            for case in text.split("\n===\n") {
                let model = case.split_once("\n---\n").map_or(case, |(model, _)| model);
                corpus.extend(text::parse(model).ok());
            }
        }
    }
    let before = corpus.len();
    for folder in ["onnx-models", "../shared/models"] {
        collect(Path::new(folder), &mut corpus, 0);
    }
    println!("{before} small models and {} from files", corpus.len() - before);
    corpus
}

fn collect(folder: &Path, corpus: &mut Vec<ModelProto>, depth: usize) {
    let mut paths: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && depth < 3 {
            collect(&path, corpus, depth + 1);
        } else if path.extension().is_some_and(|e| e == "onnx") && path.metadata().is_ok_and(|m| m.len() <= FILE_BYTES)
        {
            corpus.extend(proto::read(&path).ok().map(|file| file.model));
        }
    }
}

fn run(corpus: &[ModelProto], seed: u64) -> Result<End, String> {
    let mut random = Random::new(seed);
    let mut model = random.pick(corpus);
    let other = random.pick(corpus);
    for _ in 0..1 + random.below(3) {
        mutate(&mut model, &other, &mut random);
    }
    if std::env::var_os("SEED").is_some() {
        std::fs::write(format!("target/fuzz-{seed}.onnx"), model.encode_to_vec()).unwrap();
    }
    // As from a file: what the encoding cannot hold is lost here.
    let Ok(model) = proto::decode(model.encode_to_vec().into()) else { return Ok(End::Refused) };
    let Ok(analysis) = Analysis::of(&model, &[]) else { return Ok(End::Refused) };
    let ratio = (1 + random.below(9)) as f64 / 10.0;
    let config =
        PruneConfig { ratio, seed, criterion: random.pick(&["l2", "random"]).to_owned(), ..Default::default() };
    let plan = analysis.plan(&config).map_err(|e| format!("no plan: {e}"))?;
    let rewritten = analysis.apply(&plan).map_err(|e| format!("not rewritten: {e}"))?;
    let pruned = rewritten.output.materialise().map_err(|e| format!("not materialised: {e}"))?;
    let pruned = proto::decode(pruned.encode_to_vec().into()).map_err(|e| format!("not readable: {e}"))?;
    Analysis::of(&pruned, &[]).map_err(|e| format!("the pruned model is not well formed: {e}"))?;
    if model.encoded_len() > RUN_BYTES || rewritten.kept.is_empty() {
        return Ok(End::Pruned);
    }
    let options = VerifyOptions { seed, altered: rewritten.altered.clone(), ..Default::default() };
    // In a thread of its own, which is left behind when the engine does not come back.
    let (send, receive) = std::sync::mpsc::channel();
    let kept = rewritten.kept;
    std::thread::spawn(move || send.send(catch_unwind(AssertUnwindSafe(|| judge(&model, &pruned, &kept, &options)))));
    match receive.recv_timeout(ENGINE) {
        Ok(Ok(judged)) => judged,
        Ok(Err(cause)) => std::panic::resume_unwind(cause),
        Err(_) => Ok(End::EngineHangs),
    }
}

fn judge(model: &ModelProto, pruned: &ModelProto, kept: &Kept, options: &VerifyOptions) -> Result<End, String> {
    match verify(model, pruned, kept, &Tract, options) {
        Err(e) if e.kind() == ErrorKind::Verification => Err(format!("not judged: {e}")),
        Err(_) => Ok(End::NotRun),
        Ok(verdict) => match verdict.outcome {
            Outcome::Passed => Ok(End::Equal),
            Outcome::CannotRun { .. } | Outcome::NotCompared { .. } => Ok(End::NotRun),
            Outcome::Failed { reason, first } => {
                let worst = verdict.outputs.iter().map(|o| o.max_relative).fold(0.0, f64::max);
                let rounding = worst < 1e-2 && worst < 100.0 * sensitivity(pruned, options.seed);
                if rounding { Ok(End::Rounding) } else { Err(format!("{reason} {first:?}")) }
            }
        },
    }
}

/// How much the outputs change, relative to their largest magnitude, when every input changes by about one rounding.
fn sensitivity(model: &ModelProto, seed: u64) -> f64 {
    let Ok(candidates) = inputs::input_shapes(model, &BTreeMap::new()) else { return 0.0 };
    let wanted: Vec<String> = model.graph.iter().flat_map(|g| &g.output).map(|o| o.name().to_owned()).collect();
    for facts in candidates {
        let Ok(feeds) = random_feeds(&facts, seed) else { continue };
        let nudged = feeds.iter().map(|(name, value)| match value {
            Value::F32(array) => (name.clone(), Value::F32(array.mapv(|v| v * (1.0 + f32::EPSILON)))),
            other => (name.clone(), other.clone()),
        });
        let nudged: Vec<(String, Value)> = nudged.collect();
        let (Ok(a), Ok(b)) = (run_once(&Tract, model, &feeds, &wanted), run_once(&Tract, model, &nudged, &wanted))
        else {
            continue;
        };
        let pairs = a.iter().zip(&b).filter(|(a, b)| a.shape() == b.shape());
        return pairs
            .map(|(a, b)| {
                let (a, b) = (a.to_f64(), b.to_f64());
                let magnitude = a.iter().filter(|v| v.is_finite()).fold(1e-12, |m: f64, v| m.max(v.abs()));
                a.iter().zip(&b).map(|(a, b)| (a - b).abs()).filter(|d| d.is_finite()).fold(0.0, f64::max) / magnitude
            })
            .fold(0.0, f64::max);
    }
    0.0
}

/// Runs a case; a panic is a finding.
fn guarded(corpus: &[ModelProto], seed: u64) -> Result<End, String> {
    catch_unwind(AssertUnwindSafe(|| run(corpus, seed))).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        Err(format!(
            "panic: {}",
            text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
        ))
    })
}

#[test]
fn changed_files_do_no_harm() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<f64>().ok());
    let corpus = corpus();
    if let Some(seed) = number("SEED") {
        let outcome = run(&corpus, seed as u64);
        println!("seed {seed}: {outcome:?}; the model is target/fuzz-{seed}.onnx");
        assert!(outcome.is_ok(), "{outcome:?}");
        return;
    }
    let time = number("MINUTES").map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let first = number("FIRST").unwrap_or(0.0) as u64;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let start = Instant::now();
    let running: Vec<Mutex<Option<(u64, Instant)>>> =
        (0..std::thread::available_parallelism().map_or(1, usize::from)).map(|_| Mutex::new(None)).collect();
    let (next, is_over) = (AtomicU64::new(first), AtomicBool::new(false));
    let ends = Mutex::new(Vec::new());
    let findings = Mutex::new(Vec::new());
    let work = |slot: &Mutex<Option<(u64, Instant)>>| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_done = time.map_or(seed >= first + 600, |time| start.elapsed() > time);
            if is_done {
                break;
            }
            *slot.lock().unwrap() = Some((seed, Instant::now()));
            let outcome = guarded(&corpus, seed);
            *slot.lock().unwrap() = None;
            match outcome {
                Ok(end) => ends.lock().unwrap().push(end),
                Err(what) => {
                    println!("finding, SEED={seed}: {what}");
                    findings.lock().unwrap().push(seed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&running, &is_over));
        let workers: Vec<_> = running.iter().map(|slot| scope.spawn(|| work(slot))).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
    });
    std::panic::set_hook(hook);
    let (ends, findings) = (ends.into_inner().unwrap(), findings.into_inner().unwrap());
    let count = |end: End| ends.iter().filter(|e| **e == end).count();
    println!(
        "{} files in {:.0?}: {} refused, {} pruned and not run, {} the engine cannot run, {} it does not come back from, {} equal, {} equal but for rounding, {} findings",
        ends.len() + findings.len(),
        start.elapsed(),
        count(End::Refused),
        count(End::Pruned),
        count(End::NotRun),
        count(End::EngineHangs),
        count(End::Equal),
        count(End::Rounding),
        findings.len()
    );
    assert!(findings.is_empty(), "findings, to be replayed with SEED=: {findings:?}");
    assert!(count(End::Rounding) * 500 <= ends.len() + 500, "more than rounding explains");
    assert!(count(End::EngineHangs) * 200 <= ends.len() + 400, "the engine hangs too often to prove anything");
    assert!(count(End::Equal) * 8 > ends.len(), "too few files get through to prove anything");
}

/// Ends the process, with the seed, when a case runs too long or memory grows without bound.
#[allow(clippy::exit)]
fn watch(running: &[Mutex<Option<(u64, Instant)>>], is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
        let cases: Vec<(u64, Duration)> = running
            .iter()
            .filter_map(|case| case.lock().unwrap().map(|(seed, start)| (seed, start.elapsed())))
            .collect();
        let slow = cases.iter().find(|(_, time)| *time > LIMIT);
        let memory = resident().filter(|kb| *kb > MEMORY);
        if slow.is_some() || memory.is_some() {
            println!(
                "finding: a case is too slow ({slow:?}) or memory grows ({memory:?} kB); in progress, SEED=: {cases:?}"
            );
            std::process::exit(1);
        }
    }
}

/// The resident memory of this process in kB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}
