//! Gathering: batches through the backward model, results into [`Gradients`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backward::{Gradient, OfTask};
use super::forward::{Wanted, task_outputs};
use super::prepare::{Prepared, Unit, is_open};
use super::rows::{Rows, Weight, check_memory, rows};
use super::sums::{Gradients, GroupGradients, TaskGradients, WeightGradients};
use crate::calibration::{Batch, Batches, Taps};
use crate::coupling::{Coupling, Role};
use crate::engine::{Engine, Value};
use crate::graph::{Graph, MAIN};
use crate::groups::Group;
use crate::losses::LossRequest;
use crate::tasks::Tasks;
use crate::{Error, Result};

/// What is to be gathered beside the gradients of gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GradientWish {
    /// |a dL/da| value by value.
    pub activations: bool,
    /// Gradients of the weights that make channels.
    pub weights: bool,
    /// Those sample by sample, which takes a run for every sample.
    pub weights_by_sample: bool,
}

/// How losses are made, and what may be used.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientOptions {
    /// The losses that were asked for.
    pub losses: Vec<LossRequest>,
    /// Labels by task or output; the first axis counts the samples of the source.
    pub labels: BTreeMap<String, Arc<Value>>,
    /// How often every sample is run with other random numbers, where a loss draws some.
    pub draws: usize,
    /// The seed of what is random.
    pub seed: u64,
    /// How many bytes the gradients of weights may take.
    pub memory: usize,
}

impl Default for GradientOptions {
    fn default() -> Self {
        Self { losses: Vec::new(), labels: BTreeMap::new(), draws: 4, seed: 0, memory: 4_000_000_000 }
    }
}

/// Runs all batches through the model of `graph` and back.
///
/// # Errors
/// A sample that cannot be read, losses that do not fit, a model that cannot be differentiated or does not run,
/// gradients that are not finite, gradients of weights that need more memory than allowed.
pub fn gather(
    (graph, coupling, groups, tasks): (&Graph, &Coupling, &[Group], &Tasks),
    wish: GradientWish,
    options: &GradientOptions,
    engine: &dyn Engine,
    batches: &dyn Batches,
) -> Result<Gradients> {
    let taps = Taps::of(graph, coupling, groups);
    let (weights, rows) = if wish.weights { rows(graph, coupling, groups)? } else { Default::default() };
    check_memory(&weights, tasks.tasks.len(), options.memory)?;
    let positions = |at: &crate::calibration::GroupTap| at.segments.iter().flat_map(|s| s.positions()).collect();
    let places = taps.groups.iter().map(|own| own.iter().map(|at| (at.tap, positions(at))).collect()).collect();
    let count = tasks.tasks.len();
    // Gradients do not enter bodies, so that what these contract cannot be told from what does not matter.
    let enters = |group: &Group| {
        let mut contracting = group.members.iter().filter(|member| member.role == Role::Contracted);
        contracting.any(|member| graph.node(member.node).scope != MAIN)
    };
    let new = |group: &Group| GroupGradients {
        is_gated: vec![!enters(group); count],
        ..GroupGradients::new(count, group.extent, wish.activations)
    };
    let mut gathering = Gathering {
        wanted: Wanted {
            graph,
            tasks,
            taps: &taps,
            requests: &options.losses,
            labels: &options.labels,
            seed: options.seed,
        },
        wish,
        options,
        engine,
        extents: groups.iter().map(|group| group.extent).collect(),
        places,
        weights,
        rows,
        prepared: None,
        is_open: is_open(graph.model)?,
        one_by_one: wish.weights_by_sample,
        is_checked: false,
        found: Gradients { groups: groups.iter().map(new).collect(), ..Default::default() },
    };
    let names = task_outputs(graph, tasks).into_iter();
    gathering.found.tasks = names.map(|task| TaskGradients { name: task.task, ..Default::default() }).collect();
    for number in 0..batches.len() {
        gathering.batch(&batches.batch(number)?)?;
    }
    let mut found = gathering.found;
    found.tasks.iter_mut().for_each(|task| task.mean /= found.samples.max(1.0));
    Ok(found)
}

/// A tap, and its (position, channel) pairs.
type Place = (usize, Vec<(usize, usize)>);

