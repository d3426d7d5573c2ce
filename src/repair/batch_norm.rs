//! Batch norm: the statistics of normalisations, re-estimated on the pruned model layer by layer.
//!
//! Where a normalisation was folded into the convolution before it, weights and bias do what it would have done: every
//! output channel gets the mean and the standard deviation that it has in the dense model. Invariants: the statistics of
//! a layer are taken after those before it are final.

use std::collections::BTreeSet;

use super::bias::BEYOND;
use super::constants::holds;
use super::frontier::{Frontier, Later};
use super::least_squares::{Work, rows_per_sample};
use super::plan::{Bias, Contraction, Left, Plan, label};
use super::rows::{Channels, Numbers, Positions, output_axis};
use super::targets::{Dense, Target, targets};
use super::{RepairConfig, bias};
use crate::Result;
use crate::ops::affine::Affine;
use crate::ops::linear::Geometry;

enum Step<'p> {
    /// A normalisation: node, the value it reads, slots and constants of mean and variance.
    Norm(usize, String, [(usize, String); 2]),
    /// A convolution into which one was folded, and what it gives in the dense model.
    Folded(&'p Contraction, Vec<Target>),
}

impl Step<'_> {
    fn node(&self) -> usize {
        match self {
            Step::Norm(node, ..) => *node,
            Step::Folded(contraction, _) => contraction.node,
        }
    }

    fn reads(&self) -> &String {
        match self {
            Step::Norm(_, value, _) => value,
            Step::Folded(contraction, _) => &contraction.output,
        }
    }
}

/// Re-estimates all statistics behind what was removed.
///
/// # Errors
/// A sample that cannot be read, a model that the engine does not run.
pub(super) fn estimate(work: &mut Work<'_>, dense: &Dense<'_>, plan: &Plan, config: &RepairConfig) -> Result<()> {
    let nodes = work.model.graph.as_ref().map_or(&[][..], |g| &g.node);
    let mut steps = Vec::new();
    let mut normalised = BTreeSet::new();
    for position in &plan.normalisations {
        let Some(node) = nodes.get(*position) else { continue };
        let Some(Affine::Normalised([_, _, mean, variance], _)) = Affine::of(node, 0) else { continue };
        let constant = |slot: usize| {
            let name = node.input.get(slot)?;
            work.constants.numbers(work.model, name).map(|_| (slot, name.clone()))
        };
        let (Some(data), Some(mean), Some(variance)) = (node.input.first(), constant(mean), constant(variance)) else {
            work.left.push(Left { node: label(node), why: "its statistics are computed".to_owned() });
            continue;
        };
        normalised.insert(data.clone());
        steps.push(Step::Norm(*position, data.clone(), [mean, variance]));
    }
    let folded: Vec<Contraction> = plan
        .contractions
        .iter()
        .filter(|c| matches!(c.linear.geometry, Geometry::Window(_)) && c.bias != Bias::Nowhere)
        // Nothing normalises what a model returns.
        .filter(|c| !normalised.contains(&c.output) && !work.wiring.outputs.contains(&c.output))
        .map(|c| Contraction { aim: c.output.clone(), chain: Vec::new(), ..c.clone() })
        .collect();
    let rows: Vec<usize> = folded.iter().map(|c| rows_per_sample(c, dense)).collect();
    for (contraction, found) in folded.iter().zip(targets(dense, &folded, &rows)?) {
        match found {
            Ok(found) => steps.push(Step::Folded(contraction, found)),
            Err(why) => work.done(contraction, Some(why)),
        }
    }
    let place: Vec<usize> = rank(&work.wiring.order);
    steps.sort_by_key(|step| place.get(step.node()).copied().unwrap_or(usize::MAX));
    let mut frontier = Frontier::new(dense.engine, dense.batches, config.memory / 2);
    for (index, step) in steps.iter().enumerate() {
        let values = steps.iter().skip(index + 1).map(|step| step.reads().clone()).collect();
        let stale = matches!(step, Step::Folded(..)).then(|| step.reads().clone());
        let later = Later { values, stale };
        one(work, &mut frontier, step, &later)?;
    }
    Ok(())
}

/// The place of every node in an order.
fn rank(order: &[usize]) -> Vec<usize> {
    let mut place = vec![usize::MAX; order.len()];
    for (i, node) in order.iter().enumerate() {
        if let Some(place) = place.get_mut(*node) {
            *place = i;
        }
    }
    place
}

/// Sums and sums of squares of every channel.
#[derive(Default)]
struct Sums {
    count: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    fn add(&mut self, row: impl Iterator<Item = f64>) {
        self.count += 1.0;
        for (channel, x) in row.enumerate() {
            if self.sum.len() <= channel {
                self.sum.push(0.0);
                self.squares.push(0.0);
            }
            if let (Some(sum), Some(squares)) = (self.sum.get_mut(channel), self.squares.get_mut(channel)) {
                *sum += x;
                *squares += x * x;
            }
        }
    }

