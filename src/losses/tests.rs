//! Losses against numbers worked out by hand, and their gradients against finite differences.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::engine::{Engine, Feeds, InputFact, Tract, Value, facts_of, value::from_vec};
use crate::grad;
use crate::proto::build::declaration;
use crate::proto::onnx::ModelProto;
use crate::text;

fn floats(shape: &[usize], data: &[f32]) -> Value {
    from_vec(shape, data.to_vec()).unwrap().into()
}

fn classes(shape: &[usize], data: &[i64]) -> Value {
    from_vec(shape, data.to_vec()).unwrap().into()
}

/// A loss behind a model whose input is `x` and whose output is `y`.
struct Case {
    model: ModelProto,
    loss: String,
    feeds: Vec<Feed>,
}

impl Case {
    fn new(text: &str, x: &Value, labels: Option<Value>, name: &str) -> Result<Self> {
        let mut model = text::parse(text).unwrap();
        let y = crate::engine::run_once(&Tract, &model, &[("x".into(), x.clone())], &["y".into()])?.remove(0);
        let target = Target {
            task: "task".into(),
            output: "y".into(),
            element: y.element(),
            shape: y.shape().to_vec(),
            samples: x.shape()[0],
            head: Head::of(&model, "y", y.shape().len()),
            labels: labels.map(Arc::new),
        };
        let opset = model.opset_import[0].version();
        let graph = model.graph.as_mut().unwrap();
        let mut names = BTreeSet::new();
        crate::calibration::collect_names(graph, &mut names);
        let mut emitter = Emitter::new(opset, names);
        let loss = super::loss(name)?.loss.emit(&target, &mut emitter)?;
        let (nodes, feeds) = emitter.finish();
        graph.node.extend(nodes);
        for feed in &feeds {
            let InputFact { name, element, shape } = feed.fact(target.samples);
            graph.input.push(declaration(&name, element as i32, &crate::proto::build::signed(&shape)));
        }
        graph.output = vec![declaration(&loss, 1, &[i64::try_from(target.samples).unwrap()])];
        Ok(Self { model, loss, feeds })
    }

    fn feeds(&self, x: &Value) -> Feeds {
        let samples: Vec<usize> = (0..x.shape()[0]).collect();
        let mut feeds = vec![("x".to_owned(), x.clone())];
        feeds.extend(self.feeds.iter().map(|feed| (feed.name.clone(), feed.value(&samples, 7, 0).unwrap())));
        feeds
    }

    /// The loss of every sample.
    fn values(&self, x: &Value) -> Vec<f64> {
        let found = crate::engine::run_once(&Tract, &self.model, &self.feeds(x), std::slice::from_ref(&self.loss));
        found.unwrap().remove(0).to_f64()
    }

    /// The gradient of the sum of the losses of all samples, and central differences.
    fn gradients(&self, x: &Value) -> (Vec<f64>, Vec<f64>) {
        let feeds = self.feeds(x);
        let facts = grad::facts_of_run(&self.model, &feeds, &Tract).unwrap();
        let of = std::slice::from_ref(&self.loss);
        let backward = grad::backward(&self.model, &facts, of, &["x".to_owned()]).unwrap();
        assert!(backward.stopped.is_empty(), "{:?}", backward.stopped);
        let mut all = feeds.clone();
        all.push((format!("gradient/{}", self.loss), floats(&[x.shape()[0]], &vec![1.0; x.shape()[0]])));
        let wanted = vec![backward.gradients[0].1.clone()];
        let found = crate::engine::run_once(&Tract, &backward.model, &all, &wanted).unwrap().remove(0).to_f64();
        let session = Tract.open(&self.model, &facts_of(&feeds), of).unwrap();
        let sum = |place: usize, step: f32| {
            let mut numbers: Vec<f32> = x.to_f64().iter().map(|n| *n as f32).collect();
            numbers[place] += step;
            let mut feeds = feeds.clone();
            feeds[0].1 = floats(x.shape(), &numbers);
            session.run(&feeds).unwrap()[0].to_f64().iter().sum::<f64>()
        };
        const STEP: f32 = 4e-3;
        let difference = |place| (sum(place, STEP) - sum(place, -STEP)) / f64::from(2.0 * STEP);
        (found, (0..x.len()).map(difference).collect())
    }
}

fn near(found: &[f64], expected: &[f64]) {
    let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 2e-6 * (1.0 + b.abs());
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(is_near), "{found:?} {expected:?}");
}

const PLAIN: &str = "in x [n,3]\ny = Identity(x)\nout y";

