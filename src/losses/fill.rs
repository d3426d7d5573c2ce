//! Fill: what the inputs are fed with that losses add to a model.
//!
//! Invariant: what a sample gets does not depend on the batch that it is in.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::engine::value::from_vec;
use crate::engine::{ElementType, InputFact, Value};
use crate::{Error, Result};

/// An input that a loss adds.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Its name.
    pub name: String,
    /// The output that it belongs to.
    pub of: String,
    /// Element type.
    pub element: ElementType,
    /// Extents of one sample.
    pub extents: Vec<usize>,
    /// What it holds.
    pub fill: Fill,
}

/// What an input holds.
#[derive(Clone, Debug)]
pub enum Fill {
    /// Labels that name classes; the first axis counts the samples of the source.
    Classes {
        /// The labels.
        labels: Arc<Value>,
        /// How many classes there are.
        count: usize,
    },
    /// Labels that are numbers.
    Numbers {
        /// The labels.
        labels: Arc<Value>,
        /// The smallest and the largest that may occur.
        range: (f64, f64),
    },
    /// Random numbers.
    Random(Draw),
}

/// A distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// -1 or 1.
    Sign,
    /// Mean 0, variance 1.
    Normal,
    /// -log(-log(u)): the class with the largest logit plus such a number is drawn from the softmax.
    Gumbel,
    /// From 0 to 1.
    Uniform,
}

/// The class that is given to positions that do not count.
const IGNORED: i64 = -1;

/// 255 marks what does not count in pictures of labels, where there are fewer classes.
const IGNORED_BYTE: f64 = 255.0;

impl Feed {
    /// Type and shape for so many samples.
    pub fn fact(&self, samples: usize) -> InputFact {
        let shape = std::iter::once(samples).chain(self.extents.iter().copied()).collect();
        InputFact { name: self.name.clone(), element: self.element, shape }
    }

    /// The value for samples of the source; `draw` counts draws of random numbers.
    ///
    /// # Errors
    /// Labels that are missing or out of range, with the output and the sample.
    pub fn value(&self, samples: &[usize], seed: u64, draw: usize) -> Result<Value> {
        let shape: Vec<usize> = std::iter::once(samples.len()).chain(self.extents.iter().copied()).collect();
        let value: Value = match &self.fill {
            Fill::Classes { labels, count } => {
                let numbers = self.labels(labels, samples)?;
                let class = |n: &f64| class(*n, *count).map_err(|e| e.tensor(&self.of));
                from_vec(&shape, numbers.iter().map(class).collect::<Result<Vec<i64>>>()?)?.into()
            }
            Fill::Numbers { labels, range: (low, high) } => {
                let numbers = self.labels(labels, samples)?;
                if let Some(wrong) = numbers.iter().find(|n| !(**n >= *low && **n <= *high)) {
                    return Err(Error::input(format!("the label {wrong} is not from {low} to {high}"))
                        .tensor(&self.of)
                        .help("choose another --loss for it"));
                }
                from_vec(&shape, numbers)?.into()
            }
            Fill::Random(kind) => {
                let per_sample: usize = self.extents.iter().product();
                let mut numbers = Vec::with_capacity(per_sample.saturating_mul(samples.len()));
                for sample in samples {
                    let mut random = generator(&self.of, seed, *sample, draw);
                    numbers.extend((0..per_sample).map(|_| kind.next(&mut random)));
                }
                from_vec(&shape, numbers)?.into()
            }
        };
        value.cast(self.element)
    }

    fn labels(&self, labels: &Value, samples: &[usize]) -> Result<Vec<f64>> {
        let rows = labels.select(0, samples).map_err(|e| {
            e.tensor(&self.of).help("the labels need one entry for every sample of the calibration data")
        })?;
        Ok(rows.to_f64())
    }
}

/// The class of a label. Negative ones do not count, nor does 255 where there are no so many classes.
fn class(label: f64, count: usize) -> Result<i64> {
    let is_ignored = label < 0.0 || (label == IGNORED_BYTE && count <= 255);
    if is_ignored {
        return Ok(IGNORED);
    }
    if label.fract() == 0.0 && label < count as f64 {
        return Ok(label as i64);
    }
    Err(Error::input(format!("the label {label} is none of {count} classes"))
        .help("classes are counted from 0; negative labels, and 255 where there are fewer classes, do not count"))
}

/// A generator of its own for every output, sample and draw.
fn generator(of: &str, seed: u64, sample: usize, draw: usize) -> ChaCha8Rng {
    // FNV-1a over the name; the streams of one seed are independent of one another.
    let name = of
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ name ^ (draw as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    random.set_stream(sample as u64);
    random
}

impl Draw {
    fn next(self, random: &mut ChaCha8Rng) -> f64 {
        // Neither 0 nor 1, whose logarithms would be infinite.
        let uniform = |random: &mut ChaCha8Rng| (f64::from(random.next_u32()) + 0.5) / 4_294_967_296.0;
        match self {
            Self::Sign => f64::from(random.next_u32() & 1) * 2.0 - 1.0,
            Self::Uniform => uniform(random),
            Self::Gumbel => -(-uniform(random).ln()).ln(),
            // Box and Muller.
            Self::Normal => {
                let (a, b) = (uniform(random), uniform(random));
                (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
            }
        }
    }
}
