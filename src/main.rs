//! The program `onnx-mtprune`; all it does is in the library, all it says is in `cli`.

mod cli;

use std::process::ExitCode;

/// Memory that stays flat over many batches: glibc's heap grows where aligned buffers come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
