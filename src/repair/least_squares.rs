//! Least squares: every contraction behind what was removed is refitted, one after the other, so that with what the
//! repaired part before it delivers it comes as close as it can to what the dense model has in its place.
//!
//! Invariants: each fit sees only final weights before it; weights are drawn towards the old ones by the ridge.

use std::collections::VecDeque;

use faer::Mat;
use rayon::prelude::*;

use super::RepairConfig;
use super::behind::Seen;
use super::constants::Constants;
use super::evidence::Evidence;
use super::frontier::{Frontier, Later};
use super::likelihood::Likelihood;
use super::plan::{Bias, Contraction, Left, Link, factors};
use super::rows::{Channels, Gather, Numbers, output_axis};
use super::targets::{Dense, Target, Targets, fits, targets};
use super::wiring::Wiring;
use crate::ops::linear::Linear;
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};

/// At least so many positions for every number that one output depends on.
const ROWS_PER_INPUT: usize = 8;

/// And at least so many altogether.
const LEAST_ROWS: usize = 16384;

/// So many positions are read by one thread.
const ROWS_AT_ONCE: usize = 64;

/// The model under repair.
pub(super) struct Work<'a> {
    pub(super) model: &'a mut ModelProto,
    pub(super) wiring: Wiring,
    pub(super) constants: Constants,
    pub(super) left: Vec<Left>,
    pub(super) refitted: usize,
}

/// Refits `contractions` in their order.
///
/// # Errors
/// A sample that cannot be read, a model that the engine does not run.
pub(super) fn refit(
    work: &mut Work<'_>,
    dense: &Dense<'_>,
    contractions: &[Contraction],
    config: &RepairConfig,
) -> Result<()> {
    let rows: Vec<usize> = contractions.iter().map(|c| rows_per_sample(c, dense)).collect();
    let mut frontier = Frontier::new(dense.engine, dense.batches, config.memory / 2);
    let mut known: VecDeque<Targets> = VecDeque::new();
    for (index, contraction) in contractions.iter().enumerate() {
        if known.is_empty() {
            // The targets of as many contractions as a part of the memory holds, from one run of the dense model.
            let part = index..index + fitting(contractions, &rows, index, dense);
            let (next, rows) = (contractions.get(part.clone()), rows.get(part));
            known = targets(dense, next.unwrap_or_default(), rows.unwrap_or_default())?.into();
        }
        let Some(targets) = known.pop_front() else { continue };
        let values = contractions.iter().skip(index + 1).flat_map(wanted).collect();
        let later = Later { values, stale: None };
        let why = match targets {
            Ok(targets) => one(work, &mut frontier, contraction, &targets, &later, config)?,
            Err(why) => Some(why),
        };
        work.done(contraction, why);
    }
    Ok(())
}

/// How many contractions from `start` on have targets that fit a quarter of the memory together; at least one.
fn fitting(contractions: &[Contraction], rows: &[usize], start: usize, dense: &Dense<'_>) -> usize {
    let bytes = |(c, rows): (&Contraction, &usize)| {
        c.linear.all_outputs().saturating_mul(rows.saturating_mul(dense.batches.samples())).saturating_mul(4)
    };
    let sizes = contractions.iter().zip(rows).skip(start).map(bytes);
    let sums = sizes.scan(0usize, |all, size| {
        *all = all.saturating_add(size);
        Some(*all)
    });
    sums.take_while(|all| *all <= dense.memory / 4).count().max(1)
}

/// How many positions of every sample are looked at: as many of each, however batches are cut.
pub(super) fn rows_per_sample(contraction: &Contraction, dense: &Dense<'_>) -> usize {
    let rows = contraction.linear.inputs.saturating_mul(ROWS_PER_INPUT).max(LEAST_ROWS);
    rows.div_ceil(dense.batches.samples().max(1))
}

/// The values of the pruned model that a fit needs: the data, and what is added to the output.
fn wanted(contraction: &Contraction) -> Vec<String> {
    let mut names = vec![contraction.data.clone()];
    for link in &contraction.chain {
        if let Link::Plus(other) = link
            && !names.contains(other)
        {
            names.push(other.clone());
        }
    }
    names
}

