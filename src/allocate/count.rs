//! How many channels a group keeps: ratio, rounding and floors.
//!
//! Torch-Pruning keeps `int(n * (1 - ratio))`; so do we at `Multiple(1)`. Hardware likes multiples of 8, and a cut that
//! leaves one makes models slower, so by default a group of 64 channels or more that stands on a multiple of 8 stays on
//! one.

use super::AllocateConfig;

/// What kept counts are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Groups of 64 channels or more on a multiple of 8 stay on one; others are not rounded.
    Auto,
    /// The nearest multiple of N, at least N; groups of fewer than N channels stay whole.
    Multiple(usize),
}

/// The groups from which on `Rounding::Auto` rounds, and to what.
const AUTO_FROM: usize = 64;
const AUTO_TO: usize = 8;

/// How many of `extent` channels stay if the fraction `ratio` of them is to go.
pub fn kept_count(extent: usize, ratio: f64, config: &AllocateConfig) -> usize {
    if ratio == 0.0 {
        return extent;
    }
    // 10 × (1 - 0.3) is 7, also where binary fractions make it 6.999…
    let part = |ratio: f64| (extent as f64 * (1.0 - ratio) + 1e-9).floor() as usize;
    let wanted = part(ratio);
    let rounded = match config.rounding {
        Rounding::Auto if extent >= AUTO_FROM && extent.is_multiple_of(AUTO_TO) => nearest(wanted, AUTO_TO),
        Rounding::Multiple(n) if n > 1 && extent < n => extent,
        Rounding::Multiple(n) if n > 1 => nearest(wanted, n),
        _ => wanted,
    };
    rounded.max(floor(extent, config)).min(extent)
}

/// How many of `extent` channels stay whatever is asked for.
fn floor(extent: usize, config: &AllocateConfig) -> usize {
    let lost = (extent as f64 * config.max_ratio + 1e-9).floor() as usize;
    config.min_channels.max(extent.saturating_sub(lost)).max(1).min(extent)
}

/// The counts that a group may keep, ascending, the last of them all its channels.
pub(super) fn allowed_counts(extent: usize, config: &AllocateConfig) -> Vec<usize> {
    let step = match config.rounding {
        Rounding::Auto if extent >= AUTO_FROM && extent.is_multiple_of(AUTO_TO) => AUTO_TO,
        Rounding::Multiple(n) if n > 1 && extent < n => extent,
        Rounding::Multiple(n) => n.max(1),
        Rounding::Auto => 1,
    };
    let first = floor(extent, config).div_ceil(step.max(1)) * step.max(1);
    (first..extent).step_by(step.max(1)).chain([extent]).collect()
}

/// The nearest multiple of `n`, at least `n`; halves go up.
fn nearest(count: usize, n: usize) -> usize {
    ((count + n / 2) / n * n).max(n)
}

#[cfg(test)]
mod tests {
    use super::super::TaskRatios;
    use super::*;

    fn config(ratio: f64, rounding: Rounding) -> AllocateConfig {
        let (heads, head_dims, tasks) = (None, None, TaskRatios::default());
        AllocateConfig {
            ratio,
            rounding,
            min_channels: 1,
            max_ratio: 1.0,
            protect: Vec::new(),
            heads,
            head_dims,
            tasks,
        }
    }

    #[test]
    fn exact_counts() {
        for (extent, ratio, kept) in
            [(10, 0.3, 7), (7, 0.5, 3), (64, 0.5, 32), (3, 0.9, 1), (100, 0.0, 100), (8, 0.75, 2)]
        {
            assert_eq!(kept_count(extent, ratio, &config(ratio, Rounding::Multiple(1))), kept, "{extent} at {ratio}");
        }
    }

    #[test]
    fn rounded_counts() {
        for (extent, ratio, rounding, kept) in [
            (64, 0.3, Rounding::Auto, 48),
            (60, 0.3, Rounding::Auto, 42),
            (65, 0.5, Rounding::Auto, 32),
            (96, 0.97, Rounding::Auto, 8),
            (20, 0.5, Rounding::Multiple(8), 8),
            (6, 0.5, Rounding::Multiple(8), 6),
        ] {
            assert_eq!(kept_count(extent, ratio, &config(ratio, rounding)), kept, "{extent} at {ratio}");
        }
    }

    #[test]
    fn what_a_ratio_leaves_is_allowed() {
        for rounding in [Rounding::Auto, Rounding::Multiple(1), Rounding::Multiple(8)] {
            for (extent, step) in (1..150).flat_map(|extent| (0..10).map(move |step| (extent, step))) {
                let ratio = f64::from(step) / 10.0;
                let config = AllocateConfig { min_channels: 3, ..config(ratio, rounding) };
                let counts = allowed_counts(extent, &config);
                let kept = kept_count(extent, ratio, &config);
                // A floor that lies between multiples is kept as it is by a ratio, and rounded up between groups.
                assert!(counts.contains(&kept) || kept == 3, "{kept} of {extent}: {counts:?}");
                assert!(counts.windows(2).all(|pair| pair[0] < pair[1]) && counts.last() == Some(&extent));
            }
        }
    }

    #[test]
    fn floors_hold_and_more_is_never_kept_at_a_higher_ratio() {
        for rounding in [Rounding::Auto, Rounding::Multiple(1), Rounding::Multiple(8)] {
            for extent in 1..200 {
                let mut last = extent;
                for step in 0..100 {
                    let mut config = config(f64::from(step) / 100.0, rounding);
                    config.min_channels = 4;
                    config.max_ratio = 0.8;
                    let kept = kept_count(extent, config.ratio, &config);
                    assert!(kept <= last, "{extent} at {step} %: {kept} after {last}");
                    assert!(kept >= extent.min(4) && kept * 10 + 9 >= extent * 2);
                    last = kept;
                }
            }
        }
    }
}
