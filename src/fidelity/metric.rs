//! Metrics: how good a task's first output is, by labels.
//!
//! One row per metric. Labels below zero, and labels that are NaN, do not count. Where the output has one axis more than
//! the labels, it counts classes: the first axis behind the batch if the others then fit, else the last.

use super::outputs::largest;
use crate::engine::Value;
use crate::{Error, Result};

/// Adds up batches.
pub trait Metric: Send {
    /// Takes the outputs [batch, ..] and labels [batch, ..] of a batch.
    ///
    /// # Errors
    /// Shapes that do not belong together.
    fn add(&mut self, output: &Value, labels: &Value) -> Result<()>;

    /// The metric of all batches so far; NaN if nothing counted.
    fn value(&self) -> f64;
}

/// One row of the table of metrics.
#[derive(Debug)]
pub struct MetricRow {
    /// Its name on the command line.
    pub name: &'static str,
    /// Starts from nothing.
    pub start: fn() -> Box<dyn Metric>,
    /// True if more is better.
    pub is_gain: bool,
    /// What it is, in one sentence.
    pub note: &'static str,
}

/// All metrics.
pub static METRICS: &[MetricRow] = &[
    MetricRow {
        name: "accuracy",
        start: || Box::new(Accuracy::default()),
        is_gain: true,
        note: "fraction of labels that are the largest class; without an axis of classes, the side of 0.5 (outputs from 0 to 1) or of 0",
    },
    MetricRow {
        name: "miou",
        start: || Box::new(Overlap::default()),
        is_gain: true,
        note: "intersection over union, mean over the classes that occur; without an axis of classes as accuracy",
    },
    MetricRow {
        name: "mae",
        start: || Box::new(Distance { squared: false, sum: 0.0, count: 0 }),
        is_gain: false,
        note: "mean absolute error",
    },
    MetricRow {
        name: "mse",
        start: || Box::new(Distance { squared: true, sum: 0.0, count: 0 }),
        is_gain: false,
        note: "mean squared error",
    },
];

/// The metric of a name.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn metric(name: &str) -> Result<&'static MetricRow> {
    METRICS.iter().find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<&str> = METRICS.iter().map(|row| row.name).collect();
        Error::input(format!("there is no metric `{name}`")).help(format!("choose one of {}", names.join(", ")))
    })
}

/// One prediction and its label, both classes.
fn classes(output: &Value, labels: &Value, each: &mut dyn FnMut(usize, usize)) -> Result<()> {
    let (shape, wanted) = (output.shape(), labels.shape());
    let without =
        |axis: usize| shape.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, n)| *n).collect::<Vec<_>>();
    let axis = [1, shape.len().saturating_sub(1)].into_iter().find(|axis| *axis > 0 && without(*axis) == wanted);
    let axis = axis.ok_or_else(|| unfit(output, labels))?;
    let count = shape.get(axis).copied().unwrap_or(1);
    let inner: usize = shape.iter().skip(axis + 1).product();
    let (values, labels) = (output.to_f64(), labels.to_f64());
    let mut row = vec![0.0; count];
    for (position, label) in labels.iter().enumerate().filter(|(_, label)| **label >= 0.0) {
        let (before, behind) = (position / inner.max(1), position % inner.max(1));
        for (class, entry) in row.iter_mut().enumerate() {
            *entry = values.get((before * count + class) * inner + behind).copied().unwrap_or(f64::NAN);
        }
        each(largest(&row), *label as usize);
    }
    Ok(())
}

/// Pairs of numbers where the output has as many as there are labels.
fn numbers(output: &Value, labels: &Value) -> Option<Vec<(f64, f64)>> {
    let fits = output.len() == labels.len() && output.shape().first() == labels.shape().first();
    fits.then(|| output.to_f64().into_iter().zip(labels.to_f64()).filter(|(_, label)| !label.is_nan()).collect())
}

