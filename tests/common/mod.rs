//! What several test files share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod fixtures;
pub mod program;
pub mod random_graph;
