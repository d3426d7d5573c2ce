//! Element-wise operators that exporters use to compute shapes: the same axes as any other, and integer evaluation.
//!
//! Spec: the pages of the operators under <https://onnx.ai/onnx/operators/>. Integer division truncates; `Mod` takes
//! the sign of the divisor, or of the dividend with `fmod`. An entry that is not known stays unknown. Single-precision
//! floats are followed as far as sizes of pictures need it, see `floats`; any other type is data.

use super::elementwise::Elementwise;
use super::floats;
use super::{Integers, MAX_ENTRIES, NodeView, Refused, Rule, Signature};
use crate::axes::{Extent, Symbols};
use crate::proto::onnx::tensor_proto::DataType;

/// An element-wise operator that is also evaluated on small integer tensors.
pub(super) struct Arithmetic(pub(super) Operation);

/// What is computed, entry by entry.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    Abs,
    Add,
    And,
    Cast,
    Ceil,
    Div,
    Equal,
    Floor,
    Greater,
    GreaterOrEqual,
    Identity,
    Less,
    LessOrEqual,
    Max,
    Min,
    Mod,
    Mul,
    Neg,
    Not,
    Or,
    Round,
    Sub,
    Where,
}

impl Rule for Arithmetic {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        Elementwise.signature(node)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let inputs = (0..node.input_count()).map(|slot| node.integers(slot)).collect::<Option<Vec<_>>>()?;
        let dims = common_dims(&inputs)?;
        let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ENTRIES)?;
        // A vector of floats beside a single one is data.
        let is_float =
            |i: &Integers| node.symbolic(|symbols| i.values.iter().flatten().any(|v| floats::is_float(symbols, v)));
        if inputs.iter().any(|i| i.values.len() != count) && inputs.iter().any(|i| is_float(i)) {
            return None;
        }
        let operation = self.0.with_attributes(node);
        let values = (0..count).map(|position| {
            let entries: Option<Vec<Option<&Extent>>> =
                inputs.iter().map(|i| i.values.get(source(position, &dims, &i.dims)?).map(Option::as_ref)).collect();
            node.symbolic(|symbols| operation(symbols, &entries?))
        });
        Some(vec![Some(Integers { values: values.collect(), dims })])
    }
}

/// The shape that several broadcast to, if they do.
fn common_dims(inputs: &[&Integers]) -> Option<Vec<usize>> {
    let rank = inputs.iter().map(|i| i.dims.len()).max()?;
    let mut dims = vec![1; rank];
    for input in inputs {
        for (dim, own) in dims.iter_mut().rev().zip(input.dims.iter().rev()) {
            match (*dim, *own) {
                (a, b) if a == b => {}
                (1, b) => *dim = b,
                (_, 1) => {}
                _ => return None,
            }
        }
    }
    Some(dims)
}

/// The row-major index in a tensor of shape `own` that broadcasting reads for `position` in one of shape `dims`.
fn source(mut position: usize, dims: &[usize], own: &[usize]) -> Option<usize> {
    let (mut index, mut step) = (0usize, 1usize);
    for (i, dim) in dims.iter().rev().enumerate() {
        let coordinate = position.checked_rem(*dim)?;
        position = position.checked_div(*dim)?;
        if let Some(own) = own.len().checked_sub(i + 1).and_then(|at| own.get(at)) {
            if *own != 1 {
                index = coordinate.checked_mul(step)?.checked_add(index)?;
            }
            step = step.checked_mul(*own)?;
        }
    }
    Some(index)
}

type Entries<'a> = [Option<&'a Extent>];

impl Operation {
    fn with_attributes(self, node: &NodeView) -> impl Fn(&mut Symbols, &Entries) -> Option<Extent> {
        let (to, fmod) = (node.int("to", 0), node.int("fmod", 0) != 0);
        move |symbols, entries| self.apply(symbols, entries, to, fmod)
    }

