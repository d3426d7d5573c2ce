//! Repair of pruned models from samples, on models small enough to know the answer.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;

use onnx_mtprune::calibration::{Batch, Batches};
use onnx_mtprune::engine::samples::random_feeds;
use onnx_mtprune::engine::{ElementType, Engine, Feeds, InputFact, Session, Tract, Value, run_once};
use onnx_mtprune::kept::Kept;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::repair::{Method, RepairConfig, Repaired, repair};
use onnx_mtprune::verify::{Declared, Outcome, verify_repair};
use onnx_mtprune::{Result, text};

/// Random batches of one input `x`.
struct Random(Vec<Feeds>, usize);

impl Random {
    fn new(shape: &[usize], count: usize) -> Self {
        let fact = InputFact { name: "x".to_owned(), element: ElementType::Float, shape: shape.to_vec() };
        let feeds = (0..count).map(|seed| random_feeds(std::slice::from_ref(&fact), seed as u64).unwrap()).collect();
        Self(feeds, shape[0])
    }
}

impl Batches for Random {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn samples(&self) -> usize {
        self.0.len() * self.1
    }

    fn batch(&self, index: usize) -> Result<Batch> {
        let samples = (0..self.1).map(|i| index * self.1 + i).collect();
        Ok(Batch { feeds: self.0[index].clone(), samples, filler: 0 })
    }
}

struct Case {
    original: ModelProto,
    pruned: ModelProto,
    kept: Kept,
    batches: Random,
}

impl Case {
    /// Prunes by half what is not protected; `edit` may change the original first.
    fn new(model: &str, shape: &[usize], edit: impl Fn(&mut ModelProto)) -> Self {
        let mut original = text::parse(model).unwrap();
        edit(&mut original);
        let analysis = Analysis::of(&original, &[]).unwrap();
        let config = PruneConfig { ratio: 0.5, ..PruneConfig::default() };
        let mut plan = analysis.plan(&config).unwrap();
        // Every second channel, so that `depend` can say which ones go.
        for kept in plan.kept.iter_mut().flatten() {
            kept.iter_mut().zip(0u32..).for_each(|(index, i)| *index = 2 * i);
        }
        let rewritten = analysis.apply(&plan).unwrap();
        assert!(!rewritten.kept.is_empty(), "nothing is pruned");
        let pruned = rewritten.output.materialise().unwrap();
        drop(analysis);
        Self { pruned, kept: rewritten.kept, original, batches: Random::new(shape, 24) }
    }

    fn repair(&self, lambda: f64) -> Repaired {
        let config = RepairConfig { method: Method::LeastSquares, lambda, ..RepairConfig::default() };
        let repaired = repair(&self.original, self.pruned.clone(), &self.kept, &Tract, &self.batches, &config).unwrap();
        println!("{:?} {:?} left {:?}", repaired.changed, repaired.added, repaired.left);
        repaired
    }

    /// The relative difference of the outputs on samples that were not fitted.
    fn error(&self, model: &ModelProto) -> f64 {
        let fresh = self.batches.0[0][0].1.shape().to_vec();
        let fact = InputFact { name: "x".to_owned(), element: ElementType::Float, shape: fresh };
        let feeds = random_feeds(&[fact], 4711).unwrap();
        let outputs: Vec<String> =
            self.original.graph.as_ref().unwrap().output.iter().map(|o| o.name().to_owned()).collect();
        let dense = run_once(&Tract, &self.original, &feeds, &outputs).unwrap();
        let found = run_once(&Tract, model, &feeds, &outputs).unwrap();
        let (mut difference, mut size) = (0.0, 0.0);
        for (a, b) in dense.iter().zip(&found) {
            for (a, b) in a.to_f64().iter().zip(b.to_f64()) {
                difference += (a - b).powi(2);
                size += a.powi(2);
            }
        }
        (difference / size).sqrt()
    }
}

fn floats(model: &ModelProto) -> BTreeMap<String, Vec<f32>> {
    let graph = model.graph.as_ref().unwrap();
    graph
        .initializer
        .iter()
        .filter_map(|t| Some((t.name().to_owned(), onnx_mtprune::proto::tensor::to_f32(t).ok()?)))
        .collect()
}

