//! Reductions: the original model and nodes that reduce its tapped values, so that only numbers per channel leave the
//! engine.
//!
//! Invariants: nodes are added behind those of the model, and nothing that they depend on changes; every tap is reduced
//! over all axes but its own; values are measured in single precision, quantised ones relative to the stored number that
//! is zero.

use std::collections::{BTreeMap, BTreeSet};

use super::emit::{Emitter, Reduction, collect_names};
use super::signs::never_negative;
use super::{Measure, Segment, Taps, Wish};
use crate::kept::Zero;
use crate::proto::onnx::{GraphProto, ModelProto};

/// A model that measures itself.
pub(super) struct Reductions {
    /// The model with its additional nodes.
    pub(super) model: ModelProto,
    /// The names of the values to fetch, each once.
    pub(super) wanted: Vec<String>,
    /// What they are, tap by tap.
    pub(super) results: Vec<Reduced>,
}

/// One thing that is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reduced {
    /// The index of the tap.
    pub(super) tap: usize,
    /// What of it.
    pub(super) what: What,
    /// The index of the fetched value; measures that must be equal share one.
    pub(super) value: usize,
}

/// What a fetched value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The extents of the tapped value, as integers.
    Shape,
    /// Numbers by position.
    Measure(Measure),
    /// Numbers by sample and position, of which one stands for the mean over all axes behind the second.
    Mean(Measure),
    /// The same of what lies above zero; twice that less the means, at this place, makes the means of magnitudes, because
    /// |x| = 2 max(x, 0) - x.
    Magnitude(usize),
    /// Summed products by channel and channel, for the channels in these segments.
    Moments(Vec<Segment>),
    /// Means over all axes but the first and that of the tap, in this order.
    Features,
    /// The value itself, with its first axis and that of the tap before all others; the first may have the extent 1.
    Maps,
}

impl Reductions {
    /// The index of a fetched value.
    fn fetch(&mut self, name: String) -> usize {
        // What is asked for twice is of the same tap.
        if let Some(known) = self.wanted.iter().rposition(|other| *other == name) {
            return known;
        }
        self.wanted.push(name);
        self.wanted.len() - 1
    }

    fn put(&mut self, tap: usize, what: What, name: String) {
        let value = self.fetch(name);
        self.results.push(Reduced { tap, what, value });
    }
}

/// Adds the nodes to a copy of `model`.
pub(super) fn reductions(model: &ModelProto, taps: &Taps, wish: &Wish) -> Reductions {
    let mut emit = Emitter::new(model);
    let mut reductions = Reductions { model: model.clone(), wanted: Vec::new(), results: Vec::new() };
    let never_negative = never_negative(model);
    // Engines that run what was added last first then measure a value as soon as it is there, while it is at hand, and
    // need not keep it: the nodes of the first tap come last.
    for (index, tap) in taps.taps.iter().enumerate().rev() {
        reductions.put(index, What::Shape, emit.shape(&tap.name));
        let mut value = emit.float(&tap.name);
        if let Some(zero) = &tap.zero {
            let zero = match zero {
                Zero::Number(number) => emit.number(*number as f32),
                Zero::Activation(name) => emit.float(name),
            };
            value = emit.subtract(&value, &zero);
        }
        // A vector is one sample of one position each.
        let (value, axis, rank) =
            if tap.rank == 1 { (emit.reshape(&value, &[1, -1]), 1, 2) } else { (value, tap.axis, tap.rank) };
        let others: Vec<usize> = (0..rank).filter(|other| *other != axis).collect();
        let is_positive = tap.zero.is_none() && never_negative.contains(tap.name.as_str());
        // The reduced value itself, for all measures that are made of it.
        let mut plain: Option<String> = None;
        for measure in &wish.measures {
            let Some(reduction) = measure.reduction() else { continue };
            let is_plain = *measure == Measure::Sum || *measure == Measure::Absolute && is_positive;
            if is_pooled(*measure, axis, rank) {
                let (what, pooled) = match measure {
                    _ if is_plain => (What::Mean(*measure), plain.get_or_insert_with(|| emit.means(&value)).clone()),
                    Measure::Absolute => {
                        let positive = emit.positive(&value);
                        let mean = plain.get_or_insert_with(|| emit.means(&value)).clone();
                        (What::Magnitude(reductions.fetch(mean)), emit.means(&positive))
                    }
                    Measure::Maximum => {
                        let largest = emit.largest(&value);
                        (What::Measure(*measure), emit.reduce(reduction, &largest, &others))
                    }
                    _ => {
                        let square = emit.square(&value);
                        (What::Mean(*measure), emit.means(&square))
                    }
                };
                reductions.put(index, what, pooled);
                continue;
            }
            // ReduceSumSquare and ReduceL1 exist, but engines have their fast code for plain sums.
            let reduced = match measure {
                _ if is_plain => plain.get_or_insert_with(|| emit.reduce(reduction, &value, &others)).clone(),
                _ => {
                    let measured = match measure {
                        Measure::Square => emit.square(&value),
                        Measure::Absolute => emit.magnitude(&value),
                        Measure::NonZero => emit.is_not_zero(&value),
                        _ => value.clone(),
                    };
                    emit.reduce(reduction, &measured, &others)
                }
            };
            reductions.put(index, What::Measure(*measure), reduced);
        }
        if wish.features || wish.maps() {
            // Where the tapped axis comes first, there is none that could count samples, and the batch is taken as one.
            let inner: Vec<usize> = (1..rank).filter(|other| *other != axis).collect();
            let order: Vec<usize> = [0, axis].into_iter().chain(inner).collect();
            let sorted = match axis {
                0 => emit.reshape(&value, &[1, i64::try_from(tap.extent).unwrap_or(i64::MAX), -1]),
                1 => value.clone(),
                _ => emit.transpose(&value, &order),
            };
            let sorted_rank = if axis == 0 { 3 } else { rank };
            if wish.features {
                let rest: Vec<usize> = (2..sorted_rank).collect();
                let means = if rest.is_empty() { sorted.clone() } else { emit.reduce(Reduction::Mean, &sorted, &rest) };
                reductions.put(index, What::Features, means);
            }
            if wish.maps() {
                reductions.put(index, What::Maps, sorted);
            }
        }
        if wish.products {
            let order: Vec<usize> = std::iter::once(axis).chain(others).collect();
            let first = if axis == 0 { value } else { emit.transpose(&value, &order) };
            let rows = emit.reshape(&first, &[i64::try_from(tap.extent).unwrap_or(i64::MAX), -1]);
            for segments in views(taps, index) {
                reductions.put(
                    index,
                    What::Moments(segments.to_vec()),
                    moments(&mut emit, &rows, tap.extent, segments),
                );
            }
        }
    }
    let graph = reductions.model.graph.get_or_insert_default();
    graph.node.append(&mut emit.nodes.list);
    drop_unused(graph, &reductions.wanted);
    reductions
}

