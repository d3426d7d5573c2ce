//! Reductions: the original model and nodes that reduce its tapped values, so that only numbers per channel leave the
//! engine.
//!
//! Invariants: nodes are added behind those of the model, nothing of it changes; every tap is reduced over all axes but
//! its own; values are measured in single precision, quantised ones relative to the stored number that is zero.

use std::collections::BTreeSet;

use super::emit::{Emitter, Reduction};
use super::{Measure, Segment, Taps, Wish};
use crate::kept::Zero;
use crate::proto::onnx::ModelProto;

/// A model that measures itself.
pub(super) struct Reductions {
    /// The model with its additional nodes.
    pub(super) model: ModelProto,
    /// The names of the values to fetch, in the order of `results`.
    pub(super) wanted: Vec<String>,
    /// What they are: the index of a tap, and what of it.
    pub(super) results: Vec<(usize, What)>,
}

/// One fetched value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The extents of the tapped value, as integers.
    Shape,
    /// Numbers by position.
    Measure(Measure),
    /// Numbers by position, of which one stands for the mean over all axes behind the second.
    Mean(Measure),
    /// Summed products by channel and channel, for the channels in these segments.
    Moments(Vec<Segment>),
    /// Means over all axes but the first and that of the tap, in this order.
    Features,
    /// The value itself, with its first axis and that of the tap before all others; the first may have the extent 1.
    Maps,
}

/// Adds the nodes to a copy of `model`.
pub(super) fn reductions(model: &ModelProto, taps: &Taps, wish: &Wish) -> Reductions {
    let mut emit = Emitter::new(model);
    let mut reductions = Reductions { model: model.clone(), wanted: Vec::new(), results: Vec::new() };
    for (index, tap) in taps.taps.iter().enumerate() {
        let mut put = |what: What, name: String| {
            reductions.wanted.push(name);
            reductions.results.push((index, what));
        };
        put(What::Shape, emit.shape(&tap.name));
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
        for measure in &wish.measures {
            let Some(reduction) = measure.reduction() else { continue };
            if let Some(pooled) = pooled(&mut emit, *measure, &value, axis, rank) {
                let what = if measure.is_extreme() { What::Measure(*measure) } else { What::Mean(*measure) };
                put(what, emit.reduce(reduction, &pooled, &others));
                continue;
            }
            // ReduceSumSquare and ReduceL1 exist, but engines have their fast code for plain sums.
            let measured = match measure {
                Measure::Square => emit.square(&value),
                Measure::Absolute => emit.magnitude(&value),
                Measure::NonZero => emit.is_not_zero(&value),
                _ => value.clone(),
            };
            put(What::Measure(*measure), emit.reduce(reduction, &measured, &others));
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
                put(What::Features, means);
            }
            if wish.maps() {
                put(What::Maps, sorted);
            }
        }
        if wish.products {
            let order: Vec<usize> = std::iter::once(axis).chain(others).collect();
            let first = if axis == 0 { value } else { emit.transpose(&value, &order) };
            let rows = emit.reshape(&first, &[i64::try_from(tap.extent).unwrap_or(i64::MAX), -1]);
            for segments in views(taps, index) {
                put(What::Moments(segments.to_vec()), moments(&mut emit, &rows, tap.extent, segments));
            }
        }
    }
    let graph = reductions.model.graph.get_or_insert_default();
    graph.node.append(&mut emit.nodes.list);
    reductions
}

/// The value reduced over space by the operators that convolutional networks end with, where its layout and the measure
/// allow that. Engines keep pictures in layouts of their own between convolutions; of all reductions these two are what
/// they run without changing the layout back, which would cost more than the reduction.
fn pooled(emit: &mut Emitter, measure: Measure, value: &str, axis: usize, rank: usize) -> Option<String> {
    if axis != 1 || rank < 3 {
        return None;
    }
    Some(match measure {
        Measure::Sum => emit.means(value),
        Measure::Square => {
            let square = emit.square(value);
            emit.means(&square)
        }
        // |x| = 2 max(x, 0) - x.
        Measure::Absolute => {
            let positive = emit.positive(value);
            let positive = emit.means(&positive);
            let twice = emit.add(&positive, &positive);
            let mean = emit.means(value);
            emit.subtract(&twice, &mean)
        }
        Measure::Maximum => emit.largest(value),
        _ => return None,
    })
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
