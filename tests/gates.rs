//! Gradients of gates against finite differences that know nothing of gates: the weights that contract a channel are
//! scaled, and the losses worked out here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use onnx_mtprune::calibration::{Batch, Batches};
use onnx_mtprune::coupling::Role;
use onnx_mtprune::engine::{Tract, Value, run_once};
use onnx_mtprune::gates::{GradientOptions, GradientWish, Gradients, GroupGradients};
use onnx_mtprune::losses::LossRequest;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::proto::tensor;
use onnx_mtprune::prune::Analysis;
use onnx_mtprune::{Result, text};

use ndarray::{ArrayD, IxDyn};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Samples of one input, `per` at a time; the last batch is filled up where `fixed`.
struct Samples {
    x: Value,
    per: usize,
    fixed: bool,
}

impl Batches for Samples {
    fn len(&self) -> usize {
        self.samples().div_ceil(self.per)
    }

    fn samples(&self) -> usize {
        self.x.shape()[0]
    }

    fn batch(&self, index: usize) -> Result<Batch> {
        let samples: Vec<usize> = (index * self.per..((index + 1) * self.per).min(self.samples())).collect();
        let filler = if self.fixed { self.per - samples.len() } else { 0 };
        let mut places = samples.clone();
        places.extend(std::iter::repeat_n(*samples.last().unwrap(), filler));
        Ok(Batch { feeds: vec![("x".to_owned(), self.x.select(0, &places)?)], samples, filler })
    }
}

fn value(shape: &[usize], numbers: Vec<f32>) -> Value {
    ArrayD::from_shape_vec(IxDyn(shape), numbers).unwrap().into()
}

/// Numbers from -1 to 1.
fn random(seed: u64, shape: &[usize]) -> Value {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let number = || random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0;
    value(shape, std::iter::repeat_with(number).take(shape.iter().product()).collect())
}

/// Three tasks behind a trunk with a skip, a concatenation, a depthwise convolution and a flattening.
fn network(seed: u64, batch: &str) -> String {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut pick = |from: usize, to: usize| from + random.next_u32() as usize % (to - from + 1);
    let functions = ["Tanh", "Sigmoid", "Relu", "LeakyRelu", "Softplus"];
    let (c, d, e) = (pick(2, 4), pick(2, 4), pick(3, 5));
    let mut function = || functions[pick(0, 4)];
    let (f1, f2, f3, f4) = (function(), function(), function(), function());
    let pool = ["AveragePool(f, kernel_shape=[2,2], strides=[2,2])", "Identity(f)"][pick(0, 1)];
    let side = if pool.starts_with('A') { 2 } else { 4 };
    let skip = ["Add(b, t)", "Mul(b, t)", "Sub(b, t)"][pick(0, 2)];
    format!(
        "in x [{batch},3,4,4]
         a = Conv(x, w0[{c},3,3,3], b0[{c}], pads=[1,1,1,1])
         b = {f1}(a)
         t = Conv(b, d0[{c},1,3,3], group={c}, pads=[1,1,1,1])
         s = {skip}
         u = Conv(s, w1[{d},{c},1,1], b1[{d}])
         e = {f2}(u)
         v = Concat(s, e, axis=1)
         f = {f3}(v)
         p = {pool}
         y1 = Conv(p, h1[2,{cd},1,1])
         g = GlobalAveragePool(f)
         h = Flatten(g)
         y2 = Gemm(h, h2[{cd},4], b2[4])
         i = Flatten(p)
         j = MatMul(i, m[{flat},{e}])
         k = {f4}(j)
         y3 = MatMul(k, h3[{e},3])
         out y1, y2, y3",
        cd = c + d,
        flat = (c + d) * side * side,
    )
}

const TASKS: [&str; 3] = ["y1", "y2", "y3"];

fn outputs(model: &ModelProto, x: &Value, tasks: &[&str]) -> Vec<Value> {
    let wanted: Vec<String> = tasks.iter().map(|t| (*t).to_owned()).collect();
    run_once(&Tract, model, &[("x".to_owned(), x.clone())], &wanted).unwrap()
}

/// Mean squared differences by task and sample.
fn losses(model: &ModelProto, x: &Value, labels: &BTreeMap<String, Arc<Value>>) -> Vec<Vec<f64>> {
    let tasks: Vec<&str> = labels.keys().map(String::as_str).collect();
    let samples = x.shape()[0];
    let loss = |(found, labels): (&Value, &Arc<Value>)| {
        let (found, labels) = (found.to_f64(), labels.to_f64());
        let length = found.len() / samples;
        let row = |n: usize| (n * length..(n + 1) * length).map(|at| (found[at] - labels[at]).powi(2)).sum::<f64>();
        (0..samples).map(|n| row(n) / length as f64).collect()
    };
    outputs(model, x, &tasks).iter().zip(labels.values()).map(loss).collect()
}

