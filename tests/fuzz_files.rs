//! Whole files, changed in their structure, through everything: analysis, plan, rewriting, and verification of small
//! ones.
//!
//! `make fuzz-files MINUTES=10` runs for a time; `SEED=123 make fuzz-files` replays one case. A finding is a panic, a
//! case that takes too long, memory without bound, a plan that cannot be applied, or a pruned model that the engine
//! tells apart from the masked original.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::random_graph::{Random, model as random_model};
use common::structure::mutate;
use onnx_mtprune::engine::samples::random_feeds;
use onnx_mtprune::engine::{Tract, Value, inputs, run_once};
use onnx_mtprune::kept::Kept;
use onnx_mtprune::proto::onnx::{ModelProto, tensor_proto::DataType};
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::verify::{Outcome, VerifyOptions, verify};
use onnx_mtprune::{ErrorKind, proto, text};
use prost::Message;

/// No case may take longer.
const LIMIT: Duration = Duration::from_secs(60);
/// The engine gets so long; some shapes send its symbolic arithmetic into exponential growth.
const ENGINE: Duration = Duration::from_secs(20);
/// No case may take more memory, in kB; where the engine does, it counts as one that the engine does not come back from.
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

const ALL: [End; 6] = [End::Refused, End::Pruned, End::NotRun, End::EngineHangs, End::Rounding, End::Equal];

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
    let options = VerifyOptions { seed, rounding: false, altered: rewritten.altered.clone(), ..Default::default() };
    tell(&format!("{ENGINE_RUNS} {seed}"));
    judge(&model, &pruned, &rewritten.kept, &options)
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
                let sensitivity = sensitivity(pruned, options.seed);
                // Where a step of quantisation tips over, the difference is as large as what follows makes of it; then
                // other inputs, at which none does, tell a wrong cut from that, because it is wrong at all of them.
                let tips = || {
                    worst < 100.0 * sensitivity && sensitivity > 1e-3 && passes_elsewhere(model, pruned, kept, options)
                };
                let rounding = (worst < 1e-2 && worst < 100.0 * sensitivity) || tips();
                let found = || format!("{reason} {first:?} (one rounding moves it by {sensitivity:.1e})");
                if rounding { Ok(End::Rounding) } else { Err(found()) }
            }
        },
    }
}

/// True if the pruned model equals the masked original at another input.
fn passes_elsewhere(model: &ModelProto, pruned: &ModelProto, kept: &Kept, options: &VerifyOptions) -> bool {
    (1..=4).any(|step| {
        let options = VerifyOptions { seed: options.seed.wrapping_add(step * 1_000_003), ..options.clone() };
        verify(model, pruned, kept, &Tract, &options).is_ok_and(|verdict| verdict.passed())
    })
}

/// How much the outputs change, relative to their largest magnitude, when every input and every fp32 constant changes by
/// about one rounding, up or down at random.
fn sensitivity(model: &ModelProto, seed: u64) -> f64 {
    let Ok(candidates) = inputs::input_shapes(model, &BTreeMap::new()) else { return 0.0 };
    let wanted: Vec<String> = model.graph.iter().flat_map(|g| &g.output).map(|o| o.name().to_owned()).collect();
    let mut random = Random::new(seed);
    let mut nudge = |v: f32| v * if random.below(2) == 0 { 1.0 + f32::EPSILON } else { 1.0 - f32::EPSILON };
    let mut other = model.clone();
    for tensor in other.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        if tensor.data_type() == DataType::Float as i32
            && let Ok(values) = proto::tensor::to_f32(tensor)
        {
            let values: Vec<f32> = values.into_iter().map(&mut nudge).collect();
            *tensor = proto::tensor::from_f32(tensor.name(), &tensor.dims.clone(), &values);
        }
    }
    for facts in candidates {
        let Ok(feeds) = random_feeds(&facts, seed) else { continue };
        let nudged = feeds.iter().map(|(name, value)| match value {
            Value::F32(array) => (name.clone(), Value::F32(array.mapv(&mut nudge))),
            other => (name.clone(), other.clone()),
        });
        let nudged: Vec<(String, Value)> = nudged.collect();
        let (Ok(a), Ok(b)) = (run_once(&Tract, model, &feeds, &wanted), run_once(&Tract, &other, &nudged, &wanted))
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

/// What a worker says before the engine runs, and how it ends a case.
const ENGINE_RUNS: &str = "engine";
const ENDED: &str = "ended";
const FOUND: &str = "found";

/// One line for the process that watches this one.
fn tell(line: &str) {
    println!("{MARK}{line}");
}

/// What sets lines of a worker apart from those of the test harness.
const MARK: &str = "fuzz: ";

/// A process that runs the cases whose seeds it reads. Started by the test below; alone it finds nothing to read.
#[test]
#[ignore = "started by changed_files_do_no_harm"]
fn worker() {
    let corpus = corpus();
    std::panic::set_hook(Box::new(|_| {}));
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let seed: u64 = line.trim().parse().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&corpus, seed))).unwrap_or_else(|cause| {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        });
        match outcome {
            Ok(end) => tell(&format!("{ENDED} {end:?}")),
            Err(what) => tell(&format!("{FOUND} {}", what.replace('\n', " "))),
        }
    }
}