/// Removes the nodes that nothing wanted depends on, such as what lies behind the last tap. Files need not hold their nodes
/// in the order of the data.
fn drop_unused(graph: &mut GraphProto, wanted: &[String]) {
    let made =
        graph.node.iter().enumerate().flat_map(|(at, node)| node.output.iter().map(move |name| (name.clone(), at)));
    let producer: BTreeMap<String, usize> = made.collect();
    let mut needed = BTreeSet::new();
    let mut open: Vec<String> = wanted.to_vec();
    while let Some(name) = open.pop() {
        let Some(at) = producer.get(&name).filter(|at| needed.insert(**at)) else { continue };
        let Some(node) = graph.node.get(*at) else { continue };
        open.extend(node.input.iter().cloned());
        let mut inner = BTreeSet::new();
        node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)).for_each(|g| collect_names(g, &mut inner));
        open.extend(inner);
    }
    let mut at = 0usize..;
    graph.node.retain(|_| at.next().is_some_and(|at| needed.contains(&at)));
    let made: BTreeSet<&str> = graph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
    graph.output.retain(|output| made.contains(output.name()));
}

/// True if a value is reduced over space by the operators that convolutional networks end with. Engines keep pictures in
/// layouts of their own between convolutions; of all reductions these are what they run without changing the layout
/// back, which would cost more than the reduction. What is left, a few numbers per sample, is summed up on the host.
fn is_pooled(measure: Measure, axis: usize, rank: usize) -> bool {
    let known = matches!(measure, Measure::Sum | Measure::Square | Measure::Absolute | Measure::Maximum);
    known && axis == 1 && rank > 2
}

/// The different sets of segments in which groups see a tap.
fn views(taps: &Taps, tap: usize) -> BTreeSet<&[Segment]> {
    let places = taps.groups.iter().flatten().filter(|place| place.tap == tap && !place.segments.is_empty());
    places.map(|place| place.segments.as_slice()).collect()
}

/// X Xᵀ for the matrix X of channels by everything else; `rows` has the axis of the tap first and all others merged.
fn moments(emit: &mut Emitter, rows: &str, extent: usize, segments: &[Segment]) -> String {
    let long = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut total: Option<String> = None;
    for segment in segments {
        let is_whole = segment.start == 0 && segment.len() == extent;
        let own = if is_whole {
            rows.to_owned()
        } else {
            emit.slice(rows, 0, segment.start, segment.start.saturating_add(segment.len()))
        };
        let stack = emit.reshape(&own, &[long(segment.outer), long(segment.channels), -1]);
        let transposed = emit.transpose(&stack, &[0, 2, 1]);
        let products = emit.product(&stack, &transposed);
        let products = emit.reduce(Reduction::Sum, &products, &[0]);
        total = Some(match total {
            None => products,
            Some(total) => emit.add(&total, &products),
        });
    }
    total.unwrap_or_default()
}