fn unfit(output: &Value, labels: &Value) -> Error {
    Error::input(format!("labels of shape {:?} do not fit an output of shape {:?}", labels.shape(), output.shape()))
        .help("the labels have the shape of the output, or that without its axis of classes")
}

#[derive(Default)]
struct Accuracy {
    right: usize,
    count: usize,
    /// Right with the border at 0.5, and whether an output ever left 0 to 1.
    right_at_half: usize,
    is_logit: bool,
    is_binary: bool,
}

impl Metric for Accuracy {
    fn add(&mut self, output: &Value, labels: &Value) -> Result<()> {
        let Some(pairs) = numbers(output, labels) else {
            return classes(output, labels, &mut |found, label| {
                self.count += 1;
                self.right += usize::from(found == label);
            });
        };
        self.is_binary = output.is_float();
        for (found, label) in pairs.into_iter().filter(|(_, label)| *label >= 0.0) {
            self.count += 1;
            self.is_logit |= !(0.0..=1.0).contains(&found);
            if self.is_binary {
                self.right += usize::from((found > 0.0) == (label > 0.5));
                self.right_at_half += usize::from((found > 0.5) == (label > 0.5));
            } else {
                self.right += usize::from(found == label);
            }
        }
        Ok(())
    }

    fn value(&self) -> f64 {
        let right = if self.is_binary && !self.is_logit { self.right_at_half } else { self.right };
        right as f64 / self.count as f64
    }
}

/// Per class: where both are, and where either is.
#[derive(Default)]
struct Counts {
    both: Vec<usize>,
    found: Vec<usize>,
    labels: Vec<usize>,
}

impl Counts {
    fn add(&mut self, found: usize, label: usize) -> Result<()> {
        /// More classes are labels for something else.
        const MOST_CLASSES: usize = 1 << 20;
        let needed = found.max(label).saturating_add(1);
        if needed > MOST_CLASSES {
            return Err(Error::input(format!("a label names class {label}")).help("labels below 0 do not count"));
        }
        for list in [&mut self.both, &mut self.found, &mut self.labels] {
            list.resize(list.len().max(needed), 0);
        }
        self.found[found] += 1;
        self.labels[label] += 1;
        self.both[label] += usize::from(found == label);
        Ok(())
    }

    fn mean(&self) -> f64 {
        let overlaps = self.both.iter().zip(self.found.iter().zip(&self.labels));
        let overlaps = overlaps.map(|(both, (found, label))| (*both as f64, (found + label - both) as f64));
        let present: Vec<f64> =
            overlaps.filter(|(_, either)| *either > 0.0).map(|(both, either)| both / either).collect();
        present.iter().sum::<f64>() / present.len() as f64
    }
}

#[derive(Default)]
struct Overlap {
    counts: Counts,
    /// With the border at 0.5, and whether an output ever left 0 to 1, as for [`Accuracy`].
    at_half: Counts,
    is_logit: bool,
    is_binary: bool,
}

impl Metric for Overlap {
    fn add(&mut self, output: &Value, labels: &Value) -> Result<()> {
        let Some(pairs) = numbers(output, labels) else {
            let mut pairs = Vec::new();
            classes(output, labels, &mut |found, label| pairs.push((found, label)))?;
            return pairs.into_iter().try_for_each(|(found, label)| self.counts.add(found, label));
        };
        self.is_binary = output.is_float();
        for (found, label) in pairs.into_iter().filter(|(_, label)| *label >= 0.0) {
            if self.is_binary {
                self.is_logit |= !(0.0..=1.0).contains(&found);
                self.counts.add(usize::from(found > 0.0), label as usize)?;
                self.at_half.add(usize::from(found > 0.5), label as usize)?;
            } else {
                self.counts.add(found as usize, label as usize)?;
            }
        }
        Ok(())
    }

    fn value(&self) -> f64 {
        if self.is_binary && !self.is_logit { self.at_half.mean() } else { self.counts.mean() }
    }
}

struct Distance {
    squared: bool,
    sum: f64,
    count: usize,
}

