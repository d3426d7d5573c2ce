//! The command line: the only code that prints, exits and reads the clock or the terminal.
//!
//! Exit codes: 0 done, 1 the pruned model is wrong, 2 everything else. An error is one line on stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod aggregation;
mod arguments;
mod calibrate;
mod calibration;
mod console;
mod engines;
mod files;
mod gradient;
mod gradients;
mod idle;
mod inspect;
mod masks;
mod neighbours;
mod panics;
mod prune;
mod replay;
mod runtime;
mod tasks;
mod values;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use onnx_mtprune::{ErrorKind, Result};

use arguments::{Arguments, Command};
use console::Console;

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = panics::guarded(|| dispatch(arguments));
    if let Err(error) = &outcome {
        console::error(error);
    }
    ExitCode::from(match outcome.map_err(|error| error.kind()) {
        Ok(()) => 0,
        Err(ErrorKind::Verification) => 1,
        Err(ErrorKind::Input | ErrorKind::Engine) => 2,
    })
}

fn dispatch(arguments: Arguments) -> Result<()> {
    match arguments.split() {
        (Some(Command::Inspect(arguments)), _) => inspect::run(&arguments),
        (Some(Command::Verify(arguments)), _) => verify::run(&arguments),
        (Some(Command::Engines(arguments)), _) => engines::run(&arguments),
        (Some(Command::Calibrate(arguments)), _) => calibrate::run(&arguments),
        (Some(Command::Merge(arguments)), _) => calibrate::merge(&arguments),
        (Some(Command::Gradient(arguments)), _) => gradient::run(&arguments),
        (Some(Command::Masks(arguments)), _) => masks::run(&arguments),
        (None, Some(arguments)) => prune::run(&arguments, Console::new(arguments.quiet, arguments.verbose)),
        // The parser asks for a model before it gets here.
        (None, None) => Console::new(false, false).print(&Arguments::command().render_help().to_string()),
    }
}
