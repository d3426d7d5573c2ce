//! Operators with a result computed by hand: which channels are removed, and the numbers that the pruned model must
//! give.
//!
//! Nothing here is shared with the rules or the verifier: weights, inputs, removed channels and results are written
//! out, and the comment at every case holds the arithmetic. A removed channel counts as zero wherever it is summed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use ndarray::ArrayD;
use onnx_mtprune::allocate::Plan;
use onnx_mtprune::engine::{Tract, Value, inputs, run_once};
use onnx_mtprune::proto::onnx::tensor_proto::DataType;
use onnx_mtprune::prune::Analysis;
use onnx_mtprune::text;

/// Names and numbers.
type Named<'a> = &'a [(&'a str, &'a [f32])];

/// Prunes `model` with these weights by removing channels of the named groups, runs it, and compares its outputs.
#[track_caller]
fn case(model: &str, numbers: Named, removed: &[(&str, &[u32])], outputs: Named) {
    let mut model = text::parse(model).unwrap();
    let mut numbers: BTreeMap<&str, &[f32]> = numbers.iter().copied().collect();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        let Some(values) = numbers.remove(tensor.name()) else { continue };
        assert_eq!(tensor.dims.iter().product::<i64>(), values.len() as i64, "{}", tensor.name());
        let raw: Vec<u8> = match DataType::try_from(tensor.data_type()).unwrap() {
            DataType::Int8 => values.iter().map(|v| *v as i8 as u8).collect(),
            DataType::Int64 => values.iter().flat_map(|v| (*v as i64).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        tensor.raw_data = Some(raw.into());
    }
    let facts = inputs::input_shapes(&model, &BTreeMap::new()).unwrap().remove(0);
    let feeds = facts.iter().map(|fact| {
        let values = numbers.remove(fact.name.as_str()).expect("numbers for every input").to_vec();
        (fact.name.clone(), Value::from(ArrayD::from_shape_vec(fact.shape.clone(), values).unwrap()))
    });
    let feeds: Vec<(String, Value)> = feeds.collect();
    assert!(numbers.is_empty(), "unused: {numbers:?}");

    let analysis = Analysis::of(&model, &[]).unwrap();
    let mut plan = Plan { kept: vec![None; analysis.groups.len()], held: BTreeMap::new() };
    for (name, gone) in removed {
        let group = analysis.groups.iter().position(|g| g.name == *name && g.lock.is_none());
        let names: Vec<_> = analysis.groups.iter().map(|g| (&g.name, g.extent, g.lock)).collect();
        let group = group.unwrap_or_else(|| panic!("no free group {name}: {names:?}"));
        plan.kept[group] = Some((0..analysis.groups[group].extent as u32).filter(|i| !gone.contains(i)).collect());
    }
    let pruned = analysis.apply(&plan).unwrap().output.materialise().unwrap();
    let wanted: Vec<String> = outputs.iter().map(|(name, _)| (*name).to_owned()).collect();
    let found = run_once(&Tract, &pruned, &feeds, &wanted).unwrap();
    for ((name, expected), found) in outputs.iter().zip(&found) {
        let found = found.to_f64();
        let close = |(a, b): (&f64, &f32)| (a - f64::from(*b)).abs() <= 1e-5 * f64::from(b.abs()).max(1.0);
        let equal = found.len() == expected.len() && found.iter().zip(*expected).all(close);
        assert!(equal, "`{name}` is {found:?}, by hand {expected:?}");
    }
}

/// One input of 1 that a convolution turns into channels of the numbers `p`.
const CHANNELS: &str = "in x [1,1,1,1]\n";

#[test]
fn gemm_with_transposed_operands_and_factors() {
    // x p' = [1+4, 3+8, 5+12] = [5, 11, 17]; twice that plus three times b: [13, 22, 31]; without channel 1:
    // 13 * 1 + 31 * 100 = 3113.
    case(
        "in x [2,1]
         h = Gemm(x, p[3,2], b[3], transA=1, transB=1, alpha=2.0, beta=3.0)
         y = MatMul(h, q[3,1])
         out y",
        &[("x", &[1., 2.]), ("p", &[1., 2., 3., 4., 5., 6.]), ("b", &[1., 0., -1.]), ("q", &[1., 10., 100.])],
        &[("p.0", &[1])],
        &[("y", &[3113.])],
    );
}

#[test]
fn matmul() {
    // x p = [1+8, 2+10, 3+12] = [9, 12, 15]; without channel 0: 12 * [2, 0] + 15 * [0, 3] = [24, 45].
    case(
        "in x [1,2]\n h = MatMul(x, p[2,3])\n y = MatMul(h, q[3,2])\n out y",
        &[("x", &[1., 2.]), ("p", &[1., 2., 3., 4., 5., 6.]), ("q", &[1., 1., 2., 0., 0., 3.])],
        &[("p.1", &[0])],
        &[("y", &[24., 45.])],
    );
}

#[test]
fn einsum() {
    // h = [9, 12, 15] as above; without channel 2: k = 0: 9 * 1 + 12 * 3 = 45, k = 1: 9 * 2 + 12 * 4 = 66.
    case(
        "in x [1,2]\n h = MatMul(x, p[2,3])\n y = Einsum(h, q[3,2], equation=\"ij,jk->ki\")\n out y",
        &[("x", &[1., 2.]), ("p", &[1., 2., 3., 4., 5., 6.]), ("q", &[1., 2., 3., 4., 5., 6.])],
        &[("p.1", &[2])],
        &[("y", &[45., 66.])],
    );
}

#[test]
fn grouped_convolution() {
    // a = [1, 2, 3 | 4, 5, 6]. Without position 0 of both groups: [2, 3 | 5, 6].
    // Group 0, rows [.,1,1] and [.,2,1]: 5 and 7. Group 1, rows [.,1,-1] and [.,0,1]: -1 and 6.
    // y = 5 + 70 - 100 + 6000 = 5975.
    case(
        "in x [1,1,1,1]
         a = Conv(x, p[6,1,1,1])
         g = Conv(a, w[4,3,1,1], group=2)
         y = Conv(g, q[1,4,1,1])
         out y",
        &[
            ("x", &[1.]),
            ("p", &[1., 2., 3., 4., 5., 6.]),
            ("w", &[9., 1., 1., 9., 2., 1., 9., 1., -1., 9., 0., 1.]),
            ("q", &[1., 10., 100., 1000.]),
        ],
        &[("p.0#2", &[0])],
        &[("y", &[5975.])],
    );
}

#[test]
fn whole_groups_of_a_convolution() {
    // As above, but group 0 goes: a = [4, 5, 6], rows [1,1,-1] and [2,0,1]: 3 and 14. y = 100 * 3 + 1000 * 14 = 14300.
    case(
        "in x [1,1,1,1]
         a = Conv(x, p[6,1,1,1])
         g = Conv(a, w[4,3,1,1], group=2)
         y = Conv(g, q[1,4,1,1])
         out y",
        &[
            ("x", &[1.]),
            ("p", &[1., 2., 3., 4., 5., 6.]),
            ("w", &[9., 1., 1., 9., 2., 1., 1., 1., -1., 2., 0., 1.]),
            ("q", &[1., 10., 100., 1000.]),
        ],
        &[("p.0", &[0])],
        &[("y", &[14300.])],
    );
}

#[test]
fn transposed_convolution() {
    // a = [2, 3]; without channel 0: 3 * [1, -1] = [3, -3].
    case(
        &format!("{CHANNELS} a = Conv(x, p[2,1,1,1])\n y = ConvTranspose(a, w[2,1,1,2])\n out y"),
        &[("x", &[1.]), ("p", &[2., 3.]), ("w", &[5., 6., 1., -1.])],
        &[("p.0", &[0])],
        &[("y", &[3., -3.])],
    );
}

#[test]
fn lstm() {
    // Gates i and o are 1 (their input is 100), f is 1/2 (0), the candidates are +1 and -1 (+-100).
    // Step 1, unit 1: c = -1, h = tanh(-1) = -0.7615942. Step 2: unit 0 would push unit 1 to +1 by its weight of 1000,
    // but it is gone: c = -1/2 - 1 = -1.5, h = tanh(-1.5) = -0.9051483. The output takes ten times that.
    let mut recurrent = [0.0f32; 16];
    recurrent[14] = 1000.;
    case(
        "in x [2,1,1]
         s, _, _ = LSTM(x, w[1,8,1], r[1,8,2], hidden_size=2)
         y = MatMul(s, q[2,1])
         out y",
        &[
            ("x", &[1., 1.]),
            ("w", &[100., 100., 100., 100., 0., 0., 100., -100.]),
            ("r", &recurrent),
            ("q", &[1., 10.]),
        ],
        &[("r.2", &[0])],
        &[("y", &[-7.615942, -9.051483])],
    );
}

#[test]
fn gru() {
    // Gate z is 0, r is 1, so the state is the candidate: tanh(-100) = -1 in both steps, because unit 0, which would
    // push unit 1 to +1 by its weight of 1000, is gone. The output takes ten times that.
    let mut recurrent = [0.0f32; 12];
    recurrent[10] = 1000.;
    case(
        "in x [2,1,1]
         s, _ = GRU(x, w[1,6,1], r[1,6,2], hidden_size=2)
         y = MatMul(s, q[2,1])
         out y",
        &[("x", &[1., 1.]), ("w", &[-100., -100., 100., 100., 100., -100.]), ("r", &recurrent), ("q", &[1., 10.])],
        &[("r.2", &[0])],
        &[("y", &[-10., -10.])],
    );
}

#[test]
fn batch_normalization() {
    // a = [1, 2, 3]. Channel 1: 2 * (2 - 1) / 1 + 1 = 3. Channel 2: 3 * (3 - 1) / 2 + 1 = 4. Channel 0 is gone.
    // y = 3 * 10 + 4 * 100 = 430.
    case(
        &format!(
            "{CHANNELS} a = Conv(x, p[3,1,1,1])
             b = BatchNormalization(a, scale[3], shift[3], mean[3], var[3], epsilon=0.0)
             y = Conv(b, q[1,3,1,1])\n out y"
        ),
        &[
            ("x", &[1.]),
            ("p", &[1., 2., 3.]),
            ("scale", &[1., 2., 3.]),
            ("shift", &[1., 1., 1.]),
            ("mean", &[0., 1., 1.]),
            ("var", &[1., 1., 4.]),
            ("q", &[1., 10., 100.]),
        ],
        &[("p.0", &[0])],
        &[("y", &[430.])],
    );
}

#[test]
fn instance_normalization() {
    // a = [-1, 1] and [-2, 2]. Channel 1: mean 0, deviation 2, so 3 * [-1, 1] + 1 = [-2, 4]. Channel 0 is gone.
    case(
        "in x [1,1,1,2]
         a = Conv(x, p[2,1,1,1])
         n = InstanceNormalization(a, scale[2], shift[2], epsilon=0.0)
         y = Conv(n, q[1,2,1,1])
         out y",
        &[("x", &[-1., 1.]), ("p", &[1., 2.]), ("scale", &[1., 3.]), ("shift", &[0., 1.]), ("q", &[1., 10.])],
        &[("p.0", &[0])],
        &[("y", &[-20., 40.])],
    );
}

#[test]
fn concat() {
    // [1, 2] and [3, 4] without the first and the last: 2 * 10 + 3 * 100 = 320.
    case(
        &format!(
            "{CHANNELS} a = Conv(x, p[2,1,1,1])\n b = Conv(x, r[2,1,1,1])\n c = Concat(a, b, axis=1)
             y = Conv(c, q[1,4,1,1])\n out y"
        ),
        &[("x", &[1.]), ("p", &[1., 2.]), ("r", &[3., 4.]), ("q", &[1., 10., 100., 1000.])],
        &[("p.0", &[0]), ("r.0", &[1])],
        &[("y", &[320.])],
    );
}

#[test]
fn split() {
    // [1, 2 | 3, 4] without the first of the left and the last of the right part: 2 * 10 = 20, 3 * 100 = 300.
    case(
        &format!(
            "{CHANNELS} a = Conv(x, p[4,1,1,1])\n b, c = Split(a, {{2,2}}, axis=1)
             y = Conv(b, q[1,2,1,1])\n z = Conv(c, r[1,2,1,1])\n out y, z"
        ),
        &[("x", &[1.]), ("p", &[1., 2., 3., 4.]), ("q", &[1., 10.]), ("r", &[100., 1000.])],
        &[("p.0", &[0]), ("p.0#2", &[1])],
        &[("y", &[20.]), ("z", &[300.])],
    );
}

#[test]
fn reshape_to_heads() {
    // Two heads of three: [1, 2, 3 | 4, 5, 6], without dimension 0 of both.
    // Head 0: 2 * 10 + 3 * 1 = 23; head 1: 5 * 1000 + 6 * 100 = 5600. y = 23 + 5600 = 5623.
    case(
        "in x [1,1,1]
         h = MatMul(x, p[1,6])
         r = Reshape(h, {1,1,2,3})
         t = Transpose(r, perm=[0,2,1,3])
         m = MatMul(t, w[2,3,1])
         s = Transpose(m, perm=[0,2,1,3])
         f = Reshape(s, {1,1,2})
         y = MatMul(f, q[2,1])
         out y",
        &[("x", &[1.]), ("p", &[1., 2., 3., 4., 5., 6.]), ("w", &[9., 10., 1., 9., 1000., 100.]), ("q", &[1., 1.])],
        &[("p.1#2", &[0])],
        &[("y", &[5623.])],
    );
}

#[test]
fn depth_to_space() {
    // Eight channels become two pictures of four places; the first is gone: 10 * [5, 6, 7, 8].
    case(
        &format!(
            "{CHANNELS} a = Conv(x, p[8,1,1,1])\n d = DepthToSpace(a, blocksize=2, mode=\"CRD\")
             y = Conv(d, q[1,2,1,1])\n out y"
        ),
        &[("x", &[1.]), ("p", &[1., 2., 3., 4., 5., 6., 7., 8.]), ("q", &[1., 10.])],
        &[("p.0", &[0])],
        &[("y", &[50., 60., 70., 80.])],
    );
}

#[test]
fn gather_of_channels() {
    // [1, 2, 3] in the order 2, 0, 1 is [3, 1, 2]; channel 1, the number 2, is gone: 3 * 1 + 1 * 10 = 13.
    case(
        &format!(
            "{CHANNELS} a = Conv(x, p[3,1,1,1])\n g = Gather(a, {{2,0,1}}, axis=1)\n y = Conv(g, q[1,3,1,1])\n out y"
        ),
        &[("x", &[1.]), ("p", &[1., 2., 3.]), ("q", &[1., 10., 100.])],
        &[("p.0", &[1])],
        &[("y", &[13.])],
    );
}

#[test]
fn mean_over_channels() {
    // The mean of [1, 2, 3, 0], which is 6 / 4 = 1.5, and not 6 / 3.
    case(
        &format!("{CHANNELS} a = Conv(x, p[4,1,1,1])\n y = ReduceMean(a, axes=[1], keepdims=1)\n out y"),
        &[("x", &[1.]), ("p", &[1., 2., 3., 6.])],
        &[("p.0", &[3])],
        &[("y", &[1.5])],
    );
}

#[test]
fn norm_over_channels() {
    // The length of [3, 4, 0] is 5.
    case(
        &format!("{CHANNELS} a = Conv(x, p[3,1,1,1])\n y = ReduceL2(a, axes=[1], keepdims=1)\n out y"),
        &[("x", &[1.]), ("p", &[3., 4., 12.])],
        &[("p.0", &[2])],
        &[("y", &[5.])],
    );
}

#[test]
fn padding_with_a_value() {
    // [1, 7] and [2, 7]; channel 0 is gone with its padding: 10 * [2, 7].
    case(
        &format!(
            "{CHANNELS} a = Conv(x, p[2,1,1,1])\n d = Pad(a, {{0,0,0,0,0,0,0,1}}, <7.0>)\n y = Conv(d, q[1,2,1,1])\n out y"
        ),
        &[("x", &[1.]), ("p", &[1., 2.]), ("q", &[1., 10.])],
        &[("p.0", &[0])],
        &[("y", &[20., 70.])],
    );
}

#[test]
fn dequantized_weights() {
    // (3 - 1) * 2 = 4 and (5 - 2) * 4 = 12; channel 0 is gone: 120.
    case(
        &format!(
            "{CHANNELS} w = DequantizeLinear(p:int8[2,1,1,1], s[2], z:int8[2], axis=0)\n a = Conv(x, w)
             y = Conv(a, q[1,2,1,1])\n out y"
        ),
        &[("x", &[1.]), ("p", &[3., 5.]), ("s", &[2., 4.]), ("z", &[1., 2.]), ("q", &[1., 10.])],
        &[("p.0", &[0])],
        &[("y", &[120.])],
    );
}

#[test]
fn parametric_relu() {
    // [-1, -2, 3] with the slopes [2, 3, 4] is [-2, -6, 3]; channel 0 is gone: -60 + 300 = 240.
    case(
        &format!("{CHANNELS} a = Conv(x, p[3,1,1,1])\n r = PRelu(a, s[3,1,1])\n y = Conv(r, q[1,3,1,1])\n out y"),
        &[("x", &[1.]), ("p", &[-1., -2., 3.]), ("s", &[2., 3., 4.]), ("q", &[1., 10., 100.])],
        &[("p.0", &[0])],
        &[("y", &[240.])],
    );
}

#[test]
fn resize() {
    // Every place of the doubled picture holds 2 in channel 1; channel 0 is gone: 20 everywhere.
    case(
        &format!(
            "{CHANNELS} a = Conv(x, p[2,1,1,1])
             r = Resize(a, _, <1.0,1.0,2.0,2.0>, mode=\"nearest\", nearest_mode=\"floor\", coordinate_transformation_mode=\"asymmetric\")
             y = Conv(r, q[1,2,1,1])\n out y"
        ),
        &[("x", &[1.]), ("p", &[1., 2.]), ("q", &[1., 10.])],
        &[("p.0", &[0])],
        &[("y", &[20., 20., 20., 20.])],
    );
}

#[test]
fn cumulative_sum() {
    // Channel 1 holds [3, 6], summed up [3, 9]; channel 0 is gone: [30, 90].
    case(
        "in x [1,1,1,2]
         a = Conv(x, p[2,1,1,1])
         s = CumSum(a, k:int64{3})
         y = Conv(s, q[1,2,1,1])
         out y",
        &[("x", &[1., 2.]), ("p", &[1., 3.]), ("q", &[1., 10.])],
        &[("p.0", &[0])],
        &[("y", &[30., 90.])],
    );
}

#[test]
fn attention_of_one_head() {
    // Two tokens x = [1, 2]. q = x * [1, 5], k = x * [0, 7]: without channel 1 of q and k the scores are 0, so that
    // every token takes the mean of v. v = x * [4, 6] = [[4, 6], [8, 12]], mean [6, 9]; without channel 0 of v: 9 * 10.
    case(
        "in x [2,1]
         q = MatMul(x, wq[1,2])
         k = MatMul(x, wk[1,2])
         v = MatMul(x, wv[1,2])
         t = Transpose(k, perm=[1,0])
         s = MatMul(q, t)
         a = Softmax(s, axis=-1)
         c = MatMul(a, v)
         y = MatMul(c, o[2,1])
         out y",
        &[("x", &[1., 2.]), ("wq", &[1., 5.]), ("wk", &[0., 7.]), ("wv", &[4., 6.]), ("o", &[1., 10.])],
        &[("wq.1", &[1]), ("wv.1", &[0])],
        &[("y", &[90., 90.])],
    );
}
