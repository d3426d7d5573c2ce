//! Rounding: how far the last bit of weights and inputs moves the outputs of a model.
//!
//! Summing in another order is what a pruned model may do. Where a model is so sensitive that one unit in the last
//! place of its numbers moves an output further than the tolerance, no difference of that size says anything about
//! pruning. Invariants: measured with the engine that judges, on the reference alone; what moves is at most one unit in
//! the last place; the allowance has an end, so that a model that answers anything passes nothing.

use super::compare::compare;
use super::run_all;
use crate::engine::{Engine, Feeds, Value};
use crate::proto::onnx::ModelProto;
use crate::proto::onnx::tensor_proto::DataType;

/// So many different changes are tried.
const TRIALS: u64 = 3;

/// A difference may be so many times what the trials made.
const FACTOR: f64 = 4.0;

/// No sensitivity excuses more than this, relative.
const MOST: f64 = 1e-2;

/// For every output of `reference`, the relative difference that rounding explains; 0 where that was not to be found.
pub(super) fn allowances(
    engine: &dyn Engine,
    reference: &ModelProto,
    feeds: &[Feeds],
    outputs: &[String],
    expected: &[Vec<Value>],
    least: &dyn Fn(&str) -> f64,
) -> Vec<f64> {
    let mut allowed = vec![0.0; outputs.len()];
    for seed in 0..TRIALS {
        let moved: Vec<Feeds> = feeds.iter().map(|f| nudged_feeds(f, seed)).collect();
        let Ok(found) = run_all(engine, &nudged(reference, seed), &moved, outputs) else { continue };
        for (expected, found) in expected.iter().zip(&found) {
            let pairs = outputs.iter().zip(expected.iter().zip(found));
            for (allowed, (name, (expected, found))) in allowed.iter_mut().zip(pairs) {
                let difference = compare(name, expected, found, least(name));
                // An output of another shape tells that more than rounding was changed.
                if difference.mismatch.is_none() && difference.max_relative.is_finite() {
                    *allowed = f64::max(*allowed, (difference.max_relative * FACTOR).min(MOST));
                }
            }
        }
    }
    allowed
}

/// The model with its matrices and kernels moved. Vectors stay: extents, scales of pictures and the like are among them.
fn nudged(model: &ModelProto, seed: u64) -> ModelProto {
    let mut model = model.clone();
    for (place, tensor) in model.graph.iter_mut().flat_map(|g| &mut g.initializer).enumerate() {
        if tensor.data_type() != DataType::Float as i32 || tensor.dims.len() < 2 {
            continue;
        }
        let key = seed.wrapping_add(place as u64 * 0x1_0000_0001);
        for (index, number) in tensor.float_data.iter_mut().enumerate() {
            *number = nudge(*number, key, index);
        }
        if let Some(bytes) = &tensor.raw_data {
            let number = |(index, bytes): (usize, &[u8; 4])| nudge(f32::from_le_bytes(*bytes), key, index);
            let numbers = bytes.as_chunks().0.iter().enumerate().map(number);
            tensor.raw_data = Some(numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into());
        }
    }
    model
}

fn nudged_feeds(feeds: &Feeds, seed: u64) -> Feeds {
    let mut feeds = feeds.clone();
    for (_, value) in &mut feeds {
        if let Value::F32(array) = value {
            array.iter_mut().enumerate().for_each(|(index, number)| *number = nudge(*number, seed, index));
        }
    }
    feeds
}

/// One unit in the last place up, down, or none; small whole numbers, which are often counts and choices, stay.
fn nudge(number: f32, key: u64, index: usize) -> f32 {
    if !number.is_normal() || number.fract() == 0.0 {
        return number;
    }
    let mut mixed = (index as u64).wrapping_add(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(1);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let moved = match (mixed >> 40) % 3 {
        0 => f32::from_bits(number.to_bits() + 1),
        1 => f32::from_bits(number.to_bits() - 1),
        _ => number,
    };
    if moved.is_normal() { moved } else { number }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::Tract;
    use ndarray::ArrayD;

    /// `y` keeps few digits of x, `z` all of them.
    const CANCELS: &str =
        "in x [4]\nmoved = Add(x, <1000000.0>)\ny = Sub(moved, <1000000.0>)\nz = Mul(x, <2.5>)\nout y, z";

    #[test]
    fn sensitive_outputs_are_told_from_others() {
        let model = crate::text::parse(CANCELS).unwrap();
        let x = ArrayD::from_shape_vec(vec![4], vec![0.03125f32, 0.09375, 0.15625, 0.7]).unwrap();
        let feeds = vec![vec![("x".to_owned(), Value::from(x))]];
        let outputs = ["y".to_owned(), "z".to_owned()];
        let expected = run_all(&Tract, &model, &feeds, &outputs).unwrap();
        let allowed = allowances(&Tract, &model, &feeds, &outputs, &expected, &|_| 0.0);
        assert!(allowed[1] > 0.0 && allowed[1] < 1e-5, "{allowed:?}");
        assert_eq!(allowed[0], MOST, "{allowed:?}");
    }

    #[test]
    fn numbers_move_by_one_unit_in_the_last_place() {
        let moved: Vec<f32> = (0..64).map(|index| nudge(0.1, 7, index)).collect();
        let unit = f32::from_bits(0.1f32.to_bits() + 1) - 0.1;
        assert!(moved.iter().all(|x| (x - 0.1).abs() <= unit * 1.01));
        assert!(moved.iter().any(|x| *x > 0.1) && moved.iter().any(|x| *x < 0.1));
        assert_eq!(nudge(3.0, 7, 1), 3.0);
        assert_eq!(nudge(f32::MAX, 7, 1), f32::MAX);
    }
}