#[test]
fn cross_entropy_of_logits_probabilities_and_logarithms() {
    let labels = || Some(classes(&[2], &[2, 1]));
    let logits = floats(&[2, 3], &[1., 2., 3., 0., 0., 0.]);
    let expected = [(1.0 + (-1f64).exp() + (-2f64).exp()).ln(), 3f64.ln()];
    for text in [PLAIN, "in x [n,3]\ny = Softmax(x, axis=1)\nout y", "in x [n,3]\ny = LogSoftmax(x, axis=1)\nout y"] {
        near(&Case::new(text, &logits, labels(), "cross-entropy").unwrap().values(&logits), &expected);
    }
    let told = floats(&[2, 3], &[0.2, 0.5, 0.3, 0.1, 0.8, 0.1]);
    let expected = [-0.3f64.ln(), -0.8f64.ln()];
    near(&Case::new(PLAIN, &told, labels(), "cross-entropy-probabilities").unwrap().values(&told), &expected);
    let logarithms = floats(&[2, 3], &[-1.5, -2.5, -0.5, -3., -0.25, -1.]);
    let case = Case::new(PLAIN, &logarithms, labels(), "cross-entropy-logarithms").unwrap();
    near(&case.values(&logarithms), &[0.5, 0.25]);
}

#[test]
fn cross_entropy_at_every_position_leaves_out_what_does_not_count() {
    let one = (1.0 + (-1f64).exp()).ln();
    // Channels first: two positions, of which the second is 255; in the second sample -1 and class 1.
    let first = floats(&[2, 2, 1, 2], &[1., 5., 0., 9., 7., 0., 2., 1.]);
    let labels = Some(classes(&[2, 1, 2], &[0, 255, -1, 1]));
    let plain = "in x [n,2,1,2]\ny = Identity(x)\nout y";
    near(&Case::new(plain, &first, labels.clone(), "cross-entropy").unwrap().values(&first), &[one, one]);
    // Channels last, told by the softmax.
    let last = floats(&[2, 1, 2, 2], &[1., 0., 5., 9., 7., 2., 0., 1.]);
    let softmax = "in x [n,1,2,2]\ny = Softmax(x, axis=-1)\nout y";
    near(&Case::new(softmax, &last, labels, "cross-entropy").unwrap().values(&last), &[one, one]);
    // Nothing counts: no loss.
    let none = Some(classes(&[2, 1, 2], &[255, 255, 255, 255]));
    near(&Case::new(plain, &first, none, "cross-entropy").unwrap().values(&first), &[0.0, 0.0]);
}

#[test]
fn binary_cross_entropy_and_differences() {
    let plain = "in x [n,2]\ny = Identity(x)\nout y";
    let labels = || Some(floats(&[1, 2], &[1., 0.]));
    let logits = floats(&[1, 2], &[0., 2.]);
    let expected = [(2f64.ln() + 2.0 + (1.0 + (-2f64).exp()).ln()) / 2.0];
    near(&Case::new(plain, &logits, labels(), "binary-cross-entropy").unwrap().values(&logits), &expected);
    let sigmoid = "in x [n,2]\ny = Sigmoid(x)\nout y";
    near(&Case::new(sigmoid, &logits, labels(), "binary-cross-entropy").unwrap().values(&logits), &expected);
    let told = floats(&[1, 2], &[0.5, 0.25]);
    let case = Case::new(plain, &told, labels(), "binary-cross-entropy-probabilities").unwrap();
    near(&case.values(&told), &[(2f64.ln() - 0.75f64.ln()) / 2.0]);
    let numbers = floats(&[1, 2], &[1., 2.]);
    let labels = || Some(floats(&[1, 2], &[0., 4.]));
    near(&Case::new(plain, &numbers, labels(), "mse").unwrap().values(&numbers), &[2.5]);
    near(&Case::new(plain, &numbers, labels(), "l1").unwrap().values(&numbers), &[1.5]);
    // Two positions: (3, 4) against (4, 3), and (0, 2) against (0, 5).
    let vectors = floats(&[1, 2, 2], &[3., 0., 4., 2.]);
    let labels = Some(floats(&[1, 2, 2], &[4., 0., 3., 5.]));
    let dense = "in x [n,2,2]\ny = Identity(x)\nout y";
    near(&Case::new(dense, &vectors, labels, "cosine").unwrap().values(&vectors), &[0.02]);
}