fn labels(model: &ModelProto, x: &Value, seed: u64) -> BTreeMap<String, Arc<Value>> {
    let shapes = outputs(model, x, &TASKS);
    let label = |(at, (name, like)): (usize, (&&str, &Value))| {
        ((*name).to_owned(), Arc::new(random(seed + at as u64, like.shape())))
    };
    TASKS.iter().zip(&shapes).enumerate().map(label).collect()
}

fn gather(model: &ModelProto, batches: &Samples, wish: GradientWish, options: &GradientOptions) -> Gradients {
    Analysis::of(model, &[]).unwrap().gradients(wish, options, &Tract, batches).unwrap()
}

/// The model with the weights that contract a channel multiplied by a factor.
fn scaled(analysis: &Analysis, group: usize, channel: usize, factor: f32) -> ModelProto {
    let mut model = analysis.graph.model.clone();
    let group = &analysis.groups[group];
    for member in group.members.iter().filter(|member| member.role == Role::Contracted) {
        let name = analysis.graph.value(member.value).name;
        let tensors = &mut model.graph.as_mut().unwrap().initializer;
        let weight = tensors.iter_mut().find(|t| t.name() == name).unwrap();
        let axis = analysis.coupling.axes[member.value.0 as usize].as_ref().unwrap()[member.axis];
        let mut positions = Vec::new();
        analysis.coupling.space.positions(axis, group.atom, &mut |position, own| {
            if own == channel {
                positions.push(position);
            }
        });
        let inner: i64 = weight.dims[member.axis + 1..].iter().product();
        let extent = usize::try_from(weight.dims[member.axis]).unwrap();
        let mut numbers = tensor::to_f32(weight).unwrap();
        for (at, number) in numbers.iter_mut().enumerate() {
            if positions.contains(&(at / usize::try_from(inner).unwrap() % extent)) {
                *number *= factor;
            }
        }
        *weight = tensor::from_f32(name, &weight.dims.clone(), &numbers);
    }
    model
}

fn near(found: &[f64], expected: &[f64], tolerance: f64) -> bool {
    let largest = expected.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance * largest + 1e-9)
}

/// Where the sums of products of two tasks are not those of these gradients, by channel, task and sample.
fn differing(own: &GroupGradients, gradients: &[Vec<Vec<f64>>]) -> String {
    let mut complaints = String::new();
    for (task, other) in (0..9).map(|pair| (pair / 3, pair % 3)) {
        let sums = |gradient: &Vec<Vec<f64>>| gradient[task].iter().zip(&gradient[other]).map(|(a, b)| a * b).sum();
        let expected: Vec<f64> = gradients.iter().map(sums).collect();
        let means =
            |gradient: &Vec<Vec<f64>>| gradient[task].iter().sum::<f64>() * gradient[other].iter().sum::<f64>() / 9.0;
        let of_batch: Vec<f64> = gradients.iter().map(means).collect();
        let (by_sample, by_batch) = (&own.by_sample[task * 3 + other], &own.by_batch[task * 3 + other]);
        if !near(by_sample, &expected, 2e-2) || !near(by_batch, &of_batch, 3e-2) {
            complaints += &format!("{task} {other}: {by_sample:?} {expected:?}, {by_batch:?} {of_batch:?}; ");
        }
    }
    complaints
}

