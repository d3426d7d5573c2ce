//! How far the choices of tasks overlap, along the depth of a model.

/// The intersection over the union of two masks; 1 where both are empty.
pub fn of(a: &[bool], b: &[bool]) -> f64 {
    let count = |both: fn(bool, bool) -> bool| a.iter().zip(b).filter(|(a, b)| both(**a, **b)).count();
    let union = count(|a, b| a || b);
    if union == 0 { 1.0 } else { count(|a, b| a && b) as f64 / union as f64 }
}

/// The mean overlap of all pairs; none of fewer than two masks.
pub fn mean(masks: &[Vec<bool>]) -> Option<f64> {
    let pairs = masks.iter().enumerate().flat_map(|(i, a)| masks.iter().skip(i + 1).map(move |b| of(a, b)));
    let pairs: Vec<f64> = pairs.collect();
    (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64)
}

/// How many of the first overlaps the watershed is measured against.
pub const FIRST: usize = 3;

/// Where tasks part (DiSparse, arXiv 2206.04662, calls it the watershed): the first place along the depth whose overlap
/// is below half of the mean of the first [`FIRST`]; none where there is no such place, or no more than those.
pub fn watershed(overlaps: &[f64]) -> Option<usize> {
    let first = overlaps.get(..FIRST)?;
    let limit = first.iter().sum::<f64>() / FIRST as f64 / 2.0;
    overlaps.iter().skip(FIRST).position(|overlap| *overlap < limit).map(|at| at + FIRST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The worked values for Meta-Vote Pruning.
    #[test]
    fn identical_masks_overlap_fully_and_disjoint_ones_not_at_all() {
        let (a, b) = ([true, false, true, false], [false, true, false, true]);
        assert_eq!((of(&a, &a), of(&a, &b), of(&[false], &[false])), (1.0, 0.0, 1.0));
        assert_eq!(of(&[true, true, false], &[true, false, true]), 1.0 / 3.0);
        assert_eq!(mean(&[a.to_vec(), a.to_vec(), b.to_vec()]), Some(1.0 / 3.0));
        assert_eq!(mean(&[a.to_vec()]), None);
    }

    #[test]
    fn the_watershed_is_where_the_overlap_halves() {
        assert_eq!(watershed(&[1.0, 0.9, 0.8, 0.6, 0.46, 0.44, 0.1]), Some(5));
        assert_eq!(watershed(&[0.5, 0.5, 0.5, 0.3]), None);
        assert_eq!(watershed(&[0.9, 0.1]), None);
    }
}
