//! `make bench`: does pruning stay cheap on big files, and does analysis stay linear on big graphs?
//!
//! Every figure is a ratio of two things measured in turns in one run, so that the speed of the machine cancels out:
//! pruning a file against copying it with `cp`, peak memory against the size of the file, a graph with four times the
//! nodes against the smaller one. Each has a limit; the exit code is 1 if one is exceeded, 2 if something cannot be
//! run. The part `huge` is run only where it is named.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod analysis;
mod files;
mod huge;
mod measure;
mod networks;

use std::error::Error;
use std::process::ExitCode;

use measure::Verdict;

/// What can go wrong here.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    measure::ended(run())
}

/// Runs the parts named on the command line, or else those that any machine has room for.
fn run() -> Outcome<Vec<Verdict>> {
    // `cargo bench` adds flags such as --bench, which mean nothing here.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|w| w == part);
    if let Some(unknown) = wanted.iter().find(|w| !["analysis", "files", "huge"].contains(&w.as_str())) {
        return Err(format!("there is no part `{unknown}`; the parts are `analysis`, `files` and `huge`").into());
    }
    let mut verdicts = Vec::new();
    if is_wanted("analysis") {
        verdicts.extend(analysis::run()?);
    }
    if is_wanted("files") {
        verdicts.extend(files::run()?);
    }
    if wanted.iter().any(|w| w == "huge") {
        verdicts.extend(huge::run()?);
    }
    Ok(verdicts)
}
