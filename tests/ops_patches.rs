//! What rules change in their own node once axes are shorter: the model before, the model after, the edits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use onnx_mtprune::axes::Extent;
use onnx_mtprune::coupling::Coupling;
use onnx_mtprune::graph::Graph;
use onnx_mtprune::ops::{Change, Edit, Refusal, rule_for};
use onnx_mtprune::text;

/// The edits of the last node; `after` has the shorter tensors and the attributes of `before`.
fn edits(before: &str, after: &str) -> Result<Vec<Edit>, Refusal> {
    edits_making(before, after, None)
}

/// The same, where the output has the shape `made` after pruning: until it is patched, a node may not fit its tensors.
fn edits_making(before: &str, after: &str, made: Option<&[i64]>) -> Result<Vec<Edit>, Refusal> {
    let models = [text::parse(before).unwrap(), text::parse(after).unwrap()];
    let graphs = models.each_ref().map(|model| Graph::new(model).unwrap());
    let couplings = graphs.each_ref().map(Coupling::of);
    let last = *graphs[0].order.last().unwrap();
    let outputs = |i: usize| -> Vec<Option<Vec<Extent>>> {
        graphs[i].node(last).outputs.iter().map(|v| v.and_then(|v| couplings[i].shape(v))).collect()
    };
    let change = Change {
        after: &couplings[1].view(&graphs[1], last),
        outputs_before: &outputs(0),
        outputs_after: &made
            .map_or_else(|| outputs(1), |made| vec![Some(made.iter().map(|e| Extent::known(*e)).collect())]),
        input_kept: &BTreeMap::new(),
        output_kept: &BTreeMap::new(),
    };
    let node = graphs[0].node(last);
    let row = rule_for(node.domain(), node.op_type()).unwrap();
    row.rule.patch(&couplings[0].view(&graphs[0], last), &change)
}

#[test]
fn a_convolution_keeps_as_many_groups_as_it_has() {
    let conv = |x: i64, w: &str| format!("in x [1,{x},5]\n y = Conv(x, {w}, group=4)\n out y");
    let group = |n| Ok(vec![Edit::Int("group", n)]);
    let whole = conv(8, "w[12,2,1]");
    assert_eq!(edits(&whole, &whole), Ok(vec![]));
    // The same positions of every group: as many groups as before.
    assert_eq!(edits(&whole, &conv(4, "w[8,1,1]")), Ok(vec![]));
    // Whole groups.
    assert_eq!(edits(&whole, &conv(6, "w[9,2,1]")), group(3));
    // Depthwise.
    assert_eq!(edits(&conv(4, "w[4,1,1]"), &conv(3, "w[3,1,1]")), group(3));
    assert!(edits(&whole, &conv(7, "w[9,2,1]")).is_err());
    let one = |x: i64| format!("in x [1,{x},5]\n y = Conv(x, w[3,{x},1])\n out y");
    assert_eq!(edits(&one(8), &one(5)), Ok(vec![]));
}

#[test]
fn a_transposed_convolution_counts_its_groups_by_what_it_makes() {
    let conv = |x: i64, w: &str| format!("in x [1,{x},5]\n y = ConvTranspose(x, {w}, group=4)\n out y");
    let whole = conv(8, "w[8,3,3]");
    assert_eq!(edits(&whole, &whole), Ok(vec![]));
    assert_eq!(edits_making(&whole, &conv(6, "w[6,3,3]"), Some(&[1, 9, 7])), Ok(vec![Edit::Int("group", 3)]));
    assert_eq!(edits_making(&whole, &conv(4, "w[4,2,3]"), Some(&[1, 8, 7])), Ok(vec![]));
    assert!(edits_making(&whole, &conv(6, "w[6,3,3]"), Some(&[1, 10, 7])).is_err());
}

#[test]
fn a_mean_is_rescaled() {
    let mean = |c: i64, h: &str| format!("opset 17\n in x [n,{c},{h}]\n y = ReduceMean(x, axes=[1,2])\n out y");
    assert_eq!(edits(&mean(8, "4"), &mean(8, "4")), Ok(vec![]));
    assert_eq!(edits(&mean(8, "4"), &mean(6, "4")), Ok(vec![Edit::Scale(0, 0.75)]));
    assert_eq!(edits(&mean(8, "4"), &mean(4, "2")), Ok(vec![Edit::Scale(0, 0.25)]));
    // A symbolic extent did not shrink.
    assert_eq!(edits(&mean(8, "h"), &mean(2, "h")), Ok(vec![Edit::Scale(0, 0.25)]));
    let sum = |c: i64| format!("opset 11\n in x [n,{c}]\n y = ReduceSum(x, axes=[1])\n out y");
    assert_eq!(edits(&sum(8), &sum(4)), Ok(vec![]));
    let other = |c: i64| format!("opset 17\n in x [n,{c},4]\n y = ReduceMean(x, axes=[2])\n out y");
    assert_eq!(edits(&other(8), &other(4)), Ok(vec![]));
}

#[test]
fn axes_that_only_an_output_has_are_locked() {
    // No reader of `a` locks its axis 2.
    let text =
        "opset 11\n in x [1,4,8]\n a = Conv(x, w[6,4,3])\n b = ReduceSum(a, axes=[2])\n c = Conv(b, v[2,6,1])\n out c";
    let model = text::parse(text).unwrap();
    let graph = Graph::new(&model).unwrap();
    let coupling = Coupling::of(&graph);
    let value = graph.node(graph.order[0]).outputs[0].unwrap();
    let axes = coupling.axes[value.0 as usize].as_ref().unwrap();
    let locked: Vec<bool> = axes.iter().map(|axis| coupling.space.is_locked(*axis)).collect();
    assert_eq!(locked, [true, false, true]);
}

#[test]
fn costs_are_those_of_the_contractions() {
    let macs = |text: &str| {
        let model = text::parse(text).unwrap();
        let graph = Graph::new(&model).unwrap();
        Coupling::of(&graph).macs.last().unwrap().as_ref().and_then(Extent::value)
    };
    assert_eq!(macs("in x [1,4,8]\n y = Conv(x, w[6,2,3], group=2)\n out y"), Some(6 * 6 * 2 * 3));
    assert_eq!(macs("in x [1,4,8]\n y = ConvTranspose(x, w[4,6,3])\n out y"), Some(4 * 8 * 6 * 3));
    assert_eq!(macs("in x [8,2]\n y = Gemm(x, w[8,5], transA=1)\n out y"), Some(2 * 5 * 8));
    assert_eq!(macs("in x [3,2,8]\n y = MatMul(x, w[8,5])\n out y"), Some(3 * 2 * 5 * 8));
    assert_eq!(macs("in x [3,2,8]\n y = Einsum(x, w[8,5], equation=\"...i,ij->...j\")\n out y"), Some(3 * 2 * 5 * 8));
    assert_eq!(macs("in x [3,2]\n y = Einsum(x, equation=\"ij->j\")\n out y"), Some(0));
    assert_eq!(macs("in x [3,2]\n y = Relu(x)\n out y"), None);
}
