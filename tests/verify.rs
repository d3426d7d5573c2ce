//! Verification accepts what is pruned correctly and refuses what is not, on models built by hand and on real ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use onnx_mtprune::calibration::source::{SourceOptions, read_samples};
use onnx_mtprune::engine::{ElementType, Samples, Tract};
use onnx_mtprune::kept::{Kept, KeptAxes, Zero};
use onnx_mtprune::proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};
use onnx_mtprune::report::{Verification, verification_text};
use onnx_mtprune::verify::{Outcome, Verdict, VerifyOptions, verify};
use prost::Message;

// Builder ------------------------------------------------------------------------------------------------------------

fn value_info(name: &str, element: ElementType, shape: &[i64]) -> ValueInfoProto {
    let dim = |n: &i64| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(*n)),
        ..Default::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(element as i32),
        shape: Some(TensorShapeProto { dim: shape.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

fn float(name: &str, dims: &[i64], data: Vec<f32>) -> TensorProto {
    assert_eq!(dims.iter().product::<i64>() as usize, data.len());
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(ElementType::Float as i32),
        raw_data: Some(data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()),
        ..Default::default()
    }
}

/// Weights that differ everywhere and have both signs.
fn weights(name: &str, dims: &[i64]) -> TensorProto {
    let seed = name.bytes().fold(7usize, |s, b| s * 31 % 1009 + b as usize);
    let n = dims.iter().product::<i64>() as usize;
    float(name, dims, (0..n).map(|i| ((i + seed) * 7919 % 1013) as f32 / 506.5 - 1.0).collect())
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("{op}_{}", outputs[0])),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: outputs.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let r#type = Some(AttributeType::Ints as i32);
    AttributeProto { name: Some(name.into()), ints: ints.to_vec(), r#type, ..Default::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        i: Some(i),
        r#type: Some(AttributeType::Int as i32),
        ..Default::default()
    }
}

fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn model(opset: i64, x: &[i64], y: &[i64], nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        name: Some("g".into()),
        node: nodes,
        initializer: initializers,
        input: vec![value_info("x", ElementType::Float, x)],
        output: vec![value_info("y", ElementType::Float, y)],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(opset) }],
        graph: Some(graph),
        ..Default::default()
    }
}

/// The tensor without what the axes leave out, written independently of the library.
fn slice(tensor: &TensorProto, axes: &KeptAxes) -> TensorProto {
    let raw = tensor.raw_data.as_ref().unwrap();
    let dims: Vec<usize> = tensor.dims.iter().map(|d| *d as usize).collect();
    let size = raw.len() / dims.iter().product::<usize>();
    let mut flat = vec![0usize];
    let mut sizes = vec![];
    for (axis, n) in axes.iter().zip(&dims) {
        let list: Vec<usize> = match axis {
            Some(kept) => kept.iter().map(|i| *i as usize).collect(),
            None => (0..*n).collect(),
        };
        flat = flat.iter().flat_map(|f| list.iter().map(move |i| f * n + i)).collect();
        sizes.push(list.len() as i64);
    }
    let data: Vec<u8> = flat.iter().flat_map(|f| raw[f * size..(f + 1) * size].to_vec()).collect();
    TensorProto { dims: sizes, raw_data: Some(data.into()), ..tensor.clone() }
}

fn axis(rank: usize, axis: usize, kept: &[u32]) -> KeptAxes {
    let mut axes: KeptAxes = vec![None; rank];
    axes[axis] = Some(kept.into());
    axes
}

fn kept(constants: &[(&str, KeptAxes)], activations: &[(&str, KeptAxes)]) -> Kept {
    let map = |list: &[(&str, KeptAxes)]| list.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
    Kept { constants: map(constants), activations: map(activations), ..Default::default() }
}

/// Slices the constants as `kept` says; enough of a pruner for models without shape constants.
fn prune(original: &ModelProto, kept: &Kept) -> ModelProto {
    let mut pruned = original.clone();
    for tensor in &mut pruned.graph.as_mut().unwrap().initializer {
        if let Some(axes) = kept.constants.get(tensor.name()) {
            *tensor = slice(tensor, axes);
        }
    }
    pruned
}