impl Metric for Distance {
    fn add(&mut self, output: &Value, labels: &Value) -> Result<()> {
        for (found, label) in numbers(output, labels).ok_or_else(|| unfit(output, labels))? {
            let distance = (found - label).abs();
            self.sum += if self.squared { distance * distance } else { distance };
            self.count += 1;
        }
        Ok(())
    }

    fn value(&self) -> f64 {
        self.sum / self.count as f64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ndarray::ArrayD;

    fn value(shape: &[usize], data: &[f32]) -> Value {
        ArrayD::from_shape_vec(shape.to_vec(), data.to_vec()).unwrap().into()
    }

    fn labels(shape: &[usize], data: &[i64]) -> Value {
        ArrayD::from_shape_vec(shape.to_vec(), data.to_vec()).unwrap().into()
    }

    fn judge(name: &str, output: &Value, labels: &Value) -> f64 {
        let mut metric = (metric(name).unwrap().start)();
        metric.add(output, labels).unwrap();
        metric.value()
    }

    #[test]
    fn accuracy_of_classes_pixels_and_yes_or_no() {
        let output = value(&[3, 2], &[0.1, 0.9, 0.8, 0.2, 0.3, 0.7]);
        assert_eq!(judge("accuracy", &output, &labels(&[3], &[1, 1, -1])), 0.5);
        // One picture of 1 x 2 pixels and two classes: classes 1 and 0.
        let output = value(&[1, 2, 1, 2], &[0.0, 5.0, 1.0, 2.0]);
        assert_eq!(judge("accuracy", &output, &labels(&[1, 1, 2], &[1, 1])), 0.5);
        // Two tokens with three classes each, classes last.
        let output = value(&[1, 2, 3], &[0.0, 5.0, 1.0, 2.0, 0.0, 1.0]);
        assert_eq!(judge("accuracy", &output, &labels(&[1, 2], &[1, 0])), 1.0);
        assert_eq!(judge("accuracy", &value(&[2, 1], &[0.4, 0.6]), &labels(&[2], &[0, 1])), 1.0);
        assert_eq!(judge("accuracy", &value(&[2, 1], &[0.4, -6.0]), &labels(&[2], &[1, 0])), 1.0);
    }

    #[test]
    fn overlap_and_distances() {
        // Classes 0, 1, 1 found where 0, 0, 1 are: 1/2 for both.
        let output = value(&[3, 2], &[1., 0., 0., 1., 0., 1.]);
        assert_eq!(judge("miou", &output, &labels(&[3], &[0, 0, 1])), 0.5);
        // One channel: two classes by the side of 0, or of 0.5. Found 1, 0, 1, 1 where 1, 0, 0, 1 are: 1/2 and 2/3.
        for (numbers, shape) in [([4., -1., 2., 3.], &[1, 1, 2, 2][..]), ([0.9, 0.1, 0.6, 0.7], &[1, 2, 2])] {
            let found = judge("miou", &value(&[1, 1, 2, 2], &numbers), &labels(shape, &[1, 0, 0, 1]));
            assert!((found - 7.0 / 12.0).abs() < 1e-12, "{found}");
        }
        let (output, wanted) = (value(&[2, 1], &[1., 4.]), value(&[2], &[0., 1.]));
        assert_eq!((judge("mae", &output, &wanted), judge("mse", &output, &wanted)), (2.0, 5.0));
    }

    #[test]
    fn shapes_that_do_not_belong_together() {
        let mut accuracy = (metric("accuracy").unwrap().start)();
        let error = accuracy.add(&value(&[2, 3, 4], &[0.0; 24]), &labels(&[2, 5], &[0; 10])).unwrap_err();
        assert!(
            error.to_string().contains("labels of shape [2, 5] do not fit an output of shape [2, 3, 4]"),
            "{error}"
        );
        assert!(metric("best").unwrap_err().to_string().contains("choose one of accuracy, miou"));
    }
}
