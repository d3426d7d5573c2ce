//! Shape arithmetic in single precision: `floor(float(height) × 2.0)` and the like, by which exporters compute the sizes of
//! resized pictures.
//!
//! Invariants: a float is a constant, or a size times a constant ([`Symbols::scaled`]); anything else is not known. Only
//! sizes that stand for themselves become floats: a multiple may be the number of channels, which pruning changes.

use super::arithmetic::Operation;
use crate::axes::{Extent, Symbols};

/// True for a float.
pub(super) fn is_float(symbols: &Symbols, value: &Extent) -> bool {
    symbols.as_float(value).is_some() || symbols.as_scaled(value).is_some()
}

/// What an operator makes of floats; `None` where no entry is one, `Some(None)` where the result is not known.
pub(super) fn apply(
    operation: Operation,
    symbols: &mut Symbols,
    entries: &[Option<&Extent>],
) -> Option<Option<Extent>> {
    if !entries.iter().flatten().any(|entry| is_float(symbols, entry)) {
        return None;
    }
    let float = |symbols: &Symbols, entry: &Option<&Extent>| symbols.as_float((*entry)?);
    let scaled = |symbols: &Symbols, entry: &Option<&Extent>| symbols.as_scaled((*entry)?);
    Some(match (operation, entries) {
        // These pass on what they get, or cast it.
        (Operation::Identity | Operation::Cast | Operation::Where | Operation::Equal, _) => return None,
        (Operation::Floor | Operation::Ceil | Operation::Round, [x]) => {
            let (how, round): (&str, fn(f32) -> f32) = match operation {
                Operation::Floor => ("scale", f32::floor),
                Operation::Ceil => ("ceil", f32::ceil),
                _ => ("round", f32::round_ties_even),
            };
            match (float(symbols, x), scaled(symbols, x)) {
                (Some(x), _) => Some(symbols.float(round(x))),
                (None, Some((extent, factor))) => {
                    let rounded = symbols.rounded(&extent, factor, how);
                    Some(symbols.scaled(&rounded, 1.0))
                }
                (None, None) => None,
            }
        }
        (
            Operation::Add | Operation::Sub | Operation::Mul | Operation::Div | Operation::Min | Operation::Max,
            [a, b],
        ) => match (float(symbols, a), float(symbols, b), scaled(symbols, a), scaled(symbols, b)) {
            (Some(a), Some(b), ..) => {
                let result = match operation {
                    Operation::Add => a + b,
                    Operation::Sub => a - b,
                    Operation::Mul => a * b,
                    Operation::Div => a / b,
                    Operation::Min => a.min(b),
                    _ => a.max(b),
                };
                result.is_finite().then(|| symbols.float(result))
            }
            (None, Some(by), Some((extent, factor)), _) | (Some(by), None, _, Some((extent, factor)))
                if matches!(operation, Operation::Mul) && by > 0.0 =>
            {
                Some(symbols.scaled(&extent, factor * by))
            }
            (None, Some(by), Some((extent, factor)), _) if matches!(operation, Operation::Div) && by > 0.0 => {
                Some(symbols.scaled(&extent, factor / by))
            }
            (.., Some((x, a)), Some((y, b))) if matches!(operation, Operation::Div) && x == y => {
                Some(symbols.float(a / b))
            }
            _ => None,
        },
        _ => None,
    })
}

/// An integer as a float, and a float as it is.
pub(super) fn from_integer(symbols: &mut Symbols, value: &Extent) -> Option<Extent> {
    if is_float(symbols, value) {
        return Some(value.clone());
    }
    match value.value() {
        Some(n) => Some(symbols.float(n as f32)),
        None if value.per_symbol() == 1 && symbols.is_size(value) => Some(symbols.scaled(value, 1.0)),
        None => None,
    }
}

/// A float as an integer, rounded towards zero, and an integer as it is.
pub(super) fn to_integer(symbols: &mut Symbols, value: &Extent) -> Option<Extent> {
    match (symbols.as_float(value), symbols.as_scaled(value)) {
        (Some(x), _) => (x.is_finite() && x.abs() < 1e9).then_some(Extent::known(x as i64)),
        (None, Some((extent, factor))) => Some(symbols.rounded(&extent, factor, "scale")),
        (None, None) => Some(value.clone()),
    }
}
