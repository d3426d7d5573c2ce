//! Every rule against fixtures/ops: the signature and the output shapes of each node, or why it is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fmt::Write;

use onnx_mtprune::coupling::Coupling;
use onnx_mtprune::graph::Graph;
use onnx_mtprune::ops::rule_for;
use onnx_mtprune::text;

#[test]
fn signatures_and_shapes() {
    common::fixtures::check("fixtures/ops", |model| {
        let model = text::parse(model).unwrap();
        let graph = Graph::new(&model).unwrap();
        let coupling = Coupling::of(&graph);
        let mut out = String::new();
        for id in &graph.order {
            let node = graph.node(*id);
            let name = node.proto.output.join(",");
            match coupling.signature(&graph, *id) {
                Err(refusal) => writeln!(out, "{name}: refused: {}", refusal.0).unwrap(),
                Ok(signature) => {
                    let row = rule_for(node.domain(), node.op_type()).unwrap();
                    let is_approximate = signature.letters.iter().any(|letter| letter.approximate);
                    let declared = row.rule.approximate().is_some();
                    assert!(declared || !is_approximate, "{}: `approximate` must tell what may shrink", row.op_type);
                    let shapes: Vec<String> = node.outputs.iter().flatten().map(|v| shape(&coupling, *v)).collect();
                    writeln!(out, "{name}: {signature}   {}", shapes.join(" ")).unwrap();
                }
            }
            for value in node.outputs.iter().flatten() {
                if let Some(integers) = &coupling.integers[value.0 as usize] {
                    let symbols = coupling.symbols.borrow();
                    let values: Vec<String> =
                        integers.values.iter().map(|v| v.as_ref().map_or("?".into(), |e| symbols.text(e))).collect();
                    writeln!(out, "  = {{{}}}", values.join(",")).unwrap();
                }
            }
        }
        out
    });
}

fn shape(coupling: &Coupling, value: onnx_mtprune::graph::ValueId) -> String {
    let symbols = coupling.symbols.borrow();
    match coupling.shape(value) {
        None => "[?]".to_owned(),
        Some(shape) => format!("[{}]", shape.iter().map(|e| symbols.text(e)).collect::<Vec<_>>().join(",")),
    }
}
