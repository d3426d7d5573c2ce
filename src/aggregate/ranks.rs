//! Orders: numbers with something to decide between equal ones, and the sets that come first.

use std::cmp::Ordering;

/// The place of every entry in the order of `first` and, where that is equal, of `second`: the lowest has 0, equal ones
/// share a place. NaN comes lowest.
pub fn ranked(first: &[f64], second: &[f64]) -> Vec<f64> {
    let known = |numbers: &[f64], at: usize| {
        // Negative zero is zero.
        numbers.get(at).copied().filter(|n| !n.is_nan()).map_or(f64::NEG_INFINITY, |n| n + 0.0)
    };
    let compare = |a: usize, b: usize| -> Ordering {
        let by = |numbers: &[f64]| known(numbers, a).total_cmp(&known(numbers, b));
        by(first).then_with(|| by(second))
    };
    let mut order: Vec<usize> = (0..first.len()).collect();
    order.sort_by(|a, b| compare(*a, *b));
    let mut places = vec![0.0; first.len()];
    let mut place = 0.0;
    for (position, at) in order.iter().enumerate() {
        let before = position.checked_sub(1).and_then(|position| order.get(position));
        if before.is_some_and(|before| compare(*before, *at).is_ne()) {
            place += 1.0;
        }
        if let Some(own) = places.get_mut(*at) {
            *own = place;
        }
    }
    places
}

/// True for the `count` entries of the highest scores; ties go to the lower index, NaN goes first.
pub fn top(scores: &[f64], count: usize) -> Vec<bool> {
    // Negative zero is zero.
    let score = |at: &usize| scores.get(*at).copied().filter(|s| !s.is_nan()).map_or(f64::NEG_INFINITY, |s| s + 0.0);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
    let mut keep = vec![false; scores.len()];
    for at in order.into_iter().take(count) {
        if let Some(keep) = keep.get_mut(at) {
            *keep = true;
        }
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_share_a_place_unless_the_second_decides() {
        assert_eq!(ranked(&[2.0, 1.0, 2.0, f64::NAN], &[0.0, 5.0, 1.0, 9.0]), [2.0, 1.0, 3.0, 0.0]);
        assert_eq!(ranked(&[0.0, -0.0, 1.0], &[3.0, 3.0, 0.0]), [0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_top_goes_to_the_lower_index_among_equals() {
        assert_eq!(top(&[1.0, 1.0, f64::NAN, 2.0], 2), [true, false, false, true]);
        assert_eq!(top(&[1.0], 5), [true]);
        assert_eq!(top(&[-0.0, 0.0], 1), [true, false]);
    }
}