    /// Mean and variance of every channel; `None` where they are not finite.
    fn moments(&self) -> Option<Vec<(f64, f64)>> {
        let moment = |(sum, squares): (&f64, &f64)| {
            let mean = sum / self.count;
            (mean, (squares / self.count - mean * mean).max(0.0))
        };
        let moments: Vec<(f64, f64)> = self.sum.iter().zip(&self.squares).map(moment).collect();
        (self.count > 0.0 && moments.iter().all(|(mean, variance)| mean.is_finite() && variance.is_finite()))
            .then_some(moments)
    }
}

fn one(work: &mut Work<'_>, frontier: &mut Frontier<'_>, step: &Step<'_>, later: &Later) -> Result<()> {
    let mut found = Sums::default();
    let mut why = None;
    frontier.run(work.model, &work.wiring, &[step.reads().clone()], later, &mut |batch, values| {
        let mut add = || -> Result<()> {
            for value in values {
                let value = Numbers::of(value)?;
                match step {
                    Step::Norm(..) => {
                        let view = Channels::along(&value.shape, 1)?;
                        let rows = Positions::of(&value.shape, 1, batch, None)?.choose(usize::MAX, batch, 0);
                        rows.iter().for_each(|row| found.add(view.row(&value.data, *row)));
                    }
                    Step::Folded(contraction, targets) => {
                        let axis = output_axis(&contraction.linear, value.shape.len())?;
                        let view = Channels::along(&value.shape, axis)?;
                        let rows = targets.get(batch.index).map_or(&[][..], |target| &target.rows);
                        rows.iter().for_each(|row| found.add(view.row(&value.data, *row)));
                    }
                }
            }
            Ok(())
        };
        if why.is_none()
            && let Err(error) = add()
        {
            why = Some(error.to_string());
        }
        Ok(())
    })?;
    match step {
        Step::Norm(node, _, constants) => {
            let why = why.or_else(|| found.moments().is_none().then(|| "its data is not finite".to_owned()));
            let moments = found.moments().unwrap_or_default();
            let parts = [moments.iter().map(|m| m.0).collect::<Vec<_>>(), moments.iter().map(|m| m.1).collect()];
            let fits = |((_, name), numbers): (&(usize, String), &Vec<f64>)| {
                work.constants.header(work.model, name).is_some_and(|(kind, _)| holds(kind, numbers))
            };
            let beyond = || (!constants.iter().zip(&parts).all(fits)).then(|| BEYOND.to_owned());
            if let Some(why) = why.or_else(beyond) {
                let nodes = work.model.graph.as_ref().map_or(&[][..], |g| &g.node);
                let node = nodes.get(*node).map(label).unwrap_or_default();
                work.left.push(Left { node, why });
                return Ok(());
            }
            for ((slot, name), numbers) in constants.iter().zip(&parts) {
                bias::replace(work, *node, *slot, name, numbers)?;
            }
            work.refitted += 1;
        }
        Step::Folded(contraction, targets) => {
            let why = match why {
                None => fold(work, contraction, targets, &found)?,
                why => why,
            };
            work.done(contraction, why);
        }
    }
    Ok(())
}

/// Gives the output channels of a convolution the means and deviations of the dense model.
fn fold(work: &mut Work<'_>, contraction: &Contraction, targets: &[Target], found: &Sums) -> Result<Option<String>> {
    let linear = &contraction.linear;
    let mut aim = Sums::default();
    for row in targets.iter().flat_map(|target| target.numbers.chunks_exact(linear.all_outputs().max(1))) {
        aim.add(row.iter().map(|x| f64::from(*x)));
    }
    let (Some(aim), Some(found)) = (aim.moments(), found.moments()) else {
        return Ok(Some("its data is not finite".to_owned()));
    };
    let old = match &contraction.bias {
        Bias::Own(name) => work.constants.numbers(work.model, name),
        _ => Some(vec![0.0; linear.all_outputs()]),
    };
    let (Some(old), Some(mut weights)) = (old, work.constants.numbers(work.model, &contraction.weight)) else {
        return Ok(Some("its weight or bias cannot be read".to_owned()));
    };
    let mut bias = Vec::with_capacity(linear.all_outputs());
    for (channel, ((aim_mean, aim_variance), (mean, variance))) in aim.into_iter().zip(found).enumerate() {
        // A channel that does not vary, here or there, only gets the mean.
        let steady = variance <= 1e-12 * (mean * mean + aim_variance) || aim_variance == 0.0;
        let factor = if steady { 1.0 } else { (aim_variance / variance).sqrt() };
        let (group, output) = (channel / linear.outputs, channel % linear.outputs);
        for input in 0..linear.inputs {
            if let Some(weight) = weights.get_mut(linear.offset(group, output, input)) {
                *weight *= factor;
            }
        }
        bias.push((old.get(channel).copied().unwrap_or(0.0) - mean) * factor + aim_mean);
    }
    bias::write(work, contraction, Some(&weights), &bias)
}