/// Makes the output channels `from` of a weight (and bias) copies of the others, scaled, so that they can be removed
/// without loss: channel 2i+1 = factor * channel 2i.
fn depend(model: &mut ModelProto, names: &[&str], factor: f32) {
    let graph = model.graph.as_mut().unwrap();
    for tensor in graph.initializer.iter_mut().filter(|t| names.contains(&t.name())) {
        let mut values = onnx_mtprune::proto::tensor::to_f32(tensor).unwrap();
        let row = values.len() / usize::try_from(tensor.dims[0]).unwrap();
        for pair in values.chunks_exact_mut(2 * row) {
            let (first, second) = pair.split_at_mut(row);
            first.iter().zip(second).for_each(|(a, b)| *b = a * factor);
        }
        *tensor = onnx_mtprune::proto::tensor::from_f32(tensor.name(), &tensor.dims, &values);
    }
}

const CONVOLUTIONS: &str = "in x [4,3,10,9]
    a = Conv(x, w0[8,3,3,3], b0[8], pads=[1,1,1,1])
    b = Relu(a)
    y = Conv(b, w1[5,8,3,3], b1[5], pads=[1,0,1,1], strides=[2,1])
    out y";

#[test]
fn what_depends_on_the_rest_is_restored_exactly() {
    for model in [
        CONVOLUTIONS.to_owned(),
        CONVOLUTIONS.replace("b1[5], ", ""),
        CONVOLUTIONS
            .replace("pads=[1,0,1,1], strides=[2,1]", "auto_pad=\"SAME_UPPER\", strides=[2,2], dilations=[1,1]"),
        CONVOLUTIONS
            .replace("w1[5,8,3,3], b1[5], pads=[1,0,1,1], strides=[2,1]", "w1[5,8,3,3], b1[5], dilations=[2,2]"),
    ] {
        // Positive factors pass a Relu.
        let case = Case::new(&model, &[4, 3, 10, 9], |m| depend(m, &["w0", "b0"], 0.5));
        let before = case.error(&case.pruned);
        let repaired = case.repair(1e-9);
        let after = case.error(&repaired.model);
        println!("{before:.3} -> {after:.2e}");
        assert!(before > 0.05 && after < 1e-5, "{before} {after}");
        assert_eq!((repaired.refitted, repaired.left.len()), (1, 0));
    }
}

#[test]
fn an_infinite_ridge_leaves_the_weights() {
    let case = Case::new(CONVOLUTIONS, &[4, 3, 10, 9], |_| ());
    for lambda in [1e14, f64::INFINITY] {
        let repaired = case.repair(lambda);
        assert_eq!(floats(&repaired.model)["w1"], floats(&case.pruned)["w1"]);
        assert_eq!(repaired.changed.keys().collect::<Vec<_>>(), ["b1"]);
    }
}

#[test]
fn without_removed_channels_nothing_changes() {
    let original = text::parse(CONVOLUTIONS).unwrap();
    let batches = Random::new(&[4, 3, 10, 9], 4);
    let config = RepairConfig::default();
    let repaired = repair(&original, original.clone(), &Kept::default(), &Tract, &batches, &config).unwrap();
    assert_eq!(repaired.model, original);
}

#[test]
fn only_the_constants_named_differ() {
    let case = Case::new(CONVOLUTIONS, &[4, 3, 10, 9], |_| ());
    let repaired = case.repair(1e-2);
    let mut undone = repaired.model.clone();
    for (tensor, old) in
        undone.graph.as_mut().unwrap().initializer.iter_mut().zip(&case.pruned.graph.as_ref().unwrap().initializer)
    {
        assert_eq!(repaired.changed.contains_key(tensor.name()), tensor != old, "{}", tensor.name());
        *tensor = old.clone();
    }
    assert_eq!(undone, case.pruned);
    assert!(case.error(&repaired.model) < 0.8 * case.error(&case.pruned));
}

