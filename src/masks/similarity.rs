//! How similar two tasks are, by what is stored of them. All are numbers of which more means nearer.

use super::{MaskFile, Outputs, StoredScores};
use crate::aggregate::overlap;

/// What tells how similar two tasks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Similarity {
    /// How well the outputs of the stored model tell the labels: LEEP (arXiv 2002.12462).
    Leep,
    /// The cosine between stored scores and own ones, of one criterion; of a gradient criterion, between gradients.
    Gradient,
    /// Linear CKA between the outputs of both models on the same samples (arXiv 1905.00414).
    Cka,
    /// The mean overlap of the stored mask with the channels that the model's own scores would keep.
    Overlap,
}

/// All of them, by the names on the command line.
pub const SIMILARITIES: &[(&str, Similarity)] = &[
    ("leep", Similarity::Leep),
    ("gradient", Similarity::Gradient),
    ("cka", Similarity::Cka),
    ("overlap", Similarity::Overlap),
];

/// The log expected empirical prediction: the mean log-likelihood of labels under the best that can be said of them from
/// the classes that another model names. `predictions` are probabilities, one row per sample; at most 0. None without
/// samples, or where rows and labels differ in number.
pub fn leep(predictions: &[Vec<f64>], labels: &[usize]) -> Option<f64> {
    let classes = labels.iter().max()? + 1;
    let width = predictions.first()?.len();
    if predictions.len() != labels.len() || predictions.iter().any(|row| row.len() != width) || classes > 1 << 20 {
        return None;
    }
    // The probability of label y given class z, not yet divided by that of z.
    let mut joint = vec![vec![0.0; width]; classes];
    let mut marginal = vec![0.0; width];
    for (row, label) in predictions.iter().zip(labels) {
        for (class, chance) in row.iter().enumerate() {
            joint[*label][class] += chance;
            marginal[class] += chance;
        }
    }
    let likelihood = |(row, label): (&Vec<f64>, &usize)| -> f64 {
        let classes = row.iter().zip(&joint[*label]).zip(&marginal).filter(|(_, marginal)| **marginal > 0.0);
        classes.map(|((chance, joint), marginal)| chance * joint / marginal).sum::<f64>().ln()
    };
    Some(predictions.iter().zip(labels).map(likelihood).sum::<f64>() / labels.len() as f64)
}

/// Linear centred kernel alignment of two sets of features of the same samples, one row each: from 0 to 1. None of fewer
/// than two samples, and where one set does not vary.
pub fn linear_cka(a: &[Vec<f64>], b: &[Vec<f64>]) -> Option<f64> {
    if a.len() != b.len() || a.len() < 2 {
        return None;
    }
    let (a, b) = (gram(a), gram(b));
    let inner = |a: &[Vec<f64>], b: &[Vec<f64>]| -> f64 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| a * b).sum()
    };
    let scale = (inner(&a, &a) * inner(&b, &b)).sqrt();
    (scale > 0.0).then(|| inner(&a, &b) / scale)
}

/// The products of the rows with one another after the mean row has been taken from each.
fn gram(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let width = rows.iter().map(Vec::len).min().unwrap_or(0);
    let mean = |column: usize| rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64;
    let means: Vec<f64> = (0..width).map(mean).collect();
    let centred: Vec<Vec<f64>> =
        rows.iter().map(|row| row.iter().zip(&means).map(|(number, mean)| number - mean).collect()).collect();
    let product = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a * b).sum();
    centred.iter().map(|a| centred.iter().map(|b| product(a, b)).collect()).collect()
}

/// The cosine of two vectors; none where one is zero or their lengths differ.
pub fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = (product(a, a) * product(b, b)).sqrt();
    (a.len() == b.len() && scale > 0.0 && scale.is_finite()).then(|| product(a, b) / scale)
}

/// What is known of the model that looks for neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Its scores, the same for all tasks.
    pub scores: &'a StoredScores,
    /// What it gives out on samples, where there are any.
    pub outputs: Option<&'a Outputs>,
    /// Labels of the same samples, by task.
    pub labels: &'a [Vec<usize>],
}