#[test]
fn losses_without_labels() {
    let x = floats(&[2, 3], &[0.5, -1., 2., 1., 3., -2.]);
    let probe = Case::new(PLAIN, &x, None, "probe").unwrap();
    let signs = probe.feeds(&x)[1].1.to_f64();
    assert!(signs.iter().all(|sign| sign.abs() == 1.0), "{signs:?}");
    let product =
        |row: usize| (0..3).map(|at| signs[3 * row + at] * x.to_f64()[3 * row + at]).sum::<f64>() / 3f64.sqrt();
    near(&probe.values(&x), &[product(0), product(1)]);
    let largest = |row: [f64; 3], best: f64| row.iter().map(|n| (n - best).exp()).sum::<f64>().ln();
    let expected = [largest([0.5, -1., 2.], 2.), largest([1., 3., -2.], 3.)];
    near(&Case::new(PLAIN, &x, None, "pseudo").unwrap().values(&x), &expected);
    // Classes of probability 1/4 and 3/4: the mean loss is the entropy.
    let many = floats(&[4000, 2], &[0., 3f32.ln()].repeat(4000));
    let text = "in x [n,2]\ny = Softmax(x, axis=1)\nout y";
    let losses = Case::new(text, &many, None, "sampled").unwrap().values(&many);
    let mean = losses.iter().sum::<f64>() / 4000.0;
    assert!((mean - (0.25 * 4f64.ln() + 0.75 * (4.0 / 3.0f64).ln())).abs() < 0.02, "{mean}");
    // The same for one probability of its own.
    let one = floats(&[4000, 1], &[3f32.ln(); 4000]);
    let losses = Case::new("in x [n,1]\ny = Sigmoid(x)\nout y", &one, None, "sampled").unwrap().values(&one);
    assert!((losses.iter().sum::<f64>() / 4000.0 - mean).abs() < 0.04);
}

#[test]
fn every_gradient_is_what_differences_say() {
    let dense = [0.3f32, -0.7, 1.1, 0.2, 0.9, -0.4, -1.2, 0.6, 0.8, 0.1, -0.5, 1.3];
    let x = floats(&[2, 3, 2], &dense);
    let probabilities = floats(&[2, 3, 2], &dense.map(|n| 0.3 + 0.2 * n));
    let labels = floats(&[2, 3, 2], &[0.9, 0.1, 0.4, 0.7, 0.2, 0.6, 0.3, 0.8, 0.5, 0.25, 0.35, 0.05]);
    let named = classes(&[2, 2], &[2, 0, 1, 255]);
    let forms = ["Identity(x)", "Softmax(x, axis=1)", "LogSoftmax(x, axis=1)", "Sigmoid(x)"];
    let mut checked = 0;
    for row in LOSSES {
        for form in forms {
            // What holds probabilities cannot be any number, and a pseudo-label needs classes.
            let is_given = row.name.contains('-') && (row.name.ends_with("probabilities"));
            if (is_given && form != "Identity(x)") || (row.name == "pseudo" && form == "Identity(x)") {
                continue;
            }
            let own = if is_given { &probabilities } else { &x };
            let labels = match row.name {
                name if name.starts_with("cross-entropy") => Some(named.clone()),
                _ if row.needs_labels => Some(labels.clone()),
                _ => None,
            };
            let case = Case::new(&format!("in x [n,3,2]\ny = {form}\nout y"), own, labels, row.name).unwrap();
            let (found, expected) = case.gradients(own);
            let largest = expected.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
            let worst = found.iter().zip(&expected).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
            assert!(largest > 1e-3 && worst < 3e-3 * largest, "{} of {form}: {found:?} {expected:?}", row.name);
            checked += 1;
        }
    }
    assert_eq!(checked, 4 * LOSSES.len() - 2 * 3 - 1);
}

/// sigmoid(0) - label, mean of both: a logit of 0 is no kink.
#[test]
fn a_logit_of_zero_has_the_gradient_of_its_probability() {
    let x = floats(&[1, 2], &[0., 0.]);
    let labels = Some(floats(&[1, 2], &[1., 0.25]));
    let case = Case::new("in x [n,2]\ny = Identity(x)\nout y", &x, labels, "binary-cross-entropy").unwrap();
    near(&case.gradients(&x).0, &[-0.25, 0.125]);
}

/// Behind a Reshape it is not known along which axis the probabilities sum up to 1, unless there is but one.
#[test]
fn classes_whose_axis_is_lost_are_not_guessed() {
    let x = floats(&[1, 2, 3], &[0.5, -1., 2., 1., 3., -2.]);
    let of = |shape: &str| format!("in x [n,2,3]\ns = Softmax(x, axis=-1)\ny = Reshape(s, {shape})\nout y");
    assert!(Case::new(&of("{0,3,2}"), &x, None, "pseudo").is_err());
    let row = floats(&[1, 1, 3], &[0., 0., 1f32.ln()]);
    let one = "in x [n,1,3]\ns = Softmax(x, axis=-1)\ny = Reshape(s, {0,3,1})\nout y";
    near(&Case::new(one, &row, None, "pseudo").unwrap().values(&row), &[3f64.ln()]);
}