fn judge(original: &ModelProto, pruned: &ModelProto, kept: &Kept) -> Verdict {
    verify(original, pruned, kept, &Tract, &VerifyOptions::default()).unwrap()
}

/// Why verification failed, and the first value that differs.
fn failure(verdict: &Verdict) -> (&str, String) {
    match &verdict.outcome {
        Outcome::Failed { reason, first } => (reason, first.as_ref().map(|f| f.value.clone()).unwrap_or_default()),
        other => panic!("expected a failure, got {other:?}"),
    }
}

// Models -------------------------------------------------------------------------------------------------------------

const KEPT: [u32; 5] = [0, 2, 3, 6, 7];

/// A convolution from three to eight channels, `middle` from `a` to `b`, a convolution to four.
fn two_convolutions(opset: i64, middle: Vec<NodeProto>) -> ModelProto {
    let mut nodes = vec![node("Conv", &["x", "w1", "b1"], &["a"])];
    nodes.extend(middle);
    nodes.push(node("Conv", &["b", "w2", "b2"], &["y"]));
    let constants =
        vec![weights("w1", &[8, 3, 3, 3]), weights("b1", &[8]), weights("w2", &[4, 8, 3, 3]), weights("b2", &[4])];
    model(opset, &[1, 3, 8, 8], &[1, 4, 4, 4], nodes, constants)
}

/// Sigmoid turns a removed zero into one half, so a reference that masks weights only would be wrong.
fn sigmoid(opset: i64) -> ModelProto {
    two_convolutions(opset, vec![node("Sigmoid", &["a"], &["b"])])
}

fn two_convolutions_kept() -> Kept {
    kept(
        &[("w1", axis(4, 0, &KEPT)), ("b1", axis(1, 0, &KEPT)), ("w2", axis(4, 1, &KEPT))],
        &[("a", axis(4, 1, &KEPT)), ("b", axis(4, 1, &KEPT))],
    )
}

// Tests --------------------------------------------------------------------------------------------------------------

#[test]
fn accepts_a_correctly_pruned_model_at_every_opset() {
    for opset in [7, 8, 9, 13, 17, 20] {
        let (original, kept) = (sigmoid(opset), two_convolutions_kept());
        let verdict = judge(&original, &prune(&original, &kept), &kept);
        assert!(verdict.passed(), "opset {opset}: {verdict:?}");
        assert_eq!((verdict.outputs[0].compared, verdict.engine), (4 * 4 * 4, "tract (CPU)"));
        assert_eq!(verdict.inputs[0].shape, [1, 3, 8, 8]);
    }
}

#[test]
fn refuses_channels_that_are_off_by_one() {
    let (original, kept) = (sigmoid(17), two_convolutions_kept());
    let mut pruned = prune(&original, &kept);
    let w1 = &original.graph.as_ref().unwrap().initializer[0];
    pruned.graph.as_mut().unwrap().initializer[0] = slice(w1, &axis(4, 0, &[0, 1, 3, 6, 7]));
    let verdict = judge(&original, &pruned, &kept);
    assert_eq!(failure(&verdict).0, "constant `w1` element 27 is not element 54 of the original");
    // Even where weights may legitimately differ, the outputs tell.
    let options = VerifyOptions { altered: BTreeSet::from(["w1".into()]), ..Default::default() };
    let verdict = verify(&original, &pruned, &kept, &Tract, &options).unwrap();
    assert!(failure(&verdict).0.contains("output `y` differs from the masked original"), "{verdict:?}");
    assert_eq!(failure(&verdict).1, "a");
}

#[test]
fn refuses_normalisation_over_removed_channels() {
    let softmax = vec![with(node("Softmax", &["a"], &["b"]), int("axis", 1))];
    let centred =
        vec![with(node("ReduceMean", &["a"], &["mean"]), ints("axes", &[1])), node("Sub", &["a", "mean"], &["b"])];
    for (middle, first) in [(softmax, "b"), (centred, "mean")] {
        let (original, kept) = (two_convolutions(13, middle), two_convolutions_kept());
        let verdict = judge(&original, &prune(&original, &kept), &kept);
        assert_eq!(failure(&verdict).1, first, "{verdict:?}");
    }
}

