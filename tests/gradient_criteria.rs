//! Criteria on gradients: the worked values of the papers on networks whose gradients are given, and trained networks
//! through the program.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::program::Folder;
use ndarray::{ArrayD, IxDyn};
use onnx_mtprune::aggregate::Scores;
use onnx_mtprune::allocate::Rounding;
use onnx_mtprune::calibration::{Batch, Batches};
use onnx_mtprune::engine::{Tract, Value, run_once};
use onnx_mtprune::gates::{GradientOptions, Gradients};
use onnx_mtprune::losses::LossRequest;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::proto::tensor;
use onnx_mtprune::prune::{Analysis, Evidence, PruneConfig};
use onnx_mtprune::{Result, score, text};

/// All samples in one batch.
struct One(Value);

impl Batches for One {
    fn len(&self) -> usize {
        1
    }

    fn samples(&self) -> usize {
        self.0.shape()[0]
    }

    fn batch(&self, _: usize) -> Result<Batch> {
        Ok(Batch { feeds: vec![("x".into(), self.0.clone())], samples: (0..self.samples()).collect(), filler: 0 })
    }
}

fn value(shape: &[usize], numbers: &[f32]) -> Value {
    ArrayD::from_shape_vec(IxDyn(shape), numbers.to_vec()).unwrap().into()
}

/// Tasks whose gradients with respect to the rows of one layer, all of whose weights are 1, are given: by task and unit,
/// one number for each of `size` samples, of which sample n is the n-th unit vector.
///
/// a = x W, so a = 1 for every sample and unit; y_t = a V_t; labels are chosen so that output j of sample n has the
/// gradient 1 where n = j and 0 elsewhere. Then dL/da of unit k in sample n is V_t[k, n], which is also the n-th entry of
/// dL/dW[:, k].
struct Given {
    model: ModelProto,
    x: Value,
    labels: BTreeMap<String, Arc<Value>>,
    size: usize,
}

impl Given {
    fn new(gradients: &[&[&[f32]]]) -> Self {
        let (units, size) = (gradients[0].len(), gradients[0][0].len());
        let tasks: Vec<String> = (0..gradients.len()).map(|task| format!("y{task}")).collect();
        let mut page = format!("in x [n,{size}]\na = MatMul(x, w[{size},{units}])\n");
        for (at, task) in tasks.iter().enumerate() {
            page += &format!("{task} = MatMul(a, v{at}[{units},{size}])\n");
        }
        let mut model = text::parse(&format!("{page}out {}", tasks.join(", "))).unwrap();
        for tensor in &mut model.graph.as_mut().unwrap().initializer {
            let name = tensor.name().to_owned();
            let numbers = match name.strip_prefix('v') {
                Some(task) => gradients[task.parse::<usize>().unwrap()].concat(),
                None => vec![1.0; size * units],
            };
            *tensor = tensor::from_f32(&name, &tensor.dims.clone(), &numbers);
        }
        let x: Vec<f32> = (0..size * size).map(|at| f32::from(u8::from(at % (size + 1) == 0))).collect();
        let x = value(&[size, size], &x);
        let found = run_once(&Tract, &model, &[("x".to_owned(), x.clone())], &tasks).unwrap();
        // The mean of squares over `size` outputs: 2 / size · (y - label) is the gradient.
        let label = |(task, y): (&String, &Value)| {
            let half = size as f64 / 2.0;
            let step = |at: usize| if at.is_multiple_of(size + 1) { half } else { 0.0 };
            let numbers: Vec<f32> = y.to_f64().iter().enumerate().map(|(at, y)| (y - step(at)) as f32).collect();
            (task.clone(), Arc::new(value(&[size, size], &numbers)))
        };
        let labels = tasks.iter().zip(&found).map(label).collect();
        Self { model, x, labels, size }
    }