/// A worker, its lines as they come, and where seeds go.
struct Worker {
    process: Child,
    lines: Receiver<String>,
    seeds: ChildStdin,
}

impl Worker {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "worker", "--nocapture"]).env_remove("SEED");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (send, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            // The harness may have begun the line.
            lines
                .filter_map(|line| line.split_once(MARK).map(|(_, line)| line.to_owned()))
                .try_for_each(|line| send.send(line))
        });
        let seeds = process.stdin.take().unwrap();
        Self { process, lines, seeds }
    }

    /// The end of a case, or what was found. `None` where the engine did not come back: this worker is done for.
    fn case(&mut self, seed: u64) -> Option<Result<End, String>> {
        writeln!(self.seeds, "{seed}").ok();
        let start = Instant::now();
        let mut engine: Option<Instant> = None;
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => match line.split_once(' ').unwrap_or((&line, "")) {
                    (ENDED, end) => return ALL.iter().find(|e| format!("{e:?}") == end).map(|e| Ok(*e)),
                    (FOUND, what) => return Some(Err(what.to_owned())),
                    _ => engine = Some(Instant::now()),
                },
                Err(RecvTimeoutError::Disconnected) => {
                    self.process.kill().ok();
                    self.process.wait().ok();
                    // This crate is safe Rust; the engine is not.
                    return if engine.is_some() { None } else { Some(Err("the process died".to_owned())) };
                }
                Err(RecvTimeoutError::Timeout) => {
                    let memory = resident(self.process.id()).unwrap_or(0);
                    let is_engine = engine.is_some_and(|since| since.elapsed() > ENGINE || memory > MEMORY);
                    let is_ours = engine.is_none() && (start.elapsed() > LIMIT || memory > MEMORY);
                    if is_engine || is_ours {
                        self.process.kill().ok();
                        let what = format!("too slow or too large: {:.0?}, {memory} kB", start.elapsed());
                        return if is_engine { None } else { Some(Err(what)) };
                    }
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn changed_files_do_no_harm() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<f64>().ok());
    if let Some(seed) = number("SEED") {
        let outcome = run(&corpus(), seed as u64);
        println!("seed {seed}: {outcome:?}; the model is target/fuzz-{seed}.onnx");
        assert!(outcome.is_ok(), "{outcome:?}");
        return;
    }
    let time = number("MINUTES").map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let first = number("FIRST").unwrap_or(0.0) as u64;
    let start = Instant::now();
    let next = AtomicU64::new(first);
    let (ends, findings) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || {
        let mut worker = Worker::start();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if time.map_or(seed >= first + 600, |time| start.elapsed() > time) {
                break;
            }
            let outcome = worker.case(seed);
            let is_alive = worker.process.try_wait().is_ok_and(|status| status.is_none());
            if outcome.is_none() || !is_alive {
                worker = Worker::start();
            }
            match outcome.unwrap_or(Ok(End::EngineHangs)) {
                Ok(end) => ends.lock().unwrap().push(end),
                Err(what) => {
                    println!("finding, SEED={seed}: {what}");
                    findings.lock().unwrap().push(seed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
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

/// The resident memory of a process in kB, where the system tells.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}
