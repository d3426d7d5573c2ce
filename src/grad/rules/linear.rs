//! Products of matrices.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use crate::proto::build::{attribute, int};
use crate::proto::onnx::AttributeProto;
use crate::proto::onnx::attribute_proto::AttributeType;

/// y = a b: a gets g bᵀ, b gets aᵀ g, summed over the batch axes that were broadcast.
pub(crate) fn matmul(step: &Step, context: &mut Context) -> Gradients {
    let (g, a, b) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let (left, right, out) = (context.shape(a)?, context.shape(b)?, context.shape(step.output()?)?);
    let (Some([rows, inner]), Some([_, columns])) = (left.last_chunk::<2>(), right.last_chunk::<2>()) else {
        return Err("a vector as an operand".to_owned());
    };
    let batch = out.get(..out.len().saturating_sub(2)).unwrap_or_default();
    let first = match step.needs(0) {
        true => {
            let turned = turn(context, b, right.len());
            let product = context.op("MatMul", &[g, &turned]);
            Some(context.unbroadcast(&product, &[batch, &[*rows, *inner]].concat(), a)?)
        }
        false => None,
    };
    let second = match step.needs(1) {
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
            Some(context.unbroadcast(&product, &[batch, &[*inner, *columns]].concat(), b)?)
        }
        false => None,
    };
    Ok(vec![first, second])
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
    let (turn_a, turn_b) = (step.int("transA", 0), step.int("transB", 0));
    let alpha = step.float("alpha", 1.0) as f32;
    let product = |context: &mut Context, left: &str, right: &str, turn_left: i64, turn_right: i64| {
        let factor = AttributeProto { f: Some(alpha), ..attribute("alpha", AttributeType::Float) };
        context.node("Gemm", &[left, right], vec![factor, int("transA", turn_left), int("transB", turn_right)])
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