#[test]
fn what_does_not_fit_names_task_output_and_shapes() {
    let x = floats(&[2, 3], &[0.; 6]);
    let error = |labels: Option<Value>, name: &str| match Case::new(PLAIN, &x, labels, name) {
        Ok(case) => {
            let samples = [0, 1];
            case.feeds.iter().find_map(|feed| feed.value(&samples, 0, 0).err()).unwrap().to_string()
        }
        Err(error) => error.to_string(),
    };
    let none = error(None, "cross-entropy");
    assert!(none.contains("`task`") && none.contains("`y`") && none.contains("needs labels"), "{none}");
    let wrong = error(Some(floats(&[2, 5], &[0.; 10])), "mse");
    assert!(wrong.contains("labels of shape [5] for outputs of shape [3]"), "{wrong}");
    let outside = error(Some(classes(&[2], &[0, 3])), "cross-entropy");
    assert!(outside.contains("3 is none of 3 classes") && outside.contains("`y`"), "{outside}");
    let range = error(Some(floats(&[2, 3], &[2.; 6])), "binary-cross-entropy");
    assert!(range.contains("2 is not from 0 to 1"), "{range}");
    let few = error(Some(classes(&[1], &[0])), "cross-entropy");
    assert!(few.contains("one entry for every sample"), "{few}");
    assert!(super::loss("hinge").unwrap_err().to_string().contains("choose one of cross-entropy"));
}

#[test]
fn the_default_follows_the_labels() {
    let target = |shape: &[usize], activation, labels| Target {
        task: "task".into(),
        output: "y".into(),
        element: crate::engine::ElementType::Float,
        shape: shape.to_vec(),
        samples: 2,
        head: Head { activation, ..Head::UNKNOWN },
        labels: Option::map(labels, Arc::new),
    };
    let tasks = [TaskOutputs { task: "task".into(), outputs: vec!["y".into()] }];
    let name = |target: Target| choose(&tasks, &[target], &[]).unwrap()[0].row.name;
    assert_eq!(name(target(&[2, 3], Activation::None, None)), "probe");
    assert_eq!(name(target(&[2, 3], Activation::None, Some(classes(&[2], &[0, 2])))), "cross-entropy");
    assert_eq!(name(target(&[2, 3, 4, 4], Activation::None, Some(classes(&[2, 4, 4], &[0; 32])))), "cross-entropy");
    assert_eq!(name(target(&[2, 1], Activation::Sigmoid, Some(classes(&[2], &[0, 1])))), "binary-cross-entropy");
    assert_eq!(name(target(&[2, 1], Activation::None, Some(classes(&[2], &[3, 9])))), "mse");
    assert_eq!(name(target(&[2, 3], Activation::None, Some(floats(&[2, 3], &[0.; 6])))), "mse");
    let asked = [LossRequest { of: "y".into(), loss: "l1".into(), weight: 2.0 }];
    let chosen = choose(&tasks, &[target(&[2, 3], Activation::None, None)], &asked).unwrap();
    assert_eq!((chosen[0].row.name, chosen[0].weight), ("l1", 2.0));
    let unknown = [LossRequest { of: "z".into(), loss: "l1".into(), weight: 1.0 }];
    assert!(choose(&tasks, &[], &unknown).unwrap_err().to_string().contains("no task or output `z`"));
}

#[test]
fn random_numbers_do_not_depend_on_the_batch() {
    let of = |draw| Feed {
        name: "random/y".into(),
        of: "y".into(),
        element: crate::engine::ElementType::Float,
        extents: vec![3],
        fill: Fill::Random(draw),
    };
    for draw in [Draw::Sign, Draw::Normal, Draw::Gumbel, Draw::Uniform] {
        let feed = of(draw);
        let both = feed.value(&[4, 9], 1, 0).unwrap();
        assert_eq!(both.select(0, &[1]).unwrap(), feed.value(&[9], 1, 0).unwrap());
        let many: Vec<usize> = (0..400).collect();
        assert_ne!(feed.value(&many, 1, 0).unwrap(), feed.value(&many, 2, 0).unwrap());
        assert_ne!(feed.value(&many, 1, 0).unwrap(), feed.value(&many, 1, 1).unwrap());
        let numbers = feed.value(&many, 1, 0).unwrap().to_f64();
        let mean = numbers.iter().sum::<f64>() / 1200.0;
        let expected = match draw {
            Draw::Gumbel => 0.5772,
            Draw::Uniform => 0.5,
            Draw::Sign | Draw::Normal => 0.0,
        };
        assert!((mean - expected).abs() < 0.15, "{draw:?}: {mean}");
    }
}