#[test]
fn a_mean_is_exact_once_it_is_rescaled() {
    let middle = |rescaled: bool| {
        let mean = if rescaled { "raw" } else { "mean" };
        let mut nodes = vec![with(node("ReduceMean", &["a"], &[mean]), ints("axes", &[1]))];
        nodes.extend(rescaled.then(|| node("Mul", &["raw", "factor"], &["mean"])));
        nodes.push(node("Mul", &["a", "mean"], &["b"]));
        two_convolutions(13, nodes)
    };
    let (original, kept) = (middle(false), two_convolutions_kept());
    let with_factor = |factor: f32| {
        let mut pruned = prune(&middle(true), &kept);
        pruned.graph.as_mut().unwrap().initializer.push(float("factor", &[], vec![factor]));
        judge(&original, &pruned, &kept)
    };
    assert!(with_factor(5.0 / 8.0).passed());
    assert_eq!(failure(&with_factor(1.0)).1, "mean");
}

#[test]
fn refuses_wrong_offsets_into_a_concatenation() {
    let nodes = vec![
        node("Conv", &["x", "w1"], &["a"]),
        node("Conv", &["x", "w2"], &["b"]),
        with(node("Concat", &["a", "b"], &["c"]), int("axis", 1)),
        node("Conv", &["c", "w3"], &["y"]),
    ];
    let constants = vec![weights("w1", &[3, 2, 1, 1]), weights("w2", &[4, 2, 1, 1]), weights("w3", &[2, 7, 1, 1])];
    let original = model(17, &[1, 2, 5, 5], &[1, 2, 5, 5], nodes, constants);
    let pruned_with = |of_w3: &[u32], of_c: &[u32]| {
        let kept = kept(
            &[("w1", axis(4, 0, &[0, 2])), ("w2", axis(4, 0, &[1, 3])), ("w3", axis(4, 1, of_w3))],
            &[("a", axis(4, 1, &[0, 2])), ("b", axis(4, 1, &[1, 3])), ("c", axis(4, 1, of_c))],
        );
        judge(&original, &prune(&original, &kept), &kept)
    };
    assert!(pruned_with(&[0, 2, 4, 6], &[0, 2, 4, 6]).passed());
    // The second branch's offset taken from the pruned first branch.
    assert_eq!(failure(&pruned_with(&[0, 2, 3, 5], &[0, 2, 4, 6])).1, "y");
    assert_eq!(failure(&pruned_with(&[0, 2, 3, 5], &[0, 2, 3, 5])).1, "c");
}

#[test]
fn infinity_in_removed_channels_does_not_leak() {
    // Removed channels are zero before the logarithm and minus infinity after it; a product with zero would be NaN.
    let mut original = two_convolutions(17, vec![node("Abs", &["a"], &["p"]), node("Log", &["p"], &["b"])]);
    let mut kept = two_convolutions_kept();
    kept.activations.insert("p".into(), axis(4, 1, &KEPT));
    let verdict = judge(&original, &prune(&original, &kept), &kept);
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!(verdict.outputs[0].compared, 64);
    // A pruned model that is NaN where the reference is not is refused.
    let mut broken = prune(&original, &kept);
    broken.graph.as_mut().unwrap().initializer[1] = float("b1", &[5], vec![f32::NAN; 5]);
    let options = VerifyOptions { altered: BTreeSet::from(["b1".into()]), ..Default::default() };
    assert_eq!(failure(&verify(&original, &broken, &kept, &Tract, &options).unwrap()).1, "a");
    // NaN on both sides proves nothing.
    original.graph.as_mut().unwrap().initializer[3] = float("b2", &[4], vec![f32::NAN; 4]);
    let verdict = judge(&original, &prune(&original, &kept), &kept);
    assert!(
        matches!(&verdict.outcome, Outcome::CannotRun { reason } if reason.contains("empty or NaN")),
        "{verdict:?}"
    );
}