/// Models whose removed channels depend on the kept ones, with the shape of `x`, the tensors that are made dependent,
/// and how many contractions must be refitted.
const EXACT: &[(&str, &[usize], &[&str], usize)] = &[
    // An equation that is a product with a matrix, the channels before the positions.
    (
        "in x [4,3,8]
        a = Conv(x, w0[8,3,1], b0[8])
        b = Relu(a)
        y = Einsum(b, w1[5,8], equation=\"bcs,dc->bds\")
        out y",
        &[4, 3, 8],
        &["w0", "b0"],
        1,
    ),
    // A depthwise convolution keeps the dependence, the pointwise one behind it restores it.
    (
        "in x [4,3,8,8]
         a = Conv(x, w0[8,3,3,3], b0[8])
         b = Relu(a)
         c = Conv(b, d[8,1,3,3], group=8)
         y = Conv(c, w1[5,8,1,1])
         out y",
        &[4, 3, 8, 8],
        &["w0", "b0", "d"],
        2,
    ),
    // Grouped: whole groups or positions inside them.
    (
        "in x [4,3,8,8]
         a = Conv(x, w0[16,3,3,3], b0[16])
         b = Relu(a)
         y = Conv(b, w1[6,8,3,3], b1[6], group=2)
         out y",
        &[4, 3, 8, 8],
        &["w0", "b0"],
        1,
    ),
    (
        "in x [4,3,7,6]
         a = Conv(x, w0[8,3,3,3], b0[8])
         b = Relu(a)
         y = ConvTranspose(b, w1[8,5,3,2], b1[5], strides=[2,3], pads=[1,0,0,1], output_padding=[1,2])
         out y",
        &[4, 3, 7, 6],
        &["w0", "b0"],
        1,
    ),
    (
        "in x [4,3,12]
         a = Conv(x, w0[8,3,3], b0[8], pads=[1,1])
         b = Relu(a)
         y = ConvTranspose(b, w1[8,5,4], strides=[2], pads=[1,2])
         out y",
        &[4, 3, 12],
        &["w0", "b0"],
        1,
    ),
    (
        "in x [16,6]
         a = Gemm(x, w0[8,6], b0[8], transB=1)
         b = Relu(a)
         y = Gemm(b, w1[8,5], b1[5], alpha=0.5, beta=2.0)
         out y",
        &[16, 6],
        &["w0", "b0"],
        1,
    ),
    (
        "in x [6,5,4]
         a = Gemm(f, w0[8,20], b0[8], transB=1)
         f = Flatten(x)
         b = Relu(a)
         h = MatMul(b, w1[8,7])
         y = Add(h, b1[7])
         out y",
        &[6, 5, 4],
        &["w0", "b0"],
        1,
    ),
    (
        "in x [4,6,5]
         t = Transpose(x, perm=[0,2,1])
         a = Conv(t, w0[8,5,1], b0[8])
         b = Relu(a)
         y = MatMul(w1[7,8], b)
         out y",
        &[4, 6, 5],
        &["w0", "b0"],
        1,
    ),
    // A normalisation that takes the bias into its mean.
    (
        "in x [4,3,8,8]
         a = Conv(x, w0[8,3,3,3], b0[8])
         b = Relu(a)
         c = Conv(b, w1[5,8,3,3])
         y = BatchNormalization(c, s<1.0,2.0,0.5,1.5,1.0>, t[5], m[5], v<1.0,2.0,0.5,1.5,1.0>)
         out y",
        &[4, 3, 8, 8],
        &["w0", "b0"],
        1,
    ),
    // The input weights of a recurrence: channels first, then time first.
    (
        "in x [4,3,10]
         a = Conv(x, w0[8,3,3], b0[8])
         b = Relu(a)
         c = Transpose(b, perm=[2,0,1])
         h, i, j = LSTM(c, w[1,12,8], r[1,12,3], hidden_size=3)
         y = Reshape(h, {8,4,3})
         out y",
        &[4, 3, 10],
        &["w0", "b0"],
        1,
    ),
    // Two directions at once, with a bias for data and state.
    (
        "in x [4,3,10]
         a = Conv(x, w0[8,3,3], b0[8])
         b = Relu(a)
         c = Transpose(b, perm=[2,0,1])
         h, i = GRU(c, w[2,9,8], r[2,9,3], b1[2,18], hidden_size=3, direction=\"bidirectional\")
         y = Reshape(h, {8,8,3})
         out y",
        &[4, 3, 10],
        &["w0", "b0"],
        1,
    ),
    // Groups, gaps and borders of every kind.
    (
        "in x [4,3,7,6]
         a = Conv(x, w0[8,3,3,3], b0[8])
         b = Relu(a)
         y = ConvTranspose(b, w1[8,3,3,2], b1[6], group=2, strides=[2,3], dilations=[2,1], pads=[1,0,0,1])
         out y",
        &[4, 3, 7, 6],
        &["w0", "b0"],
        1,
    ),
    (
        "in x [4,3,9,8]
         a = Conv(x, w0[8,3,3,3], b0[8])
         b = Relu(a)
         y = Conv(b, w1[6,8,4,3], b1[6], auto_pad=\"SAME_LOWER\", strides=[2,3])
         out y",
        &[4, 3, 9, 8],
        &["w0", "b0"],
        1,
    ),
    (
        "in x [2,3,6,5,4]
         a = Conv(x, w0[8,3,2,2,2], b0[8])
         b = Relu(a)
         y = Conv(b, w1[5,8,2,3,2], pads=[0,1,1,1,0,0], dilations=[2,1,1])
         out y",
        &[2, 3, 6, 5, 4],
        &["w0", "b0"],
        1,
    ),
    // A bias that two nodes share: each gets its own.
    (
        "in x [4,3,8,8]
         a = Conv(x, w0[8,3,3,3], b0[8])
         b = Relu(a)
         u = Conv(b, w1[5,8,3,3], b1[5])
         v = Conv(b, w2[5,8,3,3], b1)
         y = Mul(u, v)
         out y",
        &[4, 3, 8, 8],
        &["w0", "b0"],
        2,
    ),
];

/// What is removed is 100,000 times what it depends on, and half precision ends at 65,504.
#[test]
fn numbers_beyond_the_range_of_their_type_are_not_written() {
    let model = "in x [16,6]
        h = Cast(x, to=10)
        a = MatMul(h, w0[6,8])
        b = Relu(a)
        c = MatMul(b, w1[8,5])
        y = Cast(c, to=1)
        out y";
    let case = Case::new(model, &[16, 6], |model| {
        for tensor in &mut model.graph.as_mut().unwrap().initializer {
            let mut values = onnx_mtprune::proto::tensor::to_f32(tensor).unwrap();
            if tensor.name() == "w0" {
                for pair in values.chunks_exact_mut(2) {
                    (pair[0], pair[1]) = (pair[0] * 1e-3, pair[0] * 100.0);
                }
            }
            let raw: Vec<u8> = values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
            tensor.data_type = Some(ElementType::Float16 as i32);
            tensor.raw_data = Some(raw.into());
        }
    });
    let repaired = case.repair(1e-9);
    assert!(repaired.left.iter().any(|left| left.why.contains("beyond the range")), "{:?}", repaired.left);
    assert!(floats(&repaired.model).values().flatten().all(|x| x.is_finite()));
    assert_eq!(repaired.model, case.pruned);
}

/// One weight for two layers can be fitted to neither.
#[test]
fn shared_weights_stay_and_are_named() {
    let model = "in x [4,3,8,8]
        a = Conv(x, w0[8,3,3,3], b0[8])
        b = Relu(a)
        u = Conv(b, w1[5,8,3,3], b1[5])
        s = MaxPool(b, kernel_shape=[2,2])
        v = Conv(s, w1, b2[5])
        out u, v";
    let case = Case::new(model, &[4, 3, 8, 8], |_| ());
    let repaired = case.repair(1e-2);
    assert_eq!((repaired.refitted, repaired.left.len()), (0, 2), "{:?}", repaired.left);
    assert!(repaired.left.iter().all(|left| left.why.contains("`w1` is shared")), "{:?}", repaired.left);
    assert_eq!(repaired.model, case.pruned);
}

#[test]
fn every_kind_of_contraction_is_restored_exactly() {
    for (model, shape, dependent, refitted) in EXACT {
        let case = Case::new(model, shape, |m| depend(m, dependent, 0.5));
        let before = case.error(&case.pruned);
        let repaired = case.repair(1e-9);
        let after = case.error(&repaired.model);
        println!("{before:.3} -> {after:.2e}");
        assert!(before > 0.02 && after < 2e-5, "{model}: {before} {after}");
        assert_eq!((repaired.refitted, repaired.left.len()), (*refitted, 0), "{model}: {:?}", repaired.left);
    }
}

/// What is added to a contraction may broadcast, as an embedding of time or a pooled context does.
#[test]
fn sums_that_broadcast_are_aimed_at() {
    let model = "in x [4,3,8,8]
        a = Conv(x, w0[8,3,3,3], b0[8])
        b = Relu(a)
        s = GlobalAveragePool(b)
        g = Conv(s, w1[5,8,1,1], b1[5])
        c = Conv(b, w2[5,8,3,3], b2[5])
        y = Add(c, g)
        out y";
    let case = Case::new(model, &[4, 3, 8, 8], |m| depend(m, &["w0", "b0"], 0.5));
    let before = case.error(&case.pruned);
    let repaired = case.repair(1e-9);
    let after = case.error(&repaired.model);
    assert!(before > 0.02 && after < 2e-5, "{before} {after}");
    assert_eq!((repaired.refitted, repaired.left.len()), (2, 0), "{:?}", repaired.left);
}

/// A matrix product may add a number to every row, which is no bias of its outputs even where there are as many.
#[test]
fn a_number_for_every_row_is_no_bias() {
    let model = "in x [5,6]
        a = Gemm(x, w0[8,6], b0[8], transB=1)
        b = Relu(a)
        y = Gemm(b, w1[8,5], c[5,1])
        out y";
    let case = Case::new(model, &[5, 6], |m| depend(m, &["w0", "b0"], 0.5));
    for method in [Method::Bias, Method::LeastSquares] {
        let config = RepairConfig { method, lambda: 1e-9, ..RepairConfig::default() };
        let repaired = repair(&case.original, case.pruned.clone(), &case.kept, &Tract, &case.batches, &config).unwrap();
        assert!(repaired.left.iter().any(|left| left.why.contains("its bias")), "{:?}", repaired.left);
        assert_eq!(floats(&repaired.model)["c"], floats(&case.original)["c"], "{method:?}");
    }
}

/// An engine that counts how many of its sessions are open at a time.
struct Counting(std::sync::Arc<std::sync::Mutex<(usize, usize)>>);

struct Counted(Box<dyn Session>, std::sync::Arc<std::sync::Mutex<(usize, usize)>>);

impl Engine for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn open(&self, model: &ModelProto, inputs: &[InputFact], wanted: &[String]) -> Result<Box<dyn Session>> {
        let session = Tract.open(model, inputs, wanted)?;
        let mut count = self.0.lock().unwrap();
        count.0 += 1;
        count.1 = count.1.max(count.0);
        Ok(Box::new(Counted(session, self.0.clone())))
    }
}

impl Session for Counted {
    fn run(&self, feeds: &[(String, Value)]) -> Result<Vec<Value>> {
        self.0.run(feeds)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.lock().unwrap().0 -= 1;
    }
}

/// Every session holds the weights, and there may be as many lengths as samples.
#[test]
fn samples_of_many_lengths_do_not_keep_as_many_sessions_open() {
    let model = "in x [1,t,6]
        a = MatMul(x, w0[6,8])
        b = Relu(a)
        y = MatMul(b, w1[8,5])
        out y";
    let mut case = Case::new(model, &[1, 4, 6], |_| ());
    case.batches.0 = (1..40).flat_map(|length| Random::new(&[1, length, 6], 1).0).collect();
    let count = std::sync::Arc::default();
    let engine = Counting(std::sync::Arc::clone(&count));
    let config = RepairConfig::default();
    let repaired = repair(&case.original, case.pruned.clone(), &case.kept, &engine, &case.batches, &config).unwrap();
    assert_eq!(repaired.refitted, 1);
    let (open, most) = *count.lock().unwrap();
    assert!(open == 0 && most <= 2 + rayon::current_num_threads(), "{open} {most}");
}

/// The skip loses something itself, which only the last contraction before the sum can make up for.
#[test]
fn a_residual_branch_makes_up_for_its_skip() {
    for normalised in [false, true] {
        let last = if normalised {
            "e = Conv(d, w3[8,8,3,3], pads=[1,1,1,1])
             f = BatchNormalization(e, s<1.0,2.0,0.5,1.5,1.0,1.0,-1.0,0.7>, t[8], m[8], v<1.0,2.0,0.5,1.5,1.0,1.0,2.0,3.0>)"
        } else {
            "f = Conv(d, w3[8,8,3,3], b3[8], pads=[1,1,1,1])"
        };
        let model = format!(
            "in x [4,3,8,8]
             a = Conv(x, w0[16,3,3,3], b0[16], pads=[1,1,1,1])
             b = Relu(a)
             g = Conv(b, w1[8,16,1,1], b1[8])
             c = Conv(b, w2[8,16,3,3], b2[8], pads=[1,1,1,1])
             d = Relu(c)
             {last}
             h = Add(f, g)
             i = Relu(h)
             y = Conv(i, w4[3,8,1,1], b4[3])
             out y"
        );
        let case = Case::new(&model, &[4, 3, 8, 8], |_| ());
        let repaired = case.repair(1e-3);
        let (before, after) = (case.error(&case.pruned), case.error(&repaired.model));
        println!("{before:.3} -> {after:.3}");
        assert!(after < 0.8 * before, "{before} {after}");
        assert_eq!((repaired.refitted, repaired.left.len()), (4, 0));
    }
}

/// With the mean of what is removed in the bias, means are right where inputs are independent of position.
#[test]
fn a_mean_bias_restores_the_mean_and_leaves_the_weights() {
    let model = "in x [64,6]
        a = Gemm(x, w0[8,6], b0[8], transB=1)
        b = Relu(a)
        y = Gemm(b, w1[8,5], b1[5])
        out y";
    let case = Case::new(model, &[64, 6], |_| ());
    let config = RepairConfig { method: Method::Bias, ..RepairConfig::default() };
    let repaired = repair(&case.original, case.pruned.clone(), &case.kept, &Tract, &case.batches, &config).unwrap();
    assert_eq!(repaired.changed.keys().collect::<Vec<_>>(), ["b1"]);
    let mean = |model: &ModelProto| {
        let mut sums = vec![0.0; 5];
        for feeds in &case.batches.0 {
            let y = run_once(&Tract, model, feeds, &["y".to_owned()]).unwrap();
            y[0].to_f64().chunks(5).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
        }
        sums
    };
    let (dense, found) = (mean(&case.original), mean(&repaired.model));
    for (dense, found) in dense.iter().zip(found) {
        assert!((dense - found).abs() < 1e-3 * dense.abs().max(1.0), "{dense} {found}");
    }
}

/// Mean and deviation of every channel of the value `c`.
fn moments(case: &Case, model: &ModelProto) -> Vec<(f64, f64)> {
    let mut sums: Vec<(f64, f64, f64)> = Vec::new();
    for feeds in &case.batches.0 {
        let c = run_once(&Tract, model, feeds, &["c".to_owned()]).unwrap().remove(0);
        let (channels, area) = (c.shape()[1], c.shape()[2] * c.shape()[3]);
        sums.resize(channels, (0.0, 0.0, 0.0));
        for (i, x) in c.to_f64().into_iter().enumerate() {
            let sum = &mut sums[i / area % channels];
            *sum = (sum.0 + 1.0, sum.1 + x, sum.2 + x * x);
        }
    }
    sums.into_iter().map(|(n, sum, squares)| (sum / n, (squares / n - (sum / n).powi(2)).sqrt())).collect()
}

#[test]
fn statistics_of_normalisations_are_estimated_anew_folded_or_not() {
    let unfused = "in x [4,3,8,8]
        a = Conv(x, w0[16,3,3,3], b0[16])
        b = Relu(a)
        c = Conv(b, w1[6,16,3,3])
        d = BatchNormalization(c, s<1.0,2.0,0.5,1.5,1.0,0.3>, t[6], m[6], v<1.0,2.0,0.5,1.5,1.0,1.0>)
        e = Relu(d)
        y = Conv(e, w2[4,6,1,1], b2[4])
        out y";
    let fused = unfused.replace("w1[6,16,3,3])", "w1[6,16,3,3], b1[6])");
    let fused =
        fused.lines().filter(|l| !l.contains("BatchNorm")).collect::<Vec<_>>().join("\n").replace("Relu(d)", "Relu(c)");
    for model in [unfused, fused.as_str()] {
        let case = Case::new(model, &[4, 3, 8, 8], |_| ());
        let config = RepairConfig { method: Method::BatchNorm, ..RepairConfig::default() };
        let repaired = repair(&case.original, case.pruned.clone(), &case.kept, &Tract, &case.batches, &config).unwrap();
        println!("{:?} {:?}", repaired.changed, repaired.left);
        if model == unfused {
            let changed: Vec<&str> = repaired.changed.keys().map(String::as_str).collect();
            assert!(changed.contains(&"m") && changed.contains(&"v"), "{changed:?}");
        } else {
            assert_eq!(repaired.changed.keys().collect::<Vec<_>>(), ["b1", "w1"]);
            let (dense, found) = (moments(&case, &case.original), moments(&case, &repaired.model));
            let kept = case.kept.activations["c"][1].as_ref().unwrap();
            for (dense, found) in kept.iter().map(|i| dense[*i as usize]).zip(found) {
                assert!(
                    (dense.0 - found.0).abs() < 0.02 && (dense.1 / found.1 - 1.0).abs() < 0.02,
                    "{dense:?} {found:?}"
                );
            }
        }
        assert!(repaired.left.is_empty() && repaired.refitted > 0);
    }
}

/// Integers with a scale for every output channel, and a bias of 32 bits.
#[test]
fn quantised_weights_are_repaired_as_numbers_and_quantised_again() {
    let model = "in x [4,3,8,8]
        a = Conv(x, w0[8,3,3,3], b0[8])
        b = Relu(a)
        q = QuantizeLinear(b, <0.06>, z:uint8{0})
        r = DequantizeLinear(q, <0.06>, z)
        w = DequantizeLinear(v:int8[6,8,3,3], s<0.02,0.03,0.01,0.02,0.05,0.02>, y:int8{0,0,0,0,0,0}, axis=0)
        d = DequantizeLinear(u:int32{10,20,30,-40,50,60}, t<0.001,0.001,0.001,0.002,0.002,0.001>, axis=0)
        o = Conv(r, w, d)
        out o";
    let case = Case::new(model, &[4, 3, 8, 8], |m| depend(m, &["w0", "b0"], 0.5));
    let before = case.error(&case.pruned);
    let repaired = case.repair(1e-6);
    let after = case.error(&repaired.model);
    println!("{before:.3} -> {after:.2e}");
    // What is left is rounding of weights and activations.
    assert!(before > 0.3 && after < 0.05, "{before} {after}");
    assert!(repaired.changed.contains_key("v") && repaired.left.is_empty());
    assert!(repaired.changed.keys().all(|name| matches!(name.as_str(), "u" | "v" | "s" | "t")));
    // Runtimes that add up integers take the scale of the bias to be that of the data times that of the weight.
    let (old, new) = (floats(&case.pruned), floats(&repaired.model));
    assert_ne!(old["s"], new["s"], "no scale has grown, so that this tells nothing");
    for (i, (old_scale, new_scale)) in old["s"].iter().zip(&new["s"]).enumerate() {
        let (weight, bias) = (new_scale / old_scale, new["t"][i] / old["t"][i]);
        assert!((weight / bias - 1.0).abs() < 1e-6, "{i}: {weight} {bias}");
    }
}

/// Axes, shapes and quantised weights are no data: a piece of the model that takes them as inputs would run in no engine,
/// or with weights that have changed since.
#[test]
fn what_depends_on_constants_alone_is_never_fed() {
    let case = Case::new(
        "in x [4,3,6]
        k = Constant(value_ints=[1])
        a = MatMul(x, w0[6,8])
        s = ReduceSum(a, k, keepdims=0)
        b = MatMul(s, w1[8,6])
        c = Relu(b)
        u = Unsqueeze(c, k)
        y = MatMul(u, w2[6,5])
        out y",
        &[4, 3, 6],
        |_| (),
    );
    let repaired = case.repair(1e-9);
    assert!(repaired.left.is_empty() && repaired.refitted == 2, "{:?}", repaired.left);
    assert!(case.error(&repaired.model) < case.error(&case.pruned));
}

/// What is repaired is judged by who knows nothing of repairs.
#[test]
fn repairs_are_what_they_say() {
    let model = "in x [4,3,10,9]
        a = Conv(x, w0[8,3,3,3], b0[8])
        b = Relu(a)
        c = Conv(b, w1[8,8,3,3])
        d = Relu(c)
        y = Conv(d, w2[5,8,3,3], b2[5])
        out y";
    let case = Case::new(model, &[4, 3, 10, 9], |_| ());
    for method in [Method::Bias, Method::BatchNorm, Method::LeastSquares] {
        let config = RepairConfig { method, ..RepairConfig::default() };
        let repaired = repair(&case.original, case.pruned.clone(), &case.kept, &Tract, &case.batches, &config).unwrap();
        let declared = Declared { changed: repaired.changed.keys().cloned().collect(), added: repaired.added.clone() };
        assert_eq!(declared.added.values().collect::<Vec<_>>(), [&(2, 2)], "{method:?}");
        let judged =
            |declared: &Declared| verify_repair(&case.pruned, &repaired.model, declared, &Tract, &case.batches.0[0]);
        assert_eq!(judged(&declared), Outcome::Passed, "{method:?}");
        let unsaid = Declared { added: BTreeMap::new(), ..declared };
        assert!(matches!(judged(&unsaid), Outcome::Failed { .. }), "{method:?}");
    }
}
