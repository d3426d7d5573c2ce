//! The program `onnx-mtprune`; all it does is in the library, all it says is in `cli`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