#[test]
fn masks_bool_values_and_moved_axes() {
    let nodes = vec![
        node("MatMul", &["x", "w"], &["h"]),
        node("Add", &["h", "bias"], &["s"]),
        node("Greater", &["s", "zero"], &["positive"]),
        node("Where", &["positive", "s", "negative"], &["chosen"]),
        with(node("Transpose", &["chosen"], &["t"]), ints("perm", &[0, 2, 1])),
        node("MatMul", &["t", "v"], &["u"]),
        node("MatMul", &["rows", "u"], &["y"]),
    ];
    let constants = vec![
        weights("w", &[3, 6, 4]),
        weights("bias", &[3, 5, 4]),
        float("zero", &[], vec![0.0]),
        weights("negative", &[3, 1, 4]),
        weights("v", &[3, 5, 2]),
        weights("rows", &[3, 2, 4]),
    ];
    let original = model(17, &[3, 5, 6], &[3, 2, 2], nodes, constants);
    let last = axis(3, 2, &[0, 1, 3]);
    let middle = axis(3, 1, &[0, 1, 3]);
    let mut kept = kept(
        &["w", "bias", "negative", "rows"].map(|name| (name, last.clone())),
        &["h", "s", "positive", "chosen"].map(|name| (name, last.clone())),
    );
    kept.activations.extend(["t", "u"].map(|name| (name.to_string(), middle.clone())));
    let verdict = judge(&original, &prune(&original, &kept), &kept);
    assert!(verdict.passed(), "{verdict:?}");
}

#[test]
fn masks_two_axes_of_one_value() {
    let nodes = vec![
        node("MatMul", &["p", "x"], &["px"]),
        node("MatMul", &["px", "q"], &["pxq"]),
        node("Sigmoid", &["pxq"], &["o"]),
        node("MatMul", &["l", "o"], &["lo"]),
        node("MatMul", &["lo", "r"], &["y"]),
    ];
    let constants = vec![weights("p", &[4, 3]), weights("q", &[3, 5]), weights("l", &[2, 4]), weights("r", &[5, 2])];
    for opset in [7, 17] {
        let original = model(opset, &[3, 3], &[2, 2], nodes.clone(), constants.clone());
        let (rows, columns): (&[u32], &[u32]) = (&[1, 2], &[0, 4]);
        let both: KeptAxes = vec![Some(rows.into()), Some(columns.into())];
        let kept = kept(
            &[("p", axis(2, 0, rows)), ("q", axis(2, 1, columns)), ("l", axis(2, 1, rows)), ("r", axis(2, 0, columns))],
            &[("px", axis(2, 0, rows)), ("pxq", both.clone()), ("o", both), ("lo", axis(2, 1, columns))],
        );
        let verdict = judge(&original, &prune(&original, &kept), &kept);
        assert!(verdict.passed(), "{verdict:?}");
    }
}

