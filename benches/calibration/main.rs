//! `make bench-calibration`: what does calibration cost beside running the model, and does its memory stay flat?
//!
//! Every figure is a ratio of two things measured in turns in one run, so that the speed of the machine cancels out:
//! statistics for all groups against plain inference of the same samples, least-squares repair against inference, peak
//! memory with many samples against few. Each has a limit; the exit code is 1 if one is exceeded, 2 if something cannot
//! be run. Arguments name parts (`statistics`, `repair`, `memory`); `samples=N` changes how many samples the repair is
//! fitted to; `models=PART` and `engines=PART` restrict models and engines to those whose names contain it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[allow(dead_code)] // The other bench looks at more of a child process than this one.
#[path = "../pruning/measure.rs"]
mod measure;
mod memory;
mod models;
mod repair;
mod statistics;
mod timing;

use std::error::Error;
use std::process::ExitCode;

use measure::Verdict;

/// What can go wrong here.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// The parts, in the order in which they run.
const PARTS: [&str; 3] = ["statistics", "repair", "memory"];

fn main() -> ExitCode {
    measure::ended(run())
}

/// Runs the parts named on the command line, or else all of them.
fn run() -> Outcome<Vec<Verdict>> {
    let (mut parts, mut samples, mut only, mut engine) = (Vec::new(), repair::SAMPLES, String::new(), String::new());
    // `cargo bench` adds flags such as --bench, which mean nothing here.
    for argument in std::env::args().skip(1).filter(|a| !a.starts_with('-')) {
        if let Some(number) = argument.strip_prefix("samples=") {
            samples = number.parse()?;
        } else if let Some(name) = argument.strip_prefix("models=") {
            only = name.to_owned();
        } else if let Some(name) = argument.strip_prefix("engines=") {
            engine = name.to_owned();
        } else if PARTS.contains(&argument.as_str()) {
            parts.push(argument);
        } else {
            return Err(format!("there is no part `{argument}`; the parts are {PARTS:?}").into());
        }
    }
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let engines = models::engines(&engine)?;
    let mut verdicts = Vec::new();
    if is_wanted("statistics") {
        verdicts.extend(statistics::run(&engines, &only)?);
    }
    if is_wanted("repair") {
        verdicts.extend(repair::run(&engines, samples)?);
    }
    if is_wanted("memory") {
        verdicts.extend(memory::run(&engines)?);
    }
    Ok(verdicts)
}
