//! Mean bias: what removed inputs contribute on average goes into the bias of their consumer.
//!
//! Both averages are those of the dense model: over its targets, and over what the kept inputs give with the kept
//! weights. Invariants: weights stay; a contraction without a place for a bias stays as it is.

use std::collections::BTreeSet;

use super::Result;
use super::frontier::{Frontier, Later};
use super::least_squares::{Work, rows_per_sample};
use super::plan::{Bias, Contraction, Left};
use super::rows::{Gather, Numbers};
use super::targets::{Dense, fits, select, target};
use crate::Error;
use crate::engine::Value;
use crate::ops::linear::Linear;

/// Sums of one contraction.
struct Sums {
    rows: usize,
    inputs: Vec<f64>,
    targets: Vec<f64>,
    why: Option<String>,
}

/// Compensates all `contractions`.
///
/// # Errors
/// A sample that cannot be read, a model that the engine does not run.
pub(super) fn compensate(work: &mut Work<'_>, dense: &Dense<'_>, contractions: &[Contraction]) -> Result<()> {
    let concerned: Vec<Contraction> = contractions
        .iter()
        .filter(|c| dense.kept.activations.contains_key(&c.data) && c.bias != Bias::Nowhere)
        .map(|c| {
            let aim = if c.aim == c.data { c.data.clone() } else { c.output.clone() };
            Contraction { aim, chain: Vec::new(), ..c.clone() }
        })
        .collect();
    let names: BTreeSet<String> = concerned.iter().flat_map(|c| [c.aim.clone(), c.data.clone()]).collect();
    let names: Vec<String> = names.into_iter().collect();
    let empty = |linear: &Linear| Sums {
        rows: 0,
        inputs: vec![0.0; linear.groups * linear.inputs],
        targets: vec![0.0; linear.all_outputs()],
        why: None,
    };
    let mut sums: Vec<Sums> = concerned.iter().map(|c| empty(&c.linear)).collect();
    let value_of = |values: &[Value], name: &str| {
        let found = names.iter().position(|n| n == name).and_then(|i| values.get(i)).cloned();
        found.ok_or_else(|| Error::engine("the engine did not return what was asked for"))
    };
    let mut frontier = Frontier::once(dense.engine, dense.batches, dense.memory / 2);
    frontier.run(dense.model, dense.wiring, &names, &Later::default(), &mut |batch, values| {
        for (contraction, sums) in concerned.iter().zip(&mut sums) {
            let mut add = || -> Result<()> {
                let aim = value_of(values, &contraction.aim)?;
                let target = target(dense, contraction, &aim, batch, rows_per_sample(contraction, dense))?;
                let data = value_of(values, &contraction.data)?;
                let data = match dense.kept.activations.get(&contraction.data) {
                    Some(axes) => select(&data, axes)?,
                    None => data,
                };
                let data = Numbers::of(&data)?;
                let gather = Gather::new(&contraction.linear, &data.shape, &target.shape)?;
                if !fits(contraction, &gather, &target) {
                    return Err(Error::input("its output does not have the shape that it should have"));
                }
                let width = contraction.linear.inputs;
                for (group, sums) in sums.inputs.chunks_mut(width.max(1)).enumerate() {
                    for row in gather.group(&data.data, group, &target.rows).chunks_exact(width.max(1)) {
                        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                    }
                }
                let width = contraction.linear.all_outputs();
                for row in target.numbers.chunks_exact(width.max(1)) {
                    sums.targets.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
                }
                sums.rows += target.rows.len();
                Ok(())
            };
            if sums.why.is_none()
                && let Err(error) = add()
            {
                sums.why = Some(error.to_string());
            }
        }
        Ok(())
    })?;
    for (contraction, sums) in concerned.iter().zip(sums) {
        let why = match sums.why {
            None => write(work, contraction, &sums)?,
            why => why,
        };
        work.done(contraction, why);
    }
    Ok(())
}

fn write(work: &mut Work<'_>, contraction: &Contraction, sums: &Sums) -> Result<Option<String>> {
    let linear = &contraction.linear;
    let Some(weights) = work.constants.numbers(work.model, &contraction.weight).filter(|_| sums.rows > 0) else {
        return Ok(Some("its weight cannot be read, or there is no position to look at".to_owned()));
    };
    let rows = sums.rows as f64;
    let bias: Vec<f64> = (0..linear.all_outputs())
        .map(|all| {
            let (group, output) = (all / linear.outputs, all % linear.outputs);
            let predicted: f64 = (0..linear.inputs)
                .map(|input| {
                    let weight = weights.get(linear.offset(group, output, input)).copied().unwrap_or(0.0);
                    weight * linear.scale * sums.inputs.get(group * linear.inputs + input).copied().unwrap_or(0.0)
                })
                .sum();
            (sums.targets.get(all).copied().unwrap_or(0.0) - predicted) / rows
        })
        .collect();
    if bias.iter().any(|b| !b.is_finite()) {
        return Ok(Some("its data is not finite".to_owned()));
    }
    super::bias::write(work, contraction, None, &bias)
}

impl Work<'_> {
    /// Counts a contraction as done, or as left for a reason.
    pub(super) fn done(&mut self, contraction: &Contraction, why: Option<String>) {
        match why {
            Some(why) => self.left.push(Left { node: contraction.label.clone(), why }),
            None => self.refitted += 1,
        }
    }
}