#[test]
fn masks_what_nested_graphs_capture() {
    let branch = |name: &str, weight: &str| {
        let graph = GraphProto {
            name: Some(name.into()),
            node: vec![node("Conv", &["b", weight], &[&format!("{name}_out")])],
            output: vec![value_info(&format!("{name}_out"), ElementType::Float, &[1, 4, 6, 6])],
            ..Default::default()
        };
        let r#type = Some(AttributeType::Graph as i32);
        AttributeProto { name: Some(format!("{name}_branch")), g: Some(graph), r#type, ..Default::default() }
    };
    let choose = with(with(node("If", &["condition"], &["y"]), branch("then", "w2")), branch("else", "w3"));
    let nodes = vec![node("Conv", &["x", "w1", "b1"], &["a"]), node("Sigmoid", &["a"], &["b"]), choose];
    let constants = vec![
        weights("w1", &[8, 3, 3, 3]),
        weights("b1", &[8]),
        weights("w2", &[4, 8, 1, 1]),
        weights("w3", &[4, 8, 1, 1]),
    ];
    let mut original = model(17, &[1, 3, 8, 8], &[1, 4, 6, 6], nodes, constants);
    original.graph.as_mut().unwrap().input.push(value_info("condition", ElementType::Bool, &[]));
    let with_w2 = |of_w2: &[u32]| {
        let mut kept = two_convolutions_kept();
        kept.constants.extend([("w2".into(), axis(4, 1, of_w2)), ("w3".into(), axis(4, 1, &KEPT))]);
        judge(&original, &prune(&original, &kept), &kept)
    };
    let verdict = with_w2(&KEPT);
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!(failure(&with_w2(&[0, 2, 3, 5, 7])).1, "y");
}

/// Values inside a nested graph cannot be fetched from an engine; their declared shapes serve.
#[test]
fn masks_values_inside_nested_graphs() {
    let branch = |name: &str| {
        let (inner, squashed, out) = (format!("{name}_inner"), format!("{name}_squashed"), format!("{name}_out"));
        let graph = GraphProto {
            name: Some(name.into()),
            node: vec![
                node("Conv", &["x", "w1", "b1"], &[&inner]),
                node("Sigmoid", &[&inner], &[&squashed]),
                node("Conv", &[&squashed, "w2"], &[&out]),
            ],
            output: vec![value_info(&out, ElementType::Float, &[1, 4, 4, 4])],
            value_info: [inner, squashed].map(|v| value_info(&v, ElementType::Float, &[1, 8, 6, 6])).to_vec(),
            ..Default::default()
        };
        let r#type = Some(AttributeType::Graph as i32);
        AttributeProto { name: Some(format!("{name}_branch")), g: Some(graph), r#type, ..Default::default() }
    };
    let choose = with(with(node("If", &["condition"], &["y"]), branch("then")), branch("else"));
    let constants = vec![weights("w1", &[8, 3, 3, 3]), weights("b1", &[8]), weights("w2", &[4, 8, 3, 3])];
    let mut original = model(17, &[1, 3, 8, 8], &[1, 4, 4, 4], vec![choose], constants);
    original.graph.as_mut().unwrap().input.push(value_info("condition", ElementType::Bool, &[]));
    let with_w2 = |of_w2: &[u32]| {
        let mut kept = two_convolutions_kept();
        kept.constants.insert("w2".into(), axis(4, 1, of_w2));
        kept.activations = ["then_inner", "then_squashed", "else_inner", "else_squashed"]
            .map(|name| (format!("y.{}_branch/{name}", &name[..4]), axis(4, 1, &KEPT)))
            .into();
        judge(&original, &prune(&original, &kept), &kept)
    };
    let verdict = with_w2(&KEPT);
    assert!(verdict.passed(), "{verdict:?}");
    assert_eq!(failure(&with_w2(&[0, 2, 3, 5, 7])).1, "y");
}

#[test]
fn half_precision_is_masked_in_its_own_type() {
    let to_half = |mut tensor: TensorProto| {
        let raw = tensor.raw_data.take().unwrap();
        let halves = raw.chunks(4).map(|b| half::f16::from_f32(f32::from_le_bytes(b.try_into().unwrap())));
        tensor.raw_data = Some(halves.flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into());
        tensor.data_type = Some(ElementType::Float16 as i32);
        tensor
    };
    let mut original = two_convolutions(17, vec![node("Sigmoid", &["a"], &["b"])]);
    let graph = original.graph.as_mut().unwrap();
    graph.initializer = graph.initializer.drain(..).map(to_half).collect();
    graph.input = vec![value_info("x", ElementType::Float16, &[1, 3, 8, 8])];
    graph.output = vec![value_info("y", ElementType::Float16, &[1, 4, 4, 4])];
    let kept = two_convolutions_kept();
    let verdict = judge(&original, &prune(&original, &kept), &kept);
    assert!(verdict.passed() && verdict.tolerance == 2e-2, "{verdict:?}");
    let mut wrong = kept.clone();
    wrong.constants.insert("w2".into(), axis(4, 1, &[0, 1, 3, 6, 7]));
    assert_eq!(failure(&judge(&original, &prune(&original, &wrong), &wrong)).1, "y");
}

#[test]
fn casts_to_half_precision_are_judged_as_half_precision() {
    let half = || int("to", ElementType::Float16 as i64);
    let full = || int("to", ElementType::Float as i64);
    let there = with(node("Cast", &["a"], &["c"]), half());
    let back = with(node("Cast", &["c"], &["b"]), full());
    let original = two_convolutions(17, vec![there, back]);
    let kept = two_convolutions_kept();
    let verdict = judge(&original, &prune(&original, &kept), &kept);
    assert!(verdict.passed() && verdict.tolerance == 2e-2, "{verdict:?}");
    let same = two_convolutions(17, vec![with(node("Cast", &["a"], &["b"]), full())]);
    assert_eq!(judge(&same, &prune(&same, &kept), &kept).tolerance, 1e-4);
}

#[test]
fn a_constant_without_elements_may_get_smaller() {
    let sum = with(with(node("ReduceSumSquare", &["w"], &["y"]), ints("axes", &[0, 1])), int("keepdims", 0));
    let original = model(17, &[1], &[4], vec![sum], vec![float("w", &[2, 0, 4], vec![])]);
    let mut pruned = original.clone();
    pruned.graph.as_mut().unwrap().initializer[0].dims = vec![1, 0, 4];
    let kept = kept(&[("w", axis(3, 0, &[1]))], &[]);
    let verdict = judge(&original, &pruned, &kept);
    assert!(!matches!(verdict.outcome, Outcome::Failed { .. }), "{verdict:?}");
}

#[test]
fn an_input_of_text_is_no_error() {
    let mut original = sigmoid(17);
    original.graph.as_mut().unwrap().input.push(value_info("words", ElementType::String, &[1]));
    let verdict = judge(&original, &original, &Kept::default());
    let Outcome::CannotRun { reason } = &verdict.outcome else { panic!("{verdict:?}") };
    assert!(reason.contains("STRING") && reason.contains("words"), "{reason}");
}

#[test]
fn says_so_when_a_model_cannot_run() {
    let original = two_convolutions(17, vec![node("NoSuchOperator", &["a"], &["b"])]);
    let verdict = judge(&original, &original, &Kept::default());
    let Outcome::CannotRun { reason } = &verdict.outcome else { panic!("{verdict:?}") };
    assert!(reason.contains("NoSuchOperator"), "{reason}");
    let original = sigmoid(17);
    let mut pruned = original.clone();
    pruned.graph.as_mut().unwrap().node[1].input[0] = "nowhere".into();
    let verdict = judge(&original, &pruned, &Kept::default());
    assert!(failure(&verdict).0.starts_with("the original runs and the pruned model does not:"), "{verdict:?}");
}

#[test]
fn the_interface_and_untouched_constants_must_stay() {
    let original = sigmoid(17);
    let mut renamed = original.clone();
    renamed.graph.as_mut().unwrap().output[0].name = Some("b".into());
    let verdict = judge(&original, &renamed, &Kept::default());
    assert!(failure(&verdict).0.contains("the graph outputs were [\"y\"] and are [\"b\"]"), "{verdict:?}");
    let mut retyped = original.clone();
    retyped.graph.as_mut().unwrap().input[0] = value_info("x", ElementType::Float, &[1, 3, 8, 9]);
    let verdict = judge(&original, &retyped, &Kept::default());
    assert!(failure(&verdict).0.contains("declared type or shape of `x` among the graph inputs"), "{verdict:?}");
    let mut touched = original.clone();
    touched.graph.as_mut().unwrap().initializer[3] = float("b2", &[4], vec![0.0; 4]);
    let verdict = judge(&original, &touched, &Kept::default());
    assert_eq!(failure(&verdict).0, "constant `b2` should be unchanged but has other values");
}

#[test]
fn refuses_kept_indices_that_do_not_fit() {
    let original = sigmoid(17);
    let cases = [
        (kept(&[("w9", axis(4, 0, &[0]))], &[]), "does not have"),
        (kept(&[("w1", axis(4, 0, &[8]))], &[]), "kept index 8 is outside an axis of extent 8"),
        (kept(&[("w1", axis(3, 0, &[1]))], &[]), "kept indices for 3 axes, but the rank is 4"),
        (kept(&[], &[("z", axis(4, 1, &[0]))]), "no such activation"),
        (kept(&[], &[("y", axis(4, 1, &[0]))]), "a graph output must not get smaller"),
        (kept(&[], &[("a", axis(4, 1, &[0, 8]))]), "kept index 8 is outside an axis of extent 8 (tensor `a`"),
    ];
    for (kept, what) in cases {
        let error = verify(&original, &original, &kept, &Tract, &VerifyOptions::default()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

/// Every convolution's output with all its channels kept, except where it is a graph output.
fn all_channels_kept(model: &ModelProto) -> Kept {
    let graph = model.graph.as_ref().unwrap();
    let outputs: BTreeSet<&str> = graph.output.iter().map(|o| o.name()).collect();
    let convolutions = graph.node.iter().filter(|n| n.op_type() == "Conv" && !outputs.contains(n.output[0].as_str()));
    let all = |n: &NodeProto| {
        let weight = graph.initializer.iter().find(|t| t.name() == n.input[1])?;
        let every: Vec<u32> = (0..u32::try_from(weight.dims[0]).unwrap()).collect();
        Some((n.output[0].clone(), axis(weight.dims.len(), 1, &every)))
    };
    Kept { activations: convolutions.filter_map(all).collect(), ..Default::default() }
}

/// Nothing pruned: the masked original is the original, and every real model must equal itself exactly.
#[test]
fn real_models_equal_themselves_when_nothing_is_pruned() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        common::skipped(&format!("{} is absent", folder.display()));
        return;
    };
    let inside = entries.flatten().filter_map(|e| std::fs::read_dir(e.path()).ok()).flatten().flatten();
    let mut files: Vec<_> = inside.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect();
    files.sort();
    let mut ran = 0;
    for path in &files {
        let model = ModelProto::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
        let started = std::time::Instant::now();
        let random = verify(&model, &model, &Kept::default(), &Tract, &VerifyOptions::default()).unwrap();
        println!("{} ({:.1?}): random {:?}", path.display(), started.elapsed(), random.outcome);
        let stem = path.file_stem().unwrap().to_str().unwrap().replace("model", "inputs");
        let data = [format!("{stem}.npz"), "inputs.npz".into()].map(|n| path.with_file_name(n));
        let samples: Option<Samples> = data
            .iter()
            .find(|p| p.exists())
            .map(|p| read_samples(p, &SourceOptions::new(std::env::temp_dir())).unwrap());
        let options = VerifyOptions { samples, ..Default::default() };
        let real = verify(&model, &model, &Kept::default(), &Tract, &options);
        match &real {
            Ok(real) => println!("    real {:?}", real.outcome),
            Err(e) => println!("    real refused: {e}"),
        }
        for verdict in [Some(&random), real.as_ref().ok()].into_iter().flatten() {
            assert!(!matches!(verdict.outcome, Outcome::Failed { .. }), "{}: {verdict:?}", path.display());
            assert!(verdict.outputs.iter().all(|o| o.max_absolute == 0.0), "{}: {verdict:?}", path.display());
        }
        // A mask behind every convolution that keeps all channels must change nothing either.
        let masked = verify(&model, &model, &all_channels_kept(&model), &Tract, &VerifyOptions::default()).unwrap();
        println!("    masks that keep everything: {:?}", masked.outcome);
        assert_eq!(masked.passed(), random.passed(), "{}: {masked:?}", path.display());
        ran += usize::from(random.passed());
    }
    assert!(ran * 4 > files.len() * 3, "only {ran} of {} models run", files.len());
}

#[test]
fn what_stands_for_zero_is_believed_of_quantised_values_only() {
    let (original, mut kept) = (sigmoid(17), two_convolutions_kept());
    let pruned = prune(&original, &kept);
    for zero in [Zero::Number(1), Zero::Activation("a".into())] {
        kept.zeros = BTreeMap::from([("b".to_owned(), zero)]);
        let error = verify(&original, &pruned, &kept, &Tract, &VerifyOptions::default()).unwrap_err();
        assert!(error.to_string().contains("no integer is given a zero point"), "{error}");
    }
}

#[test]
fn an_output_that_tells_nothing_is_said_to() {
    let mut original = sigmoid(17);
    let graph = original.graph.as_mut().unwrap();
    // The logarithm of a negative number.
    graph.node.extend([node("Neg", &["b"], &["c"]), node("Log", &["c"], &["d"])]);
    graph.node.push(with(node("ReduceSum", &["d"], &["z"]), int("keepdims", 1)));
    let mut silent = graph.output[0].clone();
    silent.name = Some("z".into());
    silent.r#type = None;
    graph.output.push(silent);
    let mut kept = two_convolutions_kept();
    kept.activations.extend(["c", "d"].map(|name| (name.to_owned(), axis(4, 1, &KEPT))));
    let verdict = judge(&original, &prune(&original, &kept), &kept);
    assert!(verdict.passed(), "{verdict:?}");
    let text = verification_text(&Verification::of(&verdict));
    assert!(text.ends_with("NOT compared, empty or NaN for this input: `z`"), "{text}");
}
