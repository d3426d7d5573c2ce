//! Coupling and groups against fixtures/groups: which channels live and die together, and why others must stay.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fmt::Write;

use onnx_mtprune::prune::Analysis;
use onnx_mtprune::text;

#[test]
fn groups_members_and_locks() {
    common::fixtures::check("fixtures/groups", |model| {
        let model = text::parse(model).unwrap();
        let analysis = Analysis::of(&model, &[]).unwrap();
        let (graph, coupling) = (&analysis.graph, &analysis.coupling);
        let mut out = String::new();
        for group in &analysis.groups {
            let members: Vec<String> =
                group.members.iter().map(|m| format!("{}.{}", graph.value(m.value).name, m.axis)).collect();
            let tasks = analysis.tasks.names(&group.tasks);
            write!(out, "{}: {} channels of {}, feeds {tasks}", group.name, group.extent, members.join(" ")).unwrap();
            if let Some(lock) = group.lock.and_then(|id| coupling.lock(id)) {
                write!(out, "; locked: {}", lock.why).unwrap();
                if let Some(node) = lock.node {
                    write!(out, " at {}", graph.node(node).label()).unwrap();
                } else if let Some(value) = lock.value {
                    write!(out, " {}", graph.value(value).name).unwrap();
                }
            }
            out.push('\n');
        }
        out
    });
}