/// Refits one contraction; gives the reason if it is left alone.
fn one(
    work: &mut Work<'_>,
    frontier: &mut Frontier<'_>,
    contraction: &Contraction,
    targets: &[Target],
    later: &Later,
    config: &RepairConfig,
) -> Result<Option<String>> {
    let linear = &contraction.linear;
    let need = linear.inputs.saturating_mul(linear.inputs).saturating_mul(linear.groups).saturating_mul(5 * 8);
    if need > config.memory {
        return Ok(Some(format!("the fit of {} inputs needs more memory than is allowed", linear.inputs)));
    }
    let between = Between { links: links(work, contraction), seen: seen(work, contraction, targets, config) };
    let likelihood = |group: usize| match &between.seen {
        Some(Seen::Probabilities(all)) => {
            let own = all.shifts.iter().skip(group * linear.outputs).take(linear.outputs);
            Some(Likelihood { shares: all.shares, shifts: own.copied().collect() })
        }
        _ => None,
    };
    let mut evidence: Vec<Evidence> =
        (0..linear.groups).map(|group| Evidence::new(linear.inputs, linear.outputs, likelihood(group))).collect();
    let names = wanted(contraction);
    let mut why = None;
    frontier.run(work.model, &work.wiring, &names, later, &mut |batch, values| {
        if why.is_none()
            && let Some(target) = targets.get(batch.index)
            && let Err(error) = add(contraction, &between, (batch.index, target), &names, values, &mut evidence)
        {
            why = Some(error.to_string());
        }
        Ok(())
    })?;
    if why.is_some() {
        return Ok(why);
    }
    solve(work, contraction, &evidence, config)
}

/// What lies between output and aim, with its numbers, and what is seen of the aim, if not all.
struct Between {
    links: Vec<Step>,
    seen: Option<Seen>,
}

enum Step {
    Channels(Vec<(f64, f64)>),
    Plus(String),
}

/// What is seen of the aim, if not all, and if there is memory for all rows.
fn seen(work: &Work<'_>, contraction: &Contraction, targets: &[Target], config: &RepairConfig) -> Option<Seen> {
    let shape = targets.first()?.shape.as_slice();
    let rows: usize = targets.iter().map(|t| t.rows.len()).sum();
    let linear = &contraction.linear;
    let width = linear.groups.checked_mul(linear.inputs)?.checked_add(linear.all_outputs().checked_mul(2)?)?;
    let bytes = rows.checked_mul(width)?.checked_mul(4)?;
    let behind = contraction.behind.as_ref().filter(|_| bytes <= config.memory / 8)?;
    let axis = output_axis(linear, shape.len()).ok()?;
    behind.seen(work.model, &work.constants, contraction, (axis, shape))
}

fn links(work: &Work<'_>, contraction: &Contraction) -> Vec<Step> {
    let nodes = work.model.graph.as_ref().map_or(&[][..], |g| &g.node);
    let link = |link: &Link| match link {
        Link::Plus(other) => Some(Step::Plus(other.clone())),
        Link::Affine(node, affine) => {
            factors(work.model, &work.constants, nodes.get(*node)?, *affine, &contraction.linear).map(Step::Channels)
        }
    };
    contraction.chain.iter().filter_map(link).collect()
}

/// Adds one batch, by its number and what is aimed at, to the evidence.
fn add(
    contraction: &Contraction,
    between: &Between,
    (batch, target): (usize, &Target),
    names: &[String],
    values: &[crate::engine::Value],
    evidence: &mut [Evidence],
) -> Result<()> {
    let linear = &contraction.linear;
    let missing = || Error::engine("the engine did not return what was asked for");
    let data = Numbers::of(values.first().ok_or_else(missing)?)?;
    let gather = Gather::new(linear, &data.shape, &target.shape)?;
    if !fits(contraction, &gather, target) {
        return Err(Error::input(format!("its output does not have the shape {:?} of what it aims at", target.shape)));
    }
    let outputs = linear.all_outputs();
    let mut aims: Vec<f64> = target.numbers.iter().map(|x| f64::from(*x)).collect();
    let mut seen = between.seen.as_ref().map(|seen| match seen {
        Seen::Between(borders) => clamped(&aims, borders),
        Seen::Probabilities(_) => aims.clone(),
    });
    // Back from the aim to the output.
    for step in between.links.iter().rev() {
        let others = match step {
            Step::Channels(_) => None,
            Step::Plus(other) => {
                let value = names.iter().position(|n| n == other).and_then(|i| values.get(i)).ok_or_else(missing)?;
                Some(addends(linear, value, target)?)
            }
        };
        for numbers in std::iter::once(&mut aims).chain(&mut seen) {
            match (step, &others) {
                (Step::Channels(factors), _) => undo(numbers, factors),
                (Step::Plus(_), Some(others)) => numbers.iter_mut().zip(others).for_each(|(x, other)| *x -= other),
                _ => {}
            }
        }
    }
    let single = evidence.len() == 1;
    evidence.par_iter_mut().enumerate().for_each(|(group, evidence)| {
        // The groups run side by side, or else parts of the only one.
        let part = if single { ROWS_AT_ONCE } else { usize::MAX };
        let parts = target.rows.par_chunks(part.min(target.rows.len().max(1)));
        let inputs: Vec<Vec<f64>> = parts.map(|rows| gather.group(&data.data, group, rows)).collect();
        let inputs = inputs.concat();
        if single {
            evidence.add(batch, &inputs, &aims, seen.as_deref(), true);
        } else {
            let own = group * linear.outputs..(group + 1) * linear.outputs;
            let own = |all: &Vec<f64>| -> Vec<f64> {
                all.chunks_exact(outputs).filter_map(|row| row.get(own.clone())).flatten().copied().collect()
            };
            evidence.add(batch, &inputs, &own(&aims), seen.as_ref().map(own).as_deref(), false);
        }
    });
    Ok(())
}

