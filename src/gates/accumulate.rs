//! Accumulating: what a run returned, by group and channel, and what a batch adds up to.

use super::backward::Gradient;
use super::gather::{Gathering, OfBatch};
use super::prepare::{Results, Unit};
use super::sums::{add, add_products, cosine};
use crate::Result;

impl Gathering<'_> {
    /// Adds what one run returned.
    pub(super) fn unit(&mut self, unit: &Unit, results: &Results, sums: &mut OfBatch) -> Result<()> {
        let Some(prepared) = &self.prepared else { return Ok(()) };
        let counted: Vec<usize> =
            (0..unit.samples.len()).filter(|place| unit.counts.get(*place).copied().unwrap_or(false)).collect();
        sums.samples += counted.len() as f64;
        let tasks = prepared.tasks.len();
        // By tap and task: [places, extent].
        let mut gates: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); tasks]; prepared.forward.gates.len()];
        let mut magnitudes = gates.clone();
        for (task, own) in prepared.tasks.iter().enumerate() {
            let Some(own) = own else { continue };
            let losses = results.numbers(&own.loss)?;
            if let Some(found) = self.found.tasks.get_mut(task) {
                found.mean += counted.iter().filter_map(|place| losses.get(*place)).sum::<f64>();
            }
            for (tap, gate) in prepared.forward.gates.iter().enumerate() {
                let (Some(gate), Some(Gradient::In(name))) = (gate, own.gates.get(tap)) else { continue };
                let length = gate.per_sample.unwrap_or(1).saturating_mul(gate.extent);
                let by_place = |numbers: &[f64]| folded(numbers, length, gate.extent);
                if let Some(slot) = gates.get_mut(tap).and_then(|own| own.get_mut(task)) {
                    *slot = by_place(&results.numbers(name)?);
                }
                for name in own.activations.get(tap).into_iter().flatten() {
                    let numbers = by_place(&results.numbers(name)?);
                    if let Some(slot) = magnitudes.get_mut(tap).and_then(|own| own.get_mut(task)) {
                        slot.resize(numbers.len(), 0.0);
                        add(slot, &numbers, 1.0 / gate.positions.max(1) as f64);
                    }
                }
            }
        }
        for (index, group) in self.found.groups.iter_mut().enumerate() {
            let (Some(places), Some(extent)) = (self.places.get(index), self.extents.get(index)) else { continue };
            if places.is_empty() {
                continue;
            }
            // Sums over the positions of a channel, or means where the number is one of positions.
            let by_channel = |of: &[Vec<Vec<f64>>], is_mean: bool, task: usize, place: usize| {
                let mut numbers = vec![0.0; *extent];
                for (tap, pairs) in places {
                    let share = if is_mean { *extent as f64 / pairs.len().max(1) as f64 } else { 1.0 };
                    let own = of.get(*tap).and_then(|own| own.get(task)).map(Vec::as_slice).unwrap_or_default();
                    let length = prepared.forward.gates.get(*tap).and_then(Option::as_ref).map_or(0, |g| g.extent);
                    for (position, channel) in pairs {
                        if let (Some(slot), Some(number)) =
                            (numbers.get_mut(*channel), own.get(place * length + position))
                        {
                            *slot += share * number;
                        }
                    }
                }
                numbers
            };
            for place in &counted {
                let numbers: Vec<Vec<f64>> = (0..tasks).map(|task| by_channel(&gates, false, task, *place)).collect();
                add_products(&mut group.by_sample, &numbers);
                for (task, numbers) in numbers.iter().enumerate() {
                    if let Some(slot) = group.magnitudes.get_mut(task) {
                        slot.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number.abs());
                    }
                    if let Some(slot) = sums.gates.get_mut(index).and_then(|own| own.get_mut(task)) {
                        add(slot, numbers, 1.0);
                    }
                    if let Some(slot) = group.activations.get_mut(task) {
                        add(slot, &by_channel(&magnitudes, true, task, *place), 1.0);
                    }
                }
            }
        }
        for (task, own) in prepared.tasks.iter().enumerate() {
            for (weight, gradient) in own.iter().flat_map(|own| own.weights.iter().enumerate()) {
                let Gradient::In(name) = gradient else { continue };
                let numbers = results.numbers(name)?;
                if let Some(slot) = sums.weights.get_mut(weight).and_then(|own| own.get_mut(task)) {
                    add(slot, &numbers, 1.0);
                }
                if self.wish.weights_by_sample {
                    let values = self.weights.get(weight).map(|w| w.values.as_slice()).unwrap_or_default();
                    for (group, rows) in self.found.groups.iter_mut().zip(&self.rows) {
                        let Some(into) = group.weights.as_mut().and_then(|own| own.by_sample.get_mut(task)) else {
                            continue;
                        };
                        for rows in rows.iter().filter(|rows| rows.weight == weight) {
                            rows.add(numbers.len(), into, |at| product(values, &numbers, at).powi(2));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a batch to what was found.
    pub(super) fn finish(&mut self, sums: &OfBatch) {
        let share = 1.0 / sums.samples.max(1.0);
        self.found.samples += sums.samples;
        self.found.batches += 1.0;
        let tasks = self.found.tasks.len();
        for (index, group) in self.found.groups.iter_mut().enumerate() {
            let means = |own: &Vec<Vec<f64>>| -> Vec<Vec<f64>> {
                own.iter().map(|sums| sums.iter().map(|sum| share * sum).collect()).collect()
            };
            if let Some(own) = sums.gates.get(index) {
                add_products(&mut group.by_batch, &means(own));
            }
            let rows = self.rows.get(index).map(Vec::as_slice).unwrap_or_default();
            let Some(weights) = &mut group.weights else { continue };
            let channels = self.extents.get(index).copied().unwrap_or(0);
            let mut products = vec![vec![0.0; channels]; tasks * tasks];
            for rows in rows {
                let Some(gradients) = sums.weights.get(rows.weight) else { continue };
                let values = self.weights.get(rows.weight).map(|w| w.values.as_slice()).unwrap_or_default();
                for (task, own) in gradients.iter().enumerate() {
                    if let Some(into) = weights.squares.get_mut(task) {
                        rows.add(own.len(), into, |at| (share * product(values, own, at)).powi(2));
                    }
                    if let Some(into) = weights.magnitudes.get_mut(task) {
                        rows.add(own.len(), into, |at| (share * product(values, own, at)).abs());
                    }
                    for (other, others) in gradients.iter().enumerate() {
                        if let Some(into) = products.get_mut(task * tasks + other) {
                            rows.add(own.len(), into, |at| product_of(own, others, at));
                        }
                    }
                }
            }
            for (pair, sums) in weights.cosines.iter_mut().enumerate() {
                let (task, other) = (pair / tasks.max(1), pair % tasks.max(1));
                let at = |a: usize, b: usize, channel: usize| {
                    products.get(a * tasks + b).and_then(|own| own.get(channel)).copied().unwrap_or(0.0)
                };
                for (channel, sum) in sums.iter_mut().enumerate() {
                    *sum += cosine(at(task, other, channel), at(task, task, channel), at(other, other, channel));
                }
            }
        }
    }
}

fn product(values: &[f32], gradient: &[f64], at: usize) -> f64 {
    values.get(at).zip(gradient.get(at)).map_or(0.0, |(value, gradient)| f64::from(*value) * gradient)
}

fn product_of(left: &[f64], right: &[f64], at: usize) -> f64 {
    left.get(at).zip(right.get(at)).map_or(0.0, |(left, right)| left * right)
}

/// Rows of `extent` numbers summed up so that one of every `length` numbers is left.
fn folded(numbers: &[f64], length: usize, extent: usize) -> Vec<f64> {
    let mut folded = Vec::with_capacity(numbers.len());
    for place in numbers.chunks(length.max(1)) {
        let mut sum = vec![0.0; extent];
        place.chunks(extent.max(1)).for_each(|row| add(&mut sum, row, 1.0));
        folded.extend(sum);
    }
    folded
}
