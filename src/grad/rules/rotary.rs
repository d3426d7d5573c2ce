//! RotaryEmbedding: pairs of entries are turned by angles that follow from their position. The gradient is turned back.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>, and
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::sample::signed;
use crate::proto::build::int;

/// The operator of `ai.onnx`: tables for every position, or, without positions, for every sample.
pub(crate) fn standard(step: &Step, context: &mut Context) -> Gradients {
    turned(step, context, [1, 2], step.optional(3))
}

/// The operator of `com.microsoft`: positions for every sample, or that of the first entry.
pub(crate) fn microsoft(step: &Step, context: &mut Context) -> Gradients {
    turned(step, context, [2, 3], Some(step.input(1)?))
}

/// [batch, length, heads · width] or [batch, heads, length, width]; of every head the first `rotary_embedding_dim` entries
/// are turned, or all.
fn turned(step: &Step, context: &mut Context, tables: [usize; 2], positions: Option<&str>) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let tables = [step.input(tables[0])?, step.input(tables[1])?];
    let half = context.shape(tables[0])?.last().copied().filter(|n| *n > 0).ok_or("no angles")?;
    let shape = context.shape(x)?;
    let partial = step.int("rotary_embedding_dim", 0) != 0;
    // The tables [batch, length, half] stand beside heads behind or in front of the length.
    let (axis, length, width) = match shape {
        [_, length, all] => {
            let heads = usize::try_from(step.int("num_heads", 0)).unwrap_or(0);
            let width = all.checked_div(heads).unwrap_or(2 * half);
            (2, *length, if partial && heads == 0 { return Err("no `num_heads`".to_owned()) } else { width })
        }
        [_, _, length, width] => (1, *length, *width),
        _ => return Err("three or four axes are needed".to_owned()),
    };
    let rest = width.checked_sub(2 * half).ok_or("more angles than entries")?;
    let parts = if axis == 2 { context.reshape(g, &[0, 0, -1, signed(width)?]) } else { g.to_owned() };
    let mut beside = Vec::new();
    for table in tables {
        let rows = match positions {
            None => table.to_owned(),
            Some(given) if context.shape(given)?.len() == 2 => context.op("Gather", &[table, given]),
            Some(first) => {
                let places: Vec<i64> = (0..signed(length)?).collect();
                let places = context.nodes.integers(&places);
                let places = context.op("Add", &[&places, first]);
                let rows = context.op("Gather", &[table, &places]);
                context.unsqueeze(&rows, &[0])
            }
        };
        beside.push(context.unsqueeze(&rows, &[axis]));
    }
    let [cosines, sines] = beside.as_slice() else { return Err("two tables are needed".to_owned()) };
    let (parts, kept) = match rest {
        0 => (parts, None),
        rest => {
            let mut both = context.split(&parts, 3, &[2 * half, rest]).into_iter();
            (both.next().ok_or("no entries")?, both.next())
        }
    };
    let interleaved = step.int("interleaved", 0) != 0;
    let halves = match interleaved {
        true => {
            let pairs = context.reshape(&parts, &[0, 0, 0, signed(half)?, 2]);
            let sides = context.split(&pairs, 4, &[1, 1]);
            sides.iter().map(|side| context.reshape(side, &[0, 0, 0, -1])).collect()
        }
        false => context.split(&parts, 3, &[half, half]),
    };
    let [a, b] = halves.as_slice() else { return Err("two halves are needed".to_owned()) };
    let mut product = |x: &str, y: &str| context.op("Mul", &[x, y]);
    let (ac, bs, bc, a_s) = (product(a, cosines), product(b, sines), product(b, cosines), product(a, sines));
    let sides = [context.op("Add", &[&ac, &bs]), context.op("Sub", &[&bc, &a_s])];
    let mut back = match interleaved {
        true => {
            let [first, second] = sides.map(|side| context.unsqueeze(&side, &[4]));
            let pairs = context.node("Concat", &[&first, &second], vec![int("axis", 4)]);
            context.reshape(&pairs, &[0, 0, 0, -1])
        }
        false => context.node("Concat", &[&sides[0], &sides[1]], vec![int("axis", 3)]),
    };
    if let Some(kept) = kept {
        back = context.node("Concat", &[&back, &kept], vec![int("axis", 3)]);
    }
    let gradient = context.reshape_like(&back, x);
    step.first(gradient)
}