/// How near a stored mask is.
///
/// # Errors
/// Why that cannot be told, in words that follow the mask's name.
pub fn of(similarity: Similarity, mask: &MaskFile, own: &Own) -> Result<f64, String> {
    let undefined = || "cannot be compared: numbers are missing or do not vary".to_owned();
    let outputs = || -> Result<(&Outputs, &Outputs), String> {
        let own = own.outputs.ok_or("needs samples: give --calibration")?;
        let stored = mask.outputs.as_ref().ok_or("has no outputs stored: add it with --model and --calibration")?;
        if own.samples != stored.samples {
            return Err("was stored with other samples: only the same ones can be compared".to_owned());
        }
        Ok((own, stored))
    };
    match similarity {
        Similarity::Leep => {
            let (_, stored) = outputs()?;
            if own.labels.is_empty() {
                return Err("cannot be compared without labels".to_owned());
            }
            // A task is as near as the output that tells most of it.
            let best = |labels: &Vec<usize>| {
                let known = stored.rows.values().filter_map(|rows| leep(&probabilities(rows), labels));
                known.max_by(f64::total_cmp)
            };
            let known: Option<Vec<f64>> = own.labels.iter().map(best).collect();
            known.map(|known| known.iter().sum::<f64>() / known.len() as f64).ok_or_else(undefined)
        }
        Similarity::Cka => {
            let (own, stored) = outputs()?;
            linear_cka(&own.features(), &stored.features()).ok_or_else(undefined)
        }
        Similarity::Gradient => {
            let stored = mask.scores.as_ref().ok_or("has no scores stored: add it with --model")?;
            if stored.criterion != own.scores.criterion {
                let (stored, own) = (&stored.criterion, &own.scores.criterion);
                return Err(format!("holds scores of `{stored}`, not of `{own}`"));
            }
            let both = stored.groups.iter().filter_map(|(name, stored)| Some((stored, own.scores.groups.get(name)?)));
            let both = both.filter(|(a, b)| a.len() == b.len());
            let (a, b): (Vec<&[f64]>, Vec<&[f64]>) = both.map(|(a, b)| (a.as_slice(), b.as_slice())).unzip();
            cosine(&a.concat(), &b.concat()).ok_or_else(undefined)
        }
        Similarity::Overlap => {
            let overlaps = mask.groups.iter().filter_map(|group| {
                let own = own.scores.groups.get(&group.name).filter(|scores| scores.len() == group.extent)?;
                let mut keep = vec![false; group.extent];
                group.kept.iter().for_each(|kept| keep[*kept as usize] = true);
                Some(overlap::of(&keep, &crate::aggregate::top(own, group.kept.len())))
            });
            let overlaps: Vec<f64> = overlaps.collect();
            let mean = overlaps.iter().sum::<f64>() / overlaps.len().max(1) as f64;
            (!overlaps.is_empty()).then_some(mean).ok_or_else(undefined)
        }
    }
}

/// Rows as probabilities: as they are where they are some already, else by the softmax.
fn probabilities(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let is_distribution =
        |row: &Vec<f64>| row.iter().all(|p| *p >= 0.0) && (row.iter().sum::<f64>() - 1.0).abs() < 1e-3;
    if rows.iter().all(is_distribution) {
        return rows.to_vec();
    }
    rows.iter().map(|row| crate::aggregate::vote::chances(row)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_shot_pruning_5_3_leep() {
        let predictions = [vec![0.9, 0.1], vec![0.8, 0.2], vec![0.3, 0.7], vec![0.2, 0.8]];
        let labels = [0, 0, 1, 1];
        assert!((leep(&predictions, &labels).unwrap() - -0.383_981).abs() < 5e-7);
        let uniform = vec![vec![0.5, 0.5]; 4];
        assert!((leep(&uniform, &labels).unwrap() + std::f64::consts::LN_2).abs() < 5e-7);
        assert_eq!((leep(&predictions, &[0, 1]), leep(&[], &[])), (None, None));
        // A class that is never predicted says nothing, and does not divide by zero.
        let certain = [vec![1.0, 0.0], vec![1.0, 0.0]];
        assert_eq!(leep(&certain, &[0, 0]), Some(0.0));
    }

    #[test]
    fn cka_knows_no_rotation_scale_or_shift() {
        let a = vec![vec![1.0, 0.0], vec![0.0, 2.0], vec![-1.0, 1.0], vec![3.0, 1.0]];
        let turned: Vec<Vec<f64>> = a.iter().map(|row| vec![7.0 - 3.0 * row[1], 3.0 * row[0] + 1.0]).collect();
        assert!((linear_cka(&a, &turned).unwrap() - 1.0).abs() < 1e-12);
        let other = vec![vec![1.0], vec![1.0], vec![0.0], vec![0.0]];
        let mixed = linear_cka(&a, &other).unwrap();
        assert!(mixed > 0.0 && mixed < 0.9, "{mixed}");
        assert_eq!(linear_cka(&a, &vec![vec![1.0]; 4]), None);
        assert_eq!(linear_cka(&a, &other[..2]), None);
    }

    #[test]
    fn cosines_of_vectors() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        assert_eq!(cosine(&[3.0, 4.0], &[-6.0, -8.0]), Some(-1.0));
        assert_eq!((cosine(&[0.0], &[1.0]), cosine(&[1.0], &[1.0, 2.0])), (None, None));
    }
}
