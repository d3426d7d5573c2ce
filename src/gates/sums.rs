//! Sums over samples and batches: what gradient criteria are made of.

use crate::grad::Stop;

/// What is known of the gradients of all groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    /// The tasks.
    pub tasks: Vec<TaskGradients>,
    /// The groups, in the order of the analysis.
    pub groups: Vec<GroupGradients>,
    /// How many samples were run; one that was run with several draws of random numbers counts several times.
    pub samples: f64,
    /// How many batches were run, likewise.
    pub batches: f64,
    /// What a person should know about how they were run, one sentence each.
    pub notes: Vec<String>,
}

/// A task and the loss that was differentiated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskGradients {
    /// Its name.
    pub name: String,
    /// Its outputs, each with the name of the loss and its weight.
    pub losses: Vec<(String, &'static str, f64)>,
    /// The mean of its loss over samples.
    pub mean: f64,
    /// Where gradients stop.
    pub stops: Vec<Stop>,
}

/// What is known of one group. Matrices are by task and task, row-major, and hold one number per channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupGradients {
    /// By task: whether all gates of the group have a gradient.
    pub is_gated: Vec<bool>,
    /// Sums over samples of the product of the gate gradients of two tasks.
    pub by_sample: Vec<Vec<f64>>,
    /// Sums over batches of the product of the mean gate gradients of two tasks.
    pub by_batch: Vec<Vec<f64>>,
    /// By task: sums over samples of the magnitude of the gate gradient.
    pub magnitudes: Vec<Vec<f64>>,
    /// By task: sums over samples of the mean of |a dL/da| over positions; empty unless wished for.
    pub activations: Vec<Vec<f64>>,
    /// Of the weights that make the channels; none unless wished for.
    pub weights: Option<WeightGradients>,
}

/// What is known of the gradients of the weights that make the channels of a group; all weights of a channel are one
/// vector. A gradient is that of the mean loss of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightGradients {
    /// By task: whether all weights have a gradient.
    pub is_known: Vec<bool>,
    /// Sums over batches of the cosine of the gradients of two tasks.
    pub cosines: Vec<Vec<f64>>,
    /// By task: sums over batches of sum (w g)².
    pub squares: Vec<Vec<f64>>,
    /// By task: sums over batches of sum |w g|.
    pub magnitudes: Vec<Vec<f64>>,
    /// By task: sums over samples of sum (w g)², g the gradient of the loss of that sample; empty unless wished for.
    pub by_sample: Vec<Vec<f64>>,
}

impl GroupGradients {
    pub(super) fn new(tasks: usize, channels: usize, activations: bool) -> Self {
        let zeros = |count: usize| vec![vec![0.0; channels]; count];
        Self {
            is_gated: vec![true; tasks],
            by_sample: zeros(tasks * tasks),
            by_batch: zeros(tasks * tasks),
            magnitudes: zeros(tasks),
            activations: zeros(if activations { tasks } else { 0 }),
            weights: None,
        }
    }

    /// How far the tasks pull the group in one direction: the cosine between the gate gradients of two tasks, all
    /// channels and samples together; none where a gradient is 0 or not known.
    pub fn agreement(&self, task: usize, other: usize) -> Option<f64> {
        let tasks = self.is_gated.len();
        let both = [task, other].iter().all(|t| self.is_gated.get(*t).copied().unwrap_or(false));
        let sum = |a: usize, b: usize| self.by_sample.get(a * tasks + b).map_or(0.0, |sums| sums.iter().sum::<f64>());
        let lengths = (sum(task, task) * sum(other, other)).sqrt();
        (both && lengths > 0.0).then(|| sum(task, other) / lengths)
    }
}

/// Added to lengths before dividing by them, as the seed paper's code does (papers: CosPrune).
const TINY: f64 = 1e-30;

/// The cosine of two vectors from their products.
pub(super) fn cosine(product: f64, own: f64, other: f64) -> f64 {
    product / ((own.sqrt() + TINY) * (other.sqrt() + TINY))
}

/// Adds the products of the numbers of all pairs of tasks; `numbers` is by task and channel.
pub(super) fn add_products(into: &mut [Vec<f64>], numbers: &[Vec<f64>]) {
    let tasks = numbers.len();
    for (pair, sums) in into.iter_mut().enumerate() {
        if let (Some(a), Some(b)) = (numbers.get(pair / tasks.max(1)), numbers.get(pair % tasks.max(1))) {
            sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
        }
    }
}

/// Adds numbers to numbers.
pub(super) fn add(into: &mut [f64], numbers: &[f64], factor: f64) {
    into.iter_mut().zip(numbers).for_each(|(into, number)| *into += factor * number);
}