/// Rows of numbers, moved to the borders of their channels where they lie beyond.
fn clamped(rows: &[f64], borders: &[(f64, f64)]) -> Vec<f64> {
    // Neither of the borders is NaN, but `clamp` would panic on a pair that crosses.
    let inside = |(x, (below, above)): (&f64, &(f64, f64))| x.max(*below).min(*above);
    rows.chunks(borders.len().max(1)).flat_map(|row| row.iter().zip(borders).map(inside)).collect()
}

/// Takes factors and shifts of channels back.
fn undo(rows: &mut [f64], factors: &[(f64, f64)]) {
    for row in rows.chunks_exact_mut(factors.len().max(1)) {
        for (x, (factor, shift)) in row.iter_mut().zip(factors) {
            // Nothing of a channel whose factor is zero is seen behind it.
            *x = if *factor == 0.0 { 0.0 } else { (*x - shift) / factor };
        }
    }
}

/// What is added to the output in the rows of a target.
fn addends(linear: &Linear, value: &crate::engine::Value, target: &Target) -> Result<Vec<f64>> {
    let value = Numbers::of(value)?;
    let view = Channels::along(&target.shape, output_axis(linear, target.shape.len())?)?;
    if value.shape == target.shape {
        return Ok(target.rows.iter().flat_map(|row| view.row(&value.data, *row)).collect());
    }
    let steps = steps(&value.shape, &target.shape)
        .ok_or_else(|| Error::input("what is added to its output has a shape that does not broadcast to it"))?;
    let inner = view.inner.max(1);
    let number = |row: usize, channel: usize| {
        let mut place = (row / inner * view.channels + channel) * inner + row % inner;
        let mut at = 0;
        for (extent, step) in target.shape.iter().zip(&steps).rev() {
            at += place % extent.max(&1) * step;
            place /= extent.max(&1);
        }
        value.data.get(at).copied().map_or(0.0, f64::from)
    };
    Ok(target
        .rows
        .iter()
        .flat_map(|row| (0..view.channels).map(move |channel| (*row, channel)))
        .map(|(row, channel)| number(row, channel))
        .collect())
}

/// How far apart neighbours along each axis of `to` lie in a value of the shape `from`; `None` if it does not broadcast.
fn steps(from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let missing = to.len().checked_sub(from.len())?;
    let mut steps = vec![0; to.len()];
    let mut step = 1usize;
    for ((own, whole), into) in from.iter().rev().zip(to.iter().rev()).zip(steps.iter_mut().skip(missing).rev()) {
        if *own != 1 {
            (own == whole).then_some(())?;
            *into = step;
        }
        step = step.checked_mul(*own)?;
    }
    Some(steps)
}

/// Solves and writes the new weights and bias.
fn solve(
    work: &mut Work<'_>,
    contraction: &Contraction,
    evidence: &[Evidence],
    config: &RepairConfig,
) -> Result<Option<String>> {
    let linear = &contraction.linear;
    let Some(mut weights) = work.constants.numbers(work.model, &contraction.weight) else {
        return Ok(Some("its weight cannot be read".to_owned()));
    };
    let with_bias = contraction.bias != Bias::Nowhere;
    let fit = |(group, evidence): (usize, &Evidence)| {
        let old = Mat::from_fn(linear.inputs, linear.outputs, |input, output| {
            weights.get(linear.offset(group, output, input)).copied().unwrap_or(0.0) * linear.scale
        });
        evidence.solve(&old, config.lambda, with_bias)
    };
    let fits: Option<Vec<_>> = evidence.par_iter().enumerate().map(fit).collect();
    let Some(fits) = fits else {
        return Ok(Some("its data or targets are not finite, or cannot be fitted".to_owned()));
    };
    let mut bias = Vec::with_capacity(linear.all_outputs());
    for (group, fit) in fits.into_iter().enumerate() {
        for output in 0..linear.outputs {
            for input in 0..linear.inputs {
                if let Some(weight) = weights.get_mut(linear.offset(group, output, input)) {
                    *weight = fit.weights[(input, output)] / linear.scale;
                }
            }
        }
        bias.extend(fit.bias);
    }
    super::bias::write(work, contraction, Some(&weights), &bias)
}
