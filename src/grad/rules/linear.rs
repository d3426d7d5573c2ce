//! Products of matrices.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use crate::proto::build::{float, int};

/// y = a b: a gets g bᵀ, b gets aᵀ g, summed over the batch axes that were broadcast. A vector is a matrix of one row or
/// column.
pub(crate) fn matmul(step: &Step, context: &mut Context) -> Gradients {
    let (a, b) = (step.input(0)?, step.input(1)?);
    let (left, right) = (context.shape(a)?, context.shape(b)?);
    let mut g = step.gradient()?.to_owned();
    let mut out = context.shape(step.output()?)?.to_vec();
    let (mut wide_a, mut wide_b) = ((a.to_owned(), left.to_vec()), (b.to_owned(), right.to_vec()));
    if let [extent] = right {
        out.push(1);
        wide_b = (context.unsqueeze(b, &[1]), vec![*extent, 1]);
        g = context.unsqueeze(&g, &[out.len() - 1]);
    }
    if let [extent] = left {
        let place = out.len().saturating_sub(1);
        out.insert(place, 1);
        wide_a = (context.unsqueeze(a, &[0]), vec![1, *extent]);
        g = context.unsqueeze(&g, &[place]);
    }
    let mut found = products(context, &g, &wide_a, &wide_b, &out, [step.needs(0), step.needs(1)])?.into_iter();
    let mut next = |context: &mut Context, of: &str, rank: usize| {
        let gradient = found.next().flatten()?;
        Some(if rank == 1 { context.reshape_like(&gradient, of) } else { gradient })
    };
    let first = next(context, a, left.len());
    Ok(vec![first, next(context, b, right.len())])
}

/// The gradients of two matrices, given with their shapes, whose product has the gradient `g` and the shape `out`.
fn products(
    context: &mut Context,
    g: &str,
    (a, left): &(String, Vec<usize>),
    (b, right): &(String, Vec<usize>),
    out: &[usize],
    needs: [bool; 2],
) -> Result<[Option<String>; 2], String> {
    let (Some([rows, inner]), Some([_, columns])) = (left.last_chunk::<2>(), right.last_chunk::<2>()) else {
        return Err("a scalar as an operand".to_owned());
    };
    let batch = out.get(..out.len().saturating_sub(2)).unwrap_or_default();
    let first = match needs[0] {
        true => {
            let turned = turn(context, b, right.len());
            let product = context.op("MatMul", &[g, &turned]);
            Some(context.shrink(&product, &[batch, &[*rows, *inner]].concat(), left, a)?)
        }
        false => None,
    };
    let second = match needs[1] {
        // A weight: all rows at once, instead of a product per sample that is summed afterwards.
        true if right.len() == 2 => {
            let flat = |context: &mut Context, value: &str, width: usize| {
                context.reshape(value, &[-1, i64::try_from(width).unwrap_or(i64::MAX)])
            };
            let (a, g) = (flat(context, a, *inner), flat(context, g, *columns));
            let turned = context.transpose(&a, &[1, 0]);
            Some(context.op("MatMul", &[&turned, &g]))
        }
        true => {
            let turned = turn(context, a, left.len());
            let product = context.op("MatMul", &[&turned, g]);
            Some(context.shrink(&product, &[batch, &[*inner, *columns]].concat(), right, b)?)
        }
        false => None,
    };
    Ok([first, second])
}

/// y = alpha a' b' of `com.microsoft`, where a' and b' may be transposed in their last two axes.
pub(crate) fn fused_matmul(step: &Step, context: &mut Context) -> Gradients {
    if step.int("transBatchA", 0) != 0 || step.int("transBatchB", 0) != 0 {
        return Err("a transposed batch".to_owned());
    }
    let alpha = step.float("alpha", 1.0);
    let turned = [step.int("transA", 0) != 0, step.int("transB", 0) != 0];
    let mut operands = Vec::new();
    for (slot, turned) in turned.into_iter().enumerate() {
        let name = step.input(slot)?;
        let mut shape = context.shape(name)?.to_vec();
        operands.push(match shape.last_chunk_mut::<2>() {
            Some(last) if turned => {
                last.swap(0, 1);
                (turn(context, name, shape.len()), shape)
            }
            _ => (name.to_owned(), shape),
        });
    }
    let [a, b] = operands.as_slice() else { return Err("two operands are needed".to_owned()) };
    let g = context.scale(step.gradient()?, step.output()?, alpha)?;
    let out = context.shape(step.output()?)?;
    let found = products(context, &g, a, b, out, [step.needs(0), step.needs(1)])?;
    let ranks = [a.1.len(), b.1.len()];
    let back = found.into_iter().zip(turned).zip(ranks).map(|((gradient, turned), rank)| {
        gradient.map(|gradient| if turned { turn(context, &gradient, rank) } else { gradient })
    });
    Ok(back.collect())
}

/// The last two axes exchanged.
fn turn(context: &mut Context, value: &str, rank: usize) -> String {
    let mut order: Vec<usize> = (0..rank).collect();
    if let Some(last) = order.last_chunk_mut::<2>() {
        last.swap(0, 1);
    }
    context.transpose(value, &order)
}

/// y = alpha a' b' + beta c, where a' and b' may be transposed.
pub(crate) fn gemm(step: &Step, context: &mut Context) -> Gradients {
    let (g, a, b) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let [turn_a, turn_b] = ["transA", "transB"].map(|name| i64::from(step.int(name, 0) != 0));
    let alpha = step.float("alpha", 1.0) as f32;
    let product = |context: &mut Context, left: &str, right: &str, turn_left: i64, turn_right: i64| {
        let attributes = vec![float("alpha", alpha), int("transA", turn_left), int("transB", turn_right)];
        context.node("Gemm", &[left, right], attributes)
    };
    let first = step.needs(0).then(|| match turn_a {
        0 => product(context, g, b, 0, 1 - turn_b),
        _ => product(context, b, g, turn_b, 1),
    });
    let second = step.needs(1).then(|| match turn_b {
        0 => product(context, a, g, 1 - turn_a, 0),
        _ => product(context, g, a, 1, turn_a),
    });
    let third = match step.needs(2) {
        true => {
            let c = step.input(2)?;
            let scaled = context.scale(g, c, step.float("beta", 1.0))?;
            Some(context.unbroadcast(&scaled, context.shape(step.output()?)?, c)?)
        }
        false => None,
    };
    Ok(vec![first, second, third])
}