#[test]
fn gate_gradients_are_what_moving_a_gate_does_to_the_losses() {
    // The smaller step is for what has a kink within the larger; all channels of a group must agree with one of them.
    const STEPS: [f32; 2] = [1e-2, 1e-3];
    let mut checked = 0;
    for seed in 0..8 {
        let model = text::parse(&network(seed, "n")).unwrap();
        let x = random(seed + 100, &[3, 3, 4, 4]);
        let labels = labels(&model, &x, seed + 200);
        let options = GradientOptions { labels: labels.clone(), ..Default::default() };
        let found = gather(&model, &Samples { x: x.clone(), per: 3, fixed: false }, GradientWish::default(), &options);
        assert!(found.tasks.iter().all(|task| task.stops.is_empty()), "{:?}", found.tasks);
        let analysis = Analysis::of(&model, &[]).unwrap();
        for (index, (group, own)) in analysis.groups.iter().zip(&found.groups).enumerate() {
            if group.lock.is_some() {
                continue;
            }
            assert!(own.is_gated.iter().all(|is_gated| *is_gated), "{}", group.name);
            let complaints: Vec<String> = STEPS
                .iter()
                .map(|step| {
                    // By channel, task and sample.
                    let gradients: Vec<Vec<Vec<f64>>> = (0..group.extent)
                        .map(|channel| {
                            let side = |factor| losses(&scaled(&analysis, index, channel, factor), &x, &labels);
                            let (up, down) = (side(1.0 + step), side(1.0 - step));
                            let difference = |(a, b): (&f64, &f64)| (a - b) / f64::from(2.0 * step);
                            let of = |(up, down): (&Vec<f64>, &Vec<f64>)| up.iter().zip(down).map(difference).collect();
                            up.iter().zip(&down).map(of).collect()
                        })
                        .collect();
                    differing(own, &gradients)
                })
                .collect();
            let what = format!("seed {seed}, {}: {complaints:?}", group.name);
            assert!(complaints.iter().any(String::is_empty), "{what}");
            checked += 9 * group.extent;
        }
    }
    assert!(checked > 8 * 9 * 8, "{checked}");
}

#[test]
fn samples_count_once_whatever_the_batch() {
    let wish = GradientWish { activations: true, weights: true, weights_by_sample: false };
    for seed in [1, 4] {
        let x = random(seed, &[5, 3, 4, 4]);
        let of = |batch: &str, per: usize, wish: GradientWish, labelled: bool| {
            let model = text::parse(&network(seed, batch)).unwrap();
            let open = text::parse(&network(seed, "n")).unwrap();
            let labels = if labelled { labels(&open, &x, 9) } else { BTreeMap::new() };
            let options = GradientOptions { labels, draws: 2, ..Default::default() };
            gather(&model, &Samples { x: x.clone(), per, fixed: batch != "n" }, wish, &options)
        };
        for labelled in [true, false] {
            let single = of("n", 1, wish, labelled);
            let weighted = single.groups.iter().filter_map(|own| own.weights.as_ref());
            assert!(weighted.filter(|own| own.squares.iter().flatten().any(|square| *square > 0.0)).count() >= 2);
            for (batch, per) in [("n", 2), ("n", 5), ("3", 3)] {
                let found = of(batch, per, wish, labelled);
                assert_eq!(found.samples, single.samples);
                for (a, b) in found.groups.iter().zip(&single.groups) {
                    let same = |a: &[Vec<f64>], b: &[Vec<f64>]| a.iter().zip(b).all(|(a, b)| near(a, b, 1e-3));
                    assert!(same(&a.by_sample, &b.by_sample), "batch {batch} of {per}: {a:?} {b:?}");
                    assert!(same(&a.magnitudes, &b.magnitudes) && same(&a.activations, &b.activations));
                }
                for (a, b) in found.tasks.iter().zip(&single.tasks) {
                    assert!((a.mean - b.mean).abs() < 1e-4 * (1.0 + b.mean.abs()), "{a:?} {b:?}");
                }
            }
            // Batches that were filled up say what open ones of the same samples do.
            let (fixed, open) = (of("3", 3, wish, labelled), of("n", 3, wish, labelled));
            for (a, b) in fixed.groups.iter().zip(&open.groups) {
                assert!(a.by_batch.iter().zip(&b.by_batch).all(|(a, b)| near(a, b, 1e-3)));
                let (a, b) = (a.weights.as_ref(), b.weights.as_ref());
                let Some((a, b)) = a.zip(b) else { continue };
                assert!(a.squares.iter().zip(&b.squares).all(|(a, b)| near(a, b, 1e-3)), "{a:?} {b:?}");
                assert!(a.cosines.iter().zip(&b.cosines).all(|(a, b)| near(a, b, 1e-3)), "{a:?} {b:?}");
            }
            // What is told sample by sample is what batches of one sample tell.
            let one_by_one = GradientWish { weights_by_sample: true, ..wish };
            for (batch, per) in [("n", 5), ("3", 3)] {
                let found = of(batch, per, one_by_one, labelled);
                for (a, b) in found.groups.iter().zip(&single.groups) {
                    let (Some(a), Some(b)) = (a.weights.as_ref(), b.weights.as_ref()) else { continue };
                    assert!(a.by_sample.iter().zip(&b.squares).all(|(a, b)| near(a, b, 1e-3)), "{a:?} {b:?}");
                }
            }
        }
    }
}

