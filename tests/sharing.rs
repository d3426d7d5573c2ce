//! Constants with several readers, however they are stored: initializers, initializers that are inputs, Constant nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use onnx_mtprune::allocate::Rounding;
use onnx_mtprune::engine::Tract;
use onnx_mtprune::proto::onnx::{
    AttributeProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::text;
use onnx_mtprune::verify::{Outcome, VerifyOptions, verify};

/// A bias and a weight, both read by a layer that is pruned and by one that is not, and a tied embedding.
const SHARED: &str = "
    in x [1,3,4,4]
    in z [1,16,4,4]
    a = Conv(x, w0[16,3,3,3])
    b = Conv(a, w[8,16,1,1], bias[8])
    y = Conv(b, w2[2,8,1,1])
    v = Conv(z, w, bias)
    out y, v";

fn prune(model: &ModelProto, ratio: f64) -> ModelProto {
    let analysis = Analysis::of(model, &[]).unwrap();
    let config = PruneConfig { ratio, rounding: Rounding::Multiple(1), ..Default::default() };
    let rewritten = analysis.apply(&analysis.plan(&config).unwrap()).unwrap();
    let pruned = rewritten.output.materialise().unwrap();
    let options = VerifyOptions { altered: rewritten.altered.clone(), ..Default::default() };
    let verdict = verify(model, &pruned, &rewritten.kept, &Tract, &options).unwrap();
    assert!(verdict.passed(), "{verdict:?}");
    pruned
}

fn declared(info: &ValueInfoProto) -> Vec<i64> {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().unwrap().value.as_ref() else { panic!() };
    tensor
        .shape
        .as_ref()
        .unwrap()
        .dim
        .iter()
        .map(|d| match d.value {
            Some(tensor_shape_proto::dimension::Value::DimValue(n)) => n,
            _ => -1,
        })
        .collect()
}

#[test]
fn inputs_of_early_files_follow_their_initializers() {
    let mut model = text::parse(SHARED).unwrap();
    model.ir_version = Some(3);
    let graph = model.graph.as_mut().unwrap();
    for tensor in &graph.initializer {
        let dimension = |d: &i64| tensor_shape_proto::Dimension {
            value: Some(tensor_shape_proto::dimension::Value::DimValue(*d)),
            ..Default::default()
        };
        let shape = Some(TensorShapeProto { dim: tensor.dims.iter().map(dimension).collect() });
        let value = type_proto::Value::TensorType(type_proto::Tensor { elem_type: tensor.data_type, shape });
        graph.input.push(ValueInfoProto {
            name: tensor.name.clone(),
            r#type: Some(TypeProto { value: Some(value), ..Default::default() }),
            ..Default::default()
        });
    }
    let pruned = prune(&model, 0.5).graph.unwrap();
    for tensor in &pruned.initializer {
        let input = pruned.input.iter().find(|i| i.name() == tensor.name()).expect("an input for every initializer");
        assert_eq!(declared(input), tensor.dims, "{}", tensor.name());
    }
    let dims = |name: &str| pruned.initializer.iter().find(|t| t.name() == name).map(|t| t.dims.clone());
    // The layer that reads a graph input keeps all input channels, and the one that feeds an output all of its own.
    assert_eq!((dims("w"), dims("bias")), (Some(vec![8, 16, 1, 1]), Some(vec![8])));
    assert_eq!((dims("w_pruned"), dims("bias_pruned")), (Some(vec![4, 8, 1, 1]), Some(vec![4])));
    assert_eq!(dims("w0"), Some(vec![8, 3, 3, 3]));
}

#[test]
fn constant_nodes_are_divided_like_initializers() {
    let mut model = text::parse(SHARED).unwrap();
    let graph = model.graph.as_mut().unwrap();
    for (place, tensor) in std::mem::take(&mut graph.initializer).into_iter().enumerate() {
        let name = tensor.name().to_owned();
        let value = AttributeProto {
            name: Some("value".to_owned()),
            r#type: Some(AttributeType::Tensor as i32),
            t: Some(tensor),
            ..Default::default()
        };
        let node = NodeProto {
            op_type: Some("Constant".to_owned()),
            output: vec![name],
            attribute: vec![value],
            ..Default::default()
        };
        graph.node.insert(place, node);
    }
    let pruned = prune(&model, 0.5).graph.unwrap();
    let copies: Vec<(&str, &[i64])> = pruned.initializer.iter().map(|t| (t.name(), t.dims.as_slice())).collect();
    assert_eq!(copies, [("w_pruned", &[4, 8, 1, 1][..]), ("bias_pruned", &[4])]);
}

#[test]
fn a_copy_that_makes_the_file_grow_is_not_made() {
    let model = text::parse(
        "in x [1,3,4,4]
         in z [1,16,4,4]
         a = Conv(x, w0[16,3,1,1])
         b = Conv(a, w[32,16,1,1])
         y = Conv(b, w2[2,32,1,1])
         v = Conv(z, w)
         out y, v",
    )
    .unwrap();
    let elements = |model: &ModelProto| {
        let graph = model.graph.as_ref().unwrap();
        graph.initializer.iter().map(|t| t.dims.iter().product::<i64>()).sum::<i64>()
    };
    for ratio in [0.1, 0.3, 0.5, 0.8] {
        assert!(elements(&prune(&model, ratio)) <= elements(&model), "at {ratio}");
    }
}

/// Why verification refuses the cut of a model whose constant `name`, which is divided, is changed afterwards.
fn refusal(text: &str, name: &str, change: &dyn Fn(&mut TensorProto)) -> String {
    let model = text::parse(text).unwrap();
    let analysis = Analysis::of(&model, &[]).unwrap();
    let config = PruneConfig { ratio: 0.5, rounding: Rounding::Multiple(1), ..Default::default() };
    let rewritten = analysis.apply(&analysis.plan(&config).unwrap()).unwrap();
    let mut wrong = rewritten.output.materialise().unwrap();
    let options = VerifyOptions { altered: rewritten.altered.clone(), ..Default::default() };
    assert!(options.altered.contains(name), "{:?}", options.altered);
    let verdict = verify(&model, &wrong, &rewritten.kept, &Tract, &options).unwrap();
    assert!(verdict.passed(), "{verdict:?}");
    let constants = &mut wrong.graph.as_mut().unwrap().initializer;
    change(constants.iter_mut().find(|t| t.name() == name).unwrap());
    match verify(&model, &wrong, &rewritten.kept, &Tract, &options).unwrap().outcome {
        Outcome::Failed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_divided_constant_is_a_part_of_the_original() {
    // Too small a change for any output to tell.
    let nudge = |tensor: &mut TensorProto| {
        let mut raw = tensor.raw_data.as_ref().unwrap().to_vec();
        raw[0] ^= 1;
        tensor.raw_data = Some(raw.into());
    };
    assert_eq!(refusal(SHARED, "w", &nudge), "constant `w` should be unchanged but has other values");
    let longer = refusal(SHARED, "w", &|w| w.dims[0] += 1);
    assert_eq!(longer, "constant `w` has the shape [9, 16, 1, 1], which is no part of [8, 16, 1, 1]");
    let both_cut = "in x [1,3,4,4]
        a = Conv(x, w0[16,3,1,1], bias[16])
        b = Conv(x, w1[16,3,1,1], bias)
        y = Conv(a, w2[2,16,1,1])
        z = Conv(b, w3[2,16,1,1])
        out y, z";
    let nudged = refusal(both_cut, "bias", &nudge);
    assert_eq!(nudged, "constant `bias` holds what the original does not hold along axis 0");
}