    fn gradients(&self, criterion: &str, losses: Vec<LossRequest>) -> Gradients {
        let options = GradientOptions { labels: self.labels.clone(), losses, ..Default::default() };
        let wish = score::criterion(criterion).unwrap().gradients.unwrap();
        Analysis::of(&self.model, &[]).unwrap().gradients(wish, &options, &Tract, &One(self.x.clone())).unwrap()
    }

    /// What every task says of the units, of the sum of the samples' losses instead of their mean.
    fn scores(&self, criterion: &str, losses: Vec<LossRequest>) -> Vec<Vec<f64>> {
        let gradients = self.gradients(criterion, losses);
        let analysis = Analysis::of(&self.model, &[]).unwrap();
        let config = PruneConfig { criterion: criterion.into(), ..Default::default() };
        let evidence = Evidence { gradients: Some(&gradients), ..Default::default() };
        let Scores::PerTask(scores) = analysis.scores(&config, evidence).unwrap() else { panic!("{criterion}") };
        let group = analysis.groups.iter().position(|group| group.lock.is_none()).unwrap();
        let factor = if criterion.starts_with("taylor") { (self.size * self.size) as f64 } else { 1.0 };
        let of = |task: &Vec<Option<Vec<f64>>>| task[group].iter().flatten().map(|score| factor * score).collect();
        scores.scores.iter().map(of).collect()
    }
}

fn near(found: &[f64], expected: &[f64]) {
    let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4;
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(is_near), "{found:?} {expected:?}");
}

fn order(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    order
}

/// Three tasks, four filters.
fn ranking() -> Given {
    Given::new(&[
        &[&[1., 0.], &[1., 0.], &[1., 0.], &[1., 1.]],
        &[&[2., 0.], &[0., 3.], &[-1., 0.], &[1., 0.]],
        &[&[1., 0.], &[0., 1.], &[1., 0.], &[0., 1.]],
    ])
}

#[test]
fn papers_2_9_test_1_ranking() {
    let given = ranking();
    let agreement = given.scores("cosprune", Vec::new());
    let cosines: Vec<f64> = agreement[0].iter().map(|score| score - 1.0).collect();
    near(&cosines, &[1.0, 1.0 / 3.0, -1.0 / 3.0, 2f64.sqrt() / 3.0]);
    assert_eq!(order(&cosines), [2, 1, 3, 0]);
    assert!(agreement.iter().all(|task| *task == agreement[0]));
    let taylor = given.scores("taylor-summed", Vec::new());
    near(&taylor[0], &[16., 25., 1., 16.]);
    // The tie aside: 2, then 0 and 3, then 1.
    assert_eq!((order(&taylor[0])[0], order(&taylor[0])[3]), (2, 1));
}

#[test]
fn papers_2_9_test_2_cancellation() {
    let given = Given::new(&[&[&[0.9], &[0.2], &[0.5], &[0.1]], &[&[-0.9], &[0.2], &[0.1], &[-0.3]]]);
    near(&given.scores("taylor-summed", Vec::new())[0], &[0.0, 0.16, 0.36, 0.04]);
    let squares = given.scores("taylor", Vec::new());
    let sums: Vec<f64> = squares[0].iter().zip(&squares[1]).map(|(a, b)| a + b).collect();
    near(&sums, &[1.62, 0.08, 0.26, 0.10]);
    near(&given.scores("cosprune", Vec::new())[0], &[0.0, 2.0, 2.0, 0.0]);
}

#[test]
fn papers_2_9_test_3_scale_invariance() {
    let given = ranking();
    let tripled = || {
        let labels = given.labels.keys().next().unwrap();
        vec![LossRequest { of: labels.clone(), loss: "mse".into(), weight: 3.0 }]
    };
    let (plain, weighted) = (given.scores("cosprune", Vec::new()), given.scores("cosprune", tripled()));
    near(&weighted[0], &plain[0]);
    let (plain, weighted) = (given.scores("taylor", Vec::new()), given.scores("taylor", tripled()));
    near(&weighted[0], &plain[0].iter().map(|score| 9.0 * score).collect::<Vec<f64>>());
    near(&weighted[1], &plain[1]);
    assert_ne!(given.scores("taylor-summed", Vec::new())[0], given.scores("taylor-summed", tripled())[0]);
}

