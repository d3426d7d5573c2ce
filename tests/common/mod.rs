//! What several test files share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod fixtures;
pub mod program;
pub mod random_graph;
