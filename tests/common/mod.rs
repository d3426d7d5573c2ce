//! What several test files share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod fixtures;
pub mod program;
pub mod random_blocks;
pub mod random_graph;
pub mod runtimes;
pub mod structure;

/// Says on the terminal that something is not tested here, past the harness, which hides what passing tests print.
pub fn skipped(why: &str) {
    use std::io::Write;
    let mut terminal = std::io::stderr();
    terminal.write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}