pub(super) struct Gathering<'a> {
    pub(super) wanted: Wanted<'a>,
    pub(super) wish: GradientWish,
    pub(super) options: &'a GradientOptions,
    pub(super) engine: &'a dyn Engine,
    /// By group.
    pub(super) extents: Vec<usize>,
    /// By group.
    pub(super) places: Vec<Vec<Place>>,
    pub(super) weights: Vec<Weight>,
    /// By group.
    pub(super) rows: Vec<Vec<Rows>>,
    pub(super) prepared: Option<Prepared>,
    pub(super) is_open: bool,
    /// True if every sample runs for itself.
    pub(super) one_by_one: bool,
    /// True once the order of samples was looked at.
    pub(super) is_checked: bool,
    pub(super) found: Gradients,
}

/// What one batch adds up to; all by task.
pub(super) struct OfBatch {
    pub(super) samples: f64,
    /// By group: sums of gate gradients over samples.
    pub(super) gates: Vec<Vec<Vec<f64>>>,
    /// By weight: sums of gradients over samples.
    pub(super) weights: Vec<Vec<Vec<f64>>>,
}

impl Gathering<'_> {
    fn batch(&mut self, batch: &Batch) -> Result<()> {
        let places = batch.samples.len().saturating_add(batch.filler);
        let last = batch.samples.last().copied().unwrap_or(0);
        let samples = batch.samples.iter().copied().chain(std::iter::repeat_n(last, batch.filler)).collect();
        let counts = (0..places).map(|place| place < batch.samples.len()).collect();
        let whole = Unit { feeds: batch.feeds.clone(), samples, counts };
        let mut draw = 0;
        loop {
            let units = self.units(&whole)?;
            let first = units.first().ok_or_else(|| Error::input("a batch without samples"))?;
            self.prepare(first)?;
            if !self.is_checked && !self.is_in_order(first)? {
                // Once more from the start, with every sample for itself.
                (self.one_by_one, self.prepared) = (true, None);
                continue;
            }
            self.is_checked = true;
            self.draw(&units, draw)?;
            draw += 1;
            let prepared = self.prepared.as_ref();
            let is_random = prepared.is_some_and(|own| own.forward.chosen.iter().any(|chosen| chosen.row.is_random));
            if draw >= self.options.draws || !is_random {
                return Ok(());
            }
        }
    }

    /// The runs of a batch.
    fn units(&self, whole: &Unit) -> Result<Vec<Unit>> {
        let places = whole.samples.len();
        if !self.one_by_one || places == 1 {
            return Ok(vec![whole.clone()]);
        }
        let counted = (0..places).filter(|place| whole.counts.get(*place).copied().unwrap_or(false));
        if self.is_open {
            return counted.map(|place| whole.select(&[place])).collect();
        }
        // The batch cannot be divided, but the losses of the other samples can be left out.
        let only = |place: usize| Unit { counts: (0..places).map(|other| other == place).collect(), ..whole.clone() };
        Ok(counted.map(only).collect())
    }

    fn prepare(&mut self, unit: &Unit) -> Result<()> {
        let key = unit.key();
        // What was prepared for samples that run alone does not tell them apart in a batch.
        let alone = unit.samples.len() == 1;
        if self.prepared.as_ref().is_some_and(|own| own.key == key && (alone || !own.alone)) {
            return Ok(());
        }
        let names: Vec<String> = self.weights.iter().map(|weight| weight.name.clone()).collect();
        let prepared = Prepared::new(&self.wanted, &names, self.wish.activations, self.engine, unit, alone)?;
        for (number, own) in prepared.tasks.iter().enumerate() {
            let Some(task) = self.found.tasks.get_mut(number) else { continue };
            let losses = prepared.forward.chosen.iter().filter(|chosen| chosen.target.task == task.name);
            task.losses = losses.map(|c| (c.target.output.clone(), c.row.name, c.weight)).collect();
            for stop in own.iter().flat_map(|own| &own.stops) {
                if !task.stops.contains(stop) {
                    task.stops.push(stop.clone());
                }
            }
            for (index, group) in self.found.groups.iter_mut().enumerate() {
                let is_known = |gradient: Option<&Gradient>| gradient.is_some_and(|g| *g != Gradient::Unknown);
                let places = self.places.get(index).map(Vec::as_slice).unwrap_or_default();
                let gates = |own: &OfTask| places.iter().all(|(tap, _)| is_known(own.gates.get(*tap)));
                let is_gated = !places.is_empty() && own.as_ref().is_some_and(gates);
                if let Some(slot) = group.is_gated.get_mut(number) {
                    *slot &= is_gated;
                }
                let rows = self.rows.get(index).map(Vec::as_slice).unwrap_or_default();
                if rows.is_empty() {
                    continue;
                }
                let count = prepared.tasks.len();
                let zeros = |count: usize| vec![vec![0.0; self.extents.get(index).copied().unwrap_or(0)]; count];
                let weights = group.weights.get_or_insert_with(|| WeightGradients {
                    is_known: vec![true; count],
                    cosines: zeros(count * count),
                    squares: zeros(count),
                    magnitudes: zeros(count),
                    by_sample: zeros(if self.wish.weights_by_sample { count } else { 0 }),
                });
                let has_rows = |own: &OfTask| rows.iter().all(|rows| is_known(own.weights.get(rows.weight)));
                if let Some(slot) = weights.is_known.get_mut(number) {
                    *slot &= own.as_ref().is_some_and(has_rows);
                }
            }
        }
        self.prepared = Some(prepared);
        Ok(())
    }

    /// Looks whether samples that change their places in a batch do so in losses and gradients.
    ///
    /// # Errors
    /// When they do not and the model takes no other batch.
    fn is_in_order(&mut self, unit: &Unit) -> Result<bool> {
        let places = unit.samples.len();
        let (Some(prepared), true) = (&mut self.prepared, places > 1) else { return Ok(true) };
        let order: Vec<usize> = (1..places).chain([0]).collect();
        let mut is_in_order = prepared.forward.gates.iter().flatten().all(|gate| gate.per_sample.is_some());
        if is_in_order {
            let seed = self.options.seed;
            let before = match prepared.run(self.engine, unit, seed, 0) {
                Ok(before) => before,
                // Gates that count samples along another axis do not fit; what else fails does so one by one as well.
                Err(_) if self.is_open => return Ok(self.told_apart()),
                Err(error) => return Err(error),
            };
            let after = prepared.run(self.engine, &unit.select(&order)?, seed, 0)?;
            for own in prepared.tasks.iter().flatten() {
                let gates = own.gates.iter().filter_map(|gradient| match gradient {
                    Gradient::In(name) => Some(name),
                    _ => None,
                });
                for name in std::iter::once(&own.loss).chain(gates) {
                    is_in_order &= is_reordered(&before.numbers(name)?, &after.numbers(name)?, &order);
                }
            }
        }
        if is_in_order {
            return Ok(true);
        }
        if !self.is_open {
            return Err(Error::input("the samples of a batch cannot be told apart in what the model computes")
                .help("choose a criterion without gradients, or export the model with an open batch"));
        }
        Ok(self.told_apart())
    }

    /// Notes that samples run one by one; they were not in order.
    fn told_apart(&mut self) -> bool {
        self.found.notes.push("samples run one by one: in a batch they cannot be told apart everywhere".to_owned());
        false
    }

    /// Runs a batch once, unit by unit.
    fn draw(&mut self, units: &[Unit], draw: usize) -> Result<()> {
        let tasks = self.found.tasks.len();
        let zeros = |lengths: Vec<usize>| -> Vec<Vec<Vec<f64>>> {
            lengths.iter().map(|length| vec![vec![0.0; *length]; tasks]).collect()
        };
        let lengths = self.weights.iter().map(|weight| weight.values.len()).collect();
        let mut sums = OfBatch { samples: 0.0, gates: zeros(self.extents.clone()), weights: zeros(lengths) };
        for unit in units {
            self.prepare(unit)?;
            let Some(prepared) = &mut self.prepared else { continue };
            let results = prepared.run(self.engine, unit, self.options.seed, draw)?;
            self.unit(unit, &results, &mut sums)?;
        }
        self.finish(&sums);
        Ok(())
    }
}

/// True if `after` holds the blocks of `before` in another order, but for rounding.
fn is_reordered(before: &[f64], after: &[f64], order: &[usize]) -> bool {
    let block = before.len() / order.len().max(1);
    let expected: Vec<f64> = order
        .iter()
        .flat_map(|place| before.get(place * block..(place + 1) * block).unwrap_or_default().iter().copied())
        .collect();
    let square = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
    let difference = square(&mut expected.iter().zip(after).map(|(a, b)| a - b));
    expected.len() == after.len() && difference.sqrt() <= 1e-2 * square(&mut expected.iter().copied()).sqrt() + 1e-12
}