#[test]
fn samples_that_a_batch_mixes_up_run_one_by_one() {
    let text = "in x [n,4,5]
         t = Transpose(x, perm=[1,0,2])
         a = MatMul(t, w[5,6])
         b = Tanh(a)
         c = MatMul(b, v[6,3])
         y = Transpose(c, perm=[1,0,2])
         out y";
    let model = text::parse(text).unwrap();
    let x = random(3, &[4, 4, 5]);
    let of = |per| {
        gather(&model, &Samples { x: x.clone(), per, fixed: false }, GradientWish::default(), &Default::default())
    };
    let (together, single) = (of(4), of(1));
    assert_eq!((together.notes.len(), single.notes.len()), (1, 0));
    let scored: Vec<_> = together.groups.iter().zip(&single.groups).filter(|(g, _)| g.is_gated[0]).collect();
    assert_eq!(scored.len(), 1);
    assert!(near(&scored[0].0.by_sample[0], &scored[0].1.by_sample[0], 1e-4));
    assert!(scored[0].0.by_sample[0].iter().all(|sum| *sum > 0.0));
}

#[test]
fn a_stop_is_named_and_the_other_tasks_score_the_group() {
    let text = "in x [n,3]
         a = MatMul(x, w[3,8])
         b = Relu(a)
         y = MatMul(b, v[8,2])
         s = Round(b)
         z = MatMul(s, u[8,2])
         r = Round(z)
         out y, r";
    let model = text::parse(text).unwrap();
    let x = random(3, &[4, 3]);
    let analysis = Analysis::of(&model, &[]).unwrap();
    let samples = Samples { x, per: 4, fixed: false };
    let found = analysis.gradients(GradientWish::default(), &GradientOptions::default(), &Tract, &samples).unwrap();
    let group = analysis.groups.iter().position(|group| group.lock.is_none()).unwrap();
    assert_eq!(found.groups[group].is_gated, [true, false]);
    assert_eq!(found.tasks[1].stops[0].operator, "Round");
    let config = onnx_mtprune::prune::PruneConfig { criterion: "fisher".into(), ..Default::default() };
    let evidence = onnx_mtprune::prune::Evidence { gradients: Some(&found), ..Default::default() };
    let scores = analysis.scores(&config, evidence).unwrap();
    let onnx_mtprune::aggregate::Scores::PerTask(scores) = scores else { panic!("{scores:?}") };
    let shares = scores.normalised();
    let share = |task: usize| shares.scores[task][group].clone().unwrap();
    assert!(near(&share(0), &share(1), 1e-9));
    let error = analysis.score(&config).unwrap_err().to_string();
    assert!(error.contains("needs gradients") && error.contains("--calibration"), "{error}");
}

/// What a body contracts has no gradient, rather than one of 0; a value may have the name of a loss.
#[test]
fn gates_do_not_reach_into_bodies() {
    let text = "in x [n,3]
         loss/y = MatMul(x, w[3,4])
         b = Relu(loss/y)
         y = MatMul(b, v[4,2])
         m = ReduceSum(x, keepdims=0)
         c = Greater(m, <0.0>)
         z = If(c)
         then_branch {
         t = MatMul(b, u[4,2])
         out t
         }
         else_branch {
         e = MatMul(b, q[4,2])
         out e
         }
         out y, z";
    let model = text::parse(text).unwrap();
    let analysis = Analysis::of(&model, &[]).unwrap();
    let group = analysis.groups.iter().position(|group| group.lock.is_none()).unwrap();
    let samples = Samples { x: random(3, &[4, 3]), per: 4, fixed: false };
    let found = gather(&model, &samples, GradientWish::default(), &GradientOptions::default());
    assert!(!found.groups[group].is_gated[1], "{:?}", found.groups[group]);
}

#[test]
fn more_memory_than_allowed_is_refused() {
    let model = text::parse("in x [n,3]\na = MatMul(x, w[3,8])\nb = Relu(a)\ny = MatMul(b, v[8,2])\nout y").unwrap();
    let options = GradientOptions { memory: 100, ..Default::default() };
    let wish = GradientWish { weights: true, ..Default::default() };
    let analysis = Analysis::of(&model, &[]).unwrap();
    let samples = Samples { x: random(3, &[4, 3]), per: 4, fixed: false };
    let error = analysis.gradients(wish, &options, &Tract, &samples).unwrap_err().to_string();
    assert!(error.contains("--memory") && error.contains("taylor or fisher"), "{error}");
    let losses = vec![LossRequest { of: "z".into(), loss: "mse".into(), weight: 1.0 }];
    let options = GradientOptions { losses, ..Default::default() };
    let error = analysis.gradients(GradientWish::default(), &options, &Tract, &samples).unwrap_err().to_string();
    assert!(error.contains("no task or output `z`"), "{error}");
}
