//! A pruned LSTM against equations written out here in f64: what tract makes of the pruned model equals the original
//! cell with the removed hidden unit held at zero. Nothing is shared with the rule or with the verifier.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use onnx_mtprune::allocate::Plan;
use onnx_mtprune::engine::{Tract, Value, run_once};
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::proto::tensor;
use onnx_mtprune::prune::Analysis;
use onnx_mtprune::text;

const HIDDEN: usize = 3;
const INPUTS: usize = 2;
const KEPT: [usize; 2] = [0, 2];
const STEPS: [[f64; INPUTS]; 3] = [[0.5, -1.0], [1.5, 0.25], [-0.75, 2.0]];

const MODEL: &str = "in x [3,1,2]
    y, h, c = LSTM(x, w[1,12,2], r[1,12,3], b[1,24], _, i[1,1,3], j[1,1,3], p[1,9], hidden_size=3)
    s = Squeeze(y, {1})
    o = MatMul(s, v[3,2])
    d = Squeeze(c, {0})
    e = MatMul(d, u[3,2])
    out o, e";

fn numbers(model: &ModelProto, name: &str) -> Vec<f64> {
    let found = model.graph.as_ref().unwrap().initializer.iter().find(|t| t.name() == name).unwrap();
    tensor::to_f32(found).unwrap().into_iter().map(f64::from).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The equations of the specification, gates in its order (input, output, forget, cell); only the units in `alive`
/// take part. Gives what the model gives: `o` for each step, then `e`.
fn by_hand(model: &ModelProto, alive: &[usize]) -> Vec<f64> {
    let get = |name: &str| numbers(model, name);
    let (w, r, b, p, v, u) = (get("w"), get("r"), get("b"), get("p"), get("v"), get("u"));
    let (mut h, mut c) = (get("i"), get("j"));
    let readout = |state: &[f64], weights: &[f64], out: &mut Vec<f64>| {
        for column in 0..2 {
            out.push(alive.iter().map(|unit| state[*unit] * weights[unit * 2 + column]).sum());
        }
    };
    let mut out = Vec::new();
    for x in STEPS {
        let before = |gate: usize, unit: usize| {
            let row = gate * HIDDEN + unit;
            let from_input: f64 = (0..INPUTS).map(|i| w[row * INPUTS + i] * x[i]).sum();
            let from_state: f64 = alive.iter().map(|k| r[row * HIDDEN + k] * h[*k]).sum();
            from_input + from_state + b[row] + b[4 * HIDDEN + row]
        };
        let mut next = (vec![0.0; HIDDEN], vec![0.0; HIDDEN]);
        for unit in alive.iter().copied() {
            let input = sigmoid(before(0, unit) + p[unit] * c[unit]);
            let forget = sigmoid(before(2, unit) + p[2 * HIDDEN + unit] * c[unit]);
            let cell = forget * c[unit] + input * before(3, unit).tanh();
            let output = sigmoid(before(1, unit) + p[HIDDEN + unit] * cell);
            next.0[unit] = output * cell.tanh();
            next.1[unit] = cell;
        }
        (h, c) = next;
        readout(&h, &v, &mut out);
    }
    readout(&c, &u, &mut out);
    out
}

fn run(model: &ModelProto) -> Vec<f64> {
    let x = STEPS.iter().flatten().map(|x| *x as f32).collect();
    let x = Value::from(ArrayD::from_shape_vec(IxDyn(&[3, 1, 2]), x).unwrap());
    let outputs = run_once(&Tract, model, &[("x".to_owned(), x)], &["o".to_owned(), "e".to_owned()]).unwrap();
    let list = |value: &Value| match value {
        Value::F32(array) => array.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(),
        other => panic!("{:?}", other.element()),
    };
    outputs.iter().flat_map(list).collect()
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_pruned_lstm_does_what_the_equations_say() {
    let original = text::parse(MODEL).unwrap();
    let all: Vec<usize> = (0..HIDDEN).collect();
    assert!(difference(&run(&original), &by_hand(&original, &all)) < 1e-5, "the equations are not the operator's");

    let analysis = Analysis::of(&original, &[]).unwrap();
    let free: Vec<usize> = (0..analysis.groups.len()).filter(|g| analysis.groups[*g].lock.is_none()).collect();
    let [hidden] = free[..] else { panic!("{} groups may shrink, expected the hidden units alone", free.len()) };
    assert_eq!(analysis.groups[hidden].extent, HIDDEN);
    let mut kept = vec![None; analysis.groups.len()];
    kept[hidden] = Some(KEPT.map(|unit| unit as u32).to_vec());
    let rewritten = analysis.apply(&Plan { kept, held: BTreeMap::new() }).unwrap();
    let pruned = rewritten.output.materialise().unwrap();

    assert_eq!(numbers(&pruned, "w").len(), 4 * 2 * INPUTS);
    let masked = by_hand(&original, &KEPT);
    assert!(difference(&run(&pruned), &masked) < 1e-5, "{:?} is not {masked:?}", run(&pruned));
    assert!(
        difference(&masked, &by_hand(&original, &all)) > 1e-2,
        "the removed unit does nothing, so nothing is shown"
    );
}

#[test]
fn every_gate_counts_its_multiplications() {
    let model = text::parse(MODEL).unwrap();
    let analysis = Analysis::of(&model, &[]).unwrap();
    let lstm = analysis.graph.order[0];
    let macs = analysis.coupling.macs[lstm.0 as usize].as_ref().and_then(|m| m.value());
    assert_eq!(macs, Some(3 * (12 * 2 + 12 * 3)), "steps by (W and R)");
}