#[test]
fn papers_2_9_test_4_guard_of_five() {
    let widths = [8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64];
    let (mut page, mut name, mut channels) = ("in x [n,3,4,4]\n".to_owned(), "x".to_owned(), 3);
    for (at, width) in widths.iter().enumerate() {
        page += &format!("c{at} = Conv({name}, w{at}[{width},{channels},3,3], pads=[1,1,1,1])\nr{at} = Relu(c{at})\n");
        (name, channels) = (format!("r{at}"), *width);
    }
    page += &format!("y = Conv({name}, h0[4,{channels},1,1])\nz = Conv({name}, h1[2,{channels},1,1])\nout y, z");
    let model = text::parse(&page).unwrap();
    let analysis = Analysis::of(&model, &[]).unwrap();
    let mut config = PruneConfig {
        criterion: "cosprune".into(),
        ratio: 0.99,
        rounding: Rounding::Multiple(1),
        ..Default::default()
    };
    let wish = score::criterion("cosprune").unwrap().gradients.unwrap();
    let x = value(&[2, 3, 4, 4], &(0..96).map(|at| (at as f32 * 0.7).sin()).collect::<Vec<f32>>());
    let gradients = analysis.gradients(wish, &GradientOptions::default(), &Tract, &One(x)).unwrap();
    let evidence = Evidence { gradients: Some(&gradients), ..Default::default() };
    let kept = |config: &PruneConfig| {
        let plan = analysis.allocate(&analysis.score_by(config, evidence).unwrap(), config).unwrap();
        plan.kept.iter().flatten().map(Vec::len).sum::<usize>()
    };
    assert_eq!(kept(&config), 13 * 5);
    config.criterion = "l2".into();
    assert_eq!(kept(&config), 13);
}

/// Two units, two samples, gate gradients (1, 2) and (3, -3) by sample: what cancels in the batch does not in samples.
#[test]
fn papers_12_taylor_fisher_and_weights() {
    let given = Given::new(&[&[&[1., 2.], &[3., -3.]]]);
    near(&given.scores("taylor", Vec::new())[0], &[9.0, 0.0]);
    near(&given.scores("fisher", Vec::new())[0], &[2.5, 9.0]);
    // All weights are 1 and sample n moves the n-th weight of a unit alone: sums of squares either way.
    near(&given.scores("taylor-weight", Vec::new())[0], &[5.0, 18.0]);
    near(&given.scores("obd", Vec::new())[0], &[2.5, 9.0]);
    near(&given.scores("snip", Vec::new())[0], &[1.5, 3.0]);
    near(&given.scores("gradient-activation", Vec::new())[0], &[1.5, 3.0]);
}

/// Fisher sums the places of a channel before it squares: 1 + 2 and 3 - 3.
#[test]
fn papers_12_fisher_sums_members_first() {
    let page = "in x [n,1]\na = MatMul(x, w[1,2])\nb = MatMul(a, u[2,1])\nc = MatMul(a, v[2,1])\ny = Add(b, c)\nout y";
    let mut model = text::parse(page).unwrap();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        let numbers = match tensor.name() {
            "w" => [1., 1.],
            "u" => [1., 3.],
            _ => [2., -3.],
        };
        *tensor = tensor::from_f32(tensor.name(), &tensor.dims.clone(), &numbers);
    }
    let analysis = Analysis::of(&model, &[]).unwrap();
    let wish = score::criterion("fisher").unwrap().gradients.unwrap();
    let options = GradientOptions { draws: 3, ..Default::default() };
    let gradients = analysis.gradients(wish, &options, &Tract, &One(value(&[1, 1], &[1.0]))).unwrap();
    let config = PruneConfig { criterion: "fisher".into(), ..Default::default() };
    let evidence = Evidence { gradients: Some(&gradients), ..Default::default() };
    let Scores::PerTask(scores) = analysis.scores(&config, evidence).unwrap() else { panic!() };
    let group = analysis.groups.iter().position(|group| group.lock.is_none()).unwrap();
    // The sign of the probe does not matter to squares.
    near(scores.scores[0][group].as_ref().unwrap(), &[9.0, 0.0]);
}