    fn apply(self, symbols: &mut Symbols, entries: &Entries, to: i64, fmod: bool) -> Option<Extent> {
        let truth = |value: bool| Some(Extent::known(i64::from(value)));
        if let Some(result) = floats::apply(self, symbols, entries) {
            return result;
        }
        match (self, entries) {
            (Operation::Identity, [x]) => x.cloned(),
            (Operation::Cast, [x]) => cast(symbols, (*x)?, to),
            (Operation::Abs, [x]) => (*x)?.value()?.checked_abs().map(Extent::known),
            (Operation::Neg, [x]) => (*x)?.times(&Extent::known(-1)),
            (Operation::Not, [x]) => truth((*x)?.value()? == 0),
            (Operation::Add, [a, b]) => Some(symbols.plus((*a)?, (*b)?)),
            (Operation::Sub, [a, b]) => Some(symbols.plus((*a)?, &(*b)?.times(&Extent::known(-1))?)),
            (Operation::Mul, [a, b]) => match ((*a).and_then(Extent::value), (*b).and_then(Extent::value)) {
                // Zero times anything.
                (Some(0), _) | (_, Some(0)) => Some(Extent::known(0)),
                _ => Some(symbols.times((*a)?, (*b)?)),
            },
            (Operation::Div, [a, b]) => divide(symbols, (*a)?, (*b)?),
            (Operation::Mod, [a, b]) => modulo(symbols, (*a)?, (*b)?, fmod),
            (Operation::Min | Operation::Max, entries) => {
                let entries = entries.iter().copied().collect::<Option<Vec<_>>>()?;
                extreme(symbols, &entries, matches!(self, Operation::Max))
            }
            (Operation::Equal, [a, b]) => compare(symbols, (*a)?, (*b)?, true, |a, b| a == b),
            (Operation::Greater, [a, b]) => compare(symbols, (*a)?, (*b)?, false, |a, b| a > b),
            (Operation::GreaterOrEqual, [a, b]) => compare(symbols, (*a)?, (*b)?, true, |a, b| a >= b),
            (Operation::Less, [a, b]) => compare(symbols, (*a)?, (*b)?, false, |a, b| a < b),
            (Operation::LessOrEqual, [a, b]) => compare(symbols, (*a)?, (*b)?, true, |a, b| a <= b),
            (Operation::And | Operation::Or, [a, b]) => {
                let decides = matches!(self, Operation::Or);
                let known = [a, b].map(|x| x.and_then(Extent::value).map(|v| v != 0));
                match known {
                    [Some(x), _] | [_, Some(x)] if x == decides => truth(x),
                    [Some(_), Some(_)] => truth(!decides),
                    _ => None,
                }
            }
            (Operation::Where, [condition, a, b]) => match condition.and_then(Extent::value) {
                Some(0) => b.cloned(),
                Some(_) => a.cloned(),
                None => (*a)?.eq((*b)?).then(|| a.cloned()).flatten(),
            },
            _ => None,
        }
    }
}

/// A value in another type; nothing if that type cannot hold it.
fn cast(symbols: &mut Symbols, value: &Extent, to: i64) -> Option<Extent> {
    let to = i32::try_from(to).ok().and_then(|to| DataType::try_from(to).ok())?;
    if to == DataType::Float {
        return floats::from_integer(symbols, value);
    }
    let value = &floats::to_integer(symbols, value)?;
    let range = match to {
        DataType::Bool => return value.value().map(|v| Extent::known(i64::from(v != 0))),
        DataType::Int64 => return Some(value.clone()),
        DataType::Int32 => i64::from(i32::MIN)..=i64::from(i32::MAX),
        DataType::Uint32 => 0..=i64::from(u32::MAX),
        DataType::Uint64 => 0..=i64::MAX,
        DataType::Int16 => i64::from(i16::MIN)..=i64::from(i16::MAX),
        DataType::Uint16 => 0..=i64::from(u16::MAX),
        DataType::Int8 => i64::from(i8::MIN)..=i64::from(i8::MAX),
        DataType::Uint8 => 0..=i64::from(u8::MAX),
        _ => return None,
    };
    match value.value() {
        Some(v) => range.contains(&v).then(|| value.clone()),
        // Sizes of tensors fit 32 bits in any model that runs; narrower types are no shapes.
        None => matches!(to, DataType::Int32 | DataType::Uint32 | DataType::Uint64).then(|| value.clone()),
    }
}

/// `a / b`, truncated.
fn divide(symbols: &mut Symbols, a: &Extent, b: &Extent) -> Option<Extent> {
    match (a.value(), b.value()) {
        (Some(a), Some(b)) => a.checked_div(b).map(Extent::known),
        (_, Some(0)) => None,
        _ => Some(symbols.floor_divide(a, b)),
    }
}

fn modulo(symbols: &mut Symbols, a: &Extent, b: &Extent, fmod: bool) -> Option<Extent> {
    match (a.value(), b.value()) {
        (Some(a), Some(b)) => {
            let remainder = a.checked_rem(b)?;
            let other_sign = remainder != 0 && (remainder < 0) != (b < 0);
            Some(Extent::known(if other_sign && !fmod { remainder.checked_add(b)? } else { remainder }))
        }
        (_, Some(0)) => None,
        _ if a.divided_by(b).is_some() => Some(Extent::known(0)),
        _ => Some(symbols.computed(if fmod { "fmod" } else { "mod" }, &[a.clone(), b.clone()])),
    }
}

/// The largest or smallest of several.
pub(super) fn extreme(symbols: &mut Symbols, entries: &[&Extent], largest: bool) -> Option<Extent> {
    let known = entries.iter().filter_map(|e| e.value());
    let best = if largest { known.max() } else { known.min() };
    let mut rest: Vec<Extent> = entries.iter().filter(|e| e.value().is_none()).map(|e| (*e).clone()).collect();
    rest.extend(best.map(Extent::known));
    rest.sort();
    rest.dedup();
    match rest.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        many => Some(symbols.computed(if largest { "max" } else { "min" }, many)),
    }
}

/// A comparison; of one symbolic value with itself, `of_equals`.
fn compare(
    symbols: &Symbols,
    a: &Extent,
    b: &Extent,
    of_equals: bool,
    holds: impl Fn(i64, i64) -> bool,
) -> Option<Extent> {
    let outcome = match (a.value(), b.value()) {
        (Some(a), Some(b)) => holds(a, b),
        _ if a == b => of_equals,
        // A size beside a negative number, such as the -1 that stands for "as it is": any size tells the outcome.
        (None, Some(b)) if b < 0 && symbols.is_size(a) => holds(0, b),
        (Some(a), None) if a < 0 && symbols.is_size(b) => holds(a, 0),
        _ => return None,
    };
    Some(Extent::known(i64::from(outcome)))
}