/// Positions are averaged wherever they lie: behind a Flatten every channel has two in a row.
#[test]
fn gradient_times_activation_is_the_mean_over_positions() {
    let flat = "in x [n,1,2]\na = Conv(x, w[2,1,1])\nf = Flatten(a)\ny = MatMul(f, v[4,1])\nout y";
    let mut model = text::parse(flat).unwrap();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        let numbers: &[f32] = if tensor.name() == "w" { &[1., 1.] } else { &[1., 2., 3., 4.] };
        *tensor = tensor::from_f32(tensor.name(), &tensor.dims.clone(), numbers);
    }
    let analysis = Analysis::of(&model, &[]).unwrap();
    let wish = score::criterion("gradient-activation").unwrap().gradients.unwrap();
    let x = One(value(&[1, 1, 2], &[1.0, 1.0]));
    let gradients = analysis.gradients(wish, &GradientOptions::default(), &Tract, &x).unwrap();
    let config = PruneConfig { criterion: "gradient-activation".into(), ..Default::default() };
    let evidence = Evidence { gradients: Some(&gradients), ..Default::default() };
    let Scores::PerTask(scores) = analysis.scores(&config, evidence).unwrap() else { panic!() };
    let group = analysis.groups.iter().position(|group| group.lock.is_none()).unwrap();
    near(scores.scores[0][group].as_ref().unwrap(), &[1.5, 3.5]);
}

fn trained(name: &str) -> [String; 3] {
    let folder = format!("{}/onnx-models/{name}", env!("CARGO_MANIFEST_DIR"));
    ["model.onnx", "calibration.npz", "calibration_labels.npz"].map(|file| format!("{folder}/{file}"))
}

/// Prunes a trained network, to half where nothing else is said; gives the report and what was printed.
fn pruned(name: &str, more: &[&str]) -> (serde_json::Value, String) {
    let [model, samples, labels] = trained(name);
    let folder = Folder::new();
    let scale = "image=0.00392156862745098";
    let ratio: &[&str] = if more.contains(&"--ratio") { &[] } else { &["--ratio", "0.5"] };
    let words = [&model, "small.onnx", "--engine", "tract", "--report", "report.json"];
    let own = ["--calibration", &samples, "--input-scale", scale, "--max-samples", "40", "--require-verify"];
    let labels = ["--labels", labels.as_str()];
    let labels: &[&str] = if more.contains(&"unlabelled") { &[] } else { &labels };
    let more: Vec<&str> = more.iter().copied().filter(|word| *word != "unlabelled").collect();
    let page = folder.succeed(&[&words[..], ratio, &own, labels, &more].concat());
    (serde_json::from_slice(&folder.bytes("report.json")).unwrap(), page)
}

fn losses(report: &serde_json::Value) -> Vec<(String, String)> {
    let tasks = report["calibration"]["gradients"]["tasks"].as_array().unwrap();
    let loss = |task: &serde_json::Value| {
        let loss = task["losses"][0]["loss"].as_str().unwrap_or("none");
        (task["task"].as_str().unwrap().to_owned(), loss.to_owned())
    };
    tasks.iter().map(loss).collect()
}

fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn every_criterion_prunes_a_trained_network() {
    for row in score::CRITERIA.iter().filter(|row| row.gradients.is_some()) {
        let (report, page) = pruned("mmnist_lenet", &["--criterion", row.name]);
        assert_eq!(losses(&report), named(&[("left", "cross-entropy"), ("right", "cross-entropy")]), "{}", row.name);
        assert_eq!(report["verification"]["outcome"], "passed", "{}", row.name);
        assert!(page.contains("left cross-entropy, right cross-entropy"), "{page}");
        let means = &report["calibration"]["gradients"]["tasks"];
        assert!(means.as_array().unwrap().iter().all(|task| (0.0..2.0).contains(&task["mean"].as_f64().unwrap())));
    }
    let (report, _) = pruned("mmnist_lenet", &["unlabelled", "--criterion", "fisher", "--probes", "2"]);
    assert_eq!(losses(&report), named(&[("left", "probe"), ("right", "probe")]));
    assert_eq!(report["calibration"]["gradients"]["runs"], 64.0);
    let more = ["--criterion", "column-subset", "--importance", "fisher-max", "--loss", "left=sampled:2"];
    let (report, _) = pruned("mmnist_lenet", &[&["unlabelled"], &more[..]].concat());
    assert_eq!(losses(&report), named(&[("left", "sampled"), ("right", "probe")]));
}

#[test]
fn dense_tasks_have_losses_of_their_own() {
    let (report, _) = pruned("digit_scenes", &["--criterion", "fisher"]);
    let expected = [("digit", "cross-entropy"), ("position", "mse"), ("segmentation", "cross-entropy")];
    assert_eq!(losses(&report), named(&expected));
    let conflict = report["agreement"]["groups"].as_array().unwrap().iter().find(|row| !row["conflict"][0].is_null());
    let cosine = conflict.unwrap()["conflict"][0]["cosine"].as_f64().unwrap();
    assert!((-1.0..=1.0).contains(&cosine), "{cosine}");
}

/// The published networks lose most in the last shared layers, and in the first one: where every channel of the trunk
/// competes with every other, what the last shared group loses is more than what those between lose on average.
#[test]
fn papers_2_9_test_6_conflict_concentrates_in_the_last_shared_group() {
    let compete = ["--criterion", "cosprune", "--scope", "global", "--ratio", "0", "--trunk-ratio", "0.3"];
    for name in ["mmnist_resnet", "digit_scenes"] {
        let (report, _) = pruned(name, &[&compete[..], &["--round-to", "1", "--repair", "none"]].concat());
        let agreement = &report["agreement"];
        let tasks = agreement["tasks"].as_array().unwrap().len();
        let shared = agreement["groups"].as_array().unwrap().iter();
        let shared = shared.filter(|group| group["importance"].as_object().unwrap().len() == tasks);
        let lost =
            |group: &serde_json::Value| 1.0 - group["kept"].as_f64().unwrap() / group["extent"].as_f64().unwrap();
        let lost: Vec<f64> = shared.map(lost).collect();
        let [_, between @ .., last] = &lost[..] else { panic!("{name}: {lost:?}") };
        let mean = between.iter().sum::<f64>() / between.len() as f64;
        assert!(*last > mean + 0.05, "{name}: {lost:?}");
    }
}

#[test]
fn what_cannot_be_asked_for_is_said() {
    let [model, samples, labels] = trained("mmnist_lenet");
    let folder = Folder::new();
    let fails = |code: i32, more: &[&str]| {
        let words = [&[model.as_str(), "small.onnx", "--ratio", "0.5", "--engine", "tract"], more].concat();
        folder.fail(code, &words)
    };
    let own = ["--calibration", &samples, "--labels", &labels, "--criterion", "fisher"];
    let wrong = fails(2, &[&own[..], &["--loss", "left=mse"]].concat());
    assert!(wrong.contains("task `left`") && wrong.contains("labels of shape [] for outputs of shape [10]"), "{wrong}");
    assert!(fails(2, &[&own[..], &["--loss", "middle=mse"]].concat()).contains("no task or output `middle`"));
    assert!(fails(2, &[&own[..], &["--loss", "left=hinge"]].concat()).contains("there is no loss `hinge`"));
    assert!(fails(2, &["--criterion", "fisher"]).contains("needs gradients"));
    let calibrate =
        folder.fail(2, &["calibrate", &model, "-o", "s.mtstats", "--calibration", &samples, "--criterion", "taylor"]);
    assert!(calibrate.contains("gradients, which are not kept in files"), "{calibrate}");
}
