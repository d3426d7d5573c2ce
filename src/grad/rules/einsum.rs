//! Einsum: the gradient of an operand is an Einsum of the gradient with the other operands. An index that an operand alone
//! has is summed, so its gradient is the same along it.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Einsum.html>.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use crate::proto::build::text;

/// The indices of the operands and of the result, an ellipsis written out.
fn terms(step: &Step, context: &Context) -> Result<(Vec<Vec<char>>, Vec<char>), String> {
    let equation: String = String::from_utf8_lossy(step.text("equation")).chars().filter(|c| *c != ' ').collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let free: Vec<char> = ('A'..='Z').chain('a'..='z').filter(|c| !equation.contains(*c)).collect();
    let mut widest = 0;
    let mut operands = Vec::new();
    for (slot, term) in left.split(',').enumerate() {
        let rank = context.shape(step.input(slot)?)?.len();
        let wide = term.contains("...");
        let named = term.chars().filter(|c| c.is_alphabetic()).count();
        let width = if wide { rank.checked_sub(named).ok_or("more indices than axes")? } else { 0 };
        widest = widest.max(width);
        operands.push((term, width));
    }
    let lead = free.get(..widest).ok_or("too many indices")?;
    let written = |term: &str, width: usize| -> Vec<char> {
        let (before, after) = term.split_once("...").unwrap_or((term, ""));
        let middle = lead.iter().skip(widest - width).filter(|_| term.contains("..."));
        before.chars().chain(middle.copied()).chain(after.chars()).collect()
    };
    let operands: Vec<Vec<char>> = operands.into_iter().map(|(term, width)| written(term, width)).collect();
    let result = match right {
        Some(right) => written(right, widest),
        None => {
            let mut once: Vec<char> = operands.concat();
            once.sort_unstable();
            let all = once.clone();
            once.retain(|c| !lead.contains(c) && all.iter().filter(|a| *a == c).count() == 1);
            lead.iter().copied().chain(once).collect()
        }
    };
    Ok((operands, result))
}

/// Longer diagonals are not written down as matrices.
const LARGEST: usize = 1 << 10;

/// A term of an operand.
type Term = Vec<char>;

/// A term in which no index stands twice, and for each diagonal its place and the term of a matrix that is 1 along it: a
/// diagonal's gradient is 0 elsewhere.
fn apart(own: &Term, operands: &[Term]) -> Result<(Term, Vec<(usize, Term)>), String> {
    let mut free = ('A'..='Z').chain('a'..='z').filter(|c| !operands.iter().any(|term| term.contains(c)));
    let (mut term, mut diagonals): (Term, _) = (Vec::new(), Vec::new());
    for (place, index) in own.iter().enumerate() {
        if term.contains(index) {
            let fresh = free.next().ok_or("too many indices")?;
            diagonals.push((place, vec![*index, fresh]));
            term.push(fresh);
        } else {
            term.push(*index);
        }
    }
    Ok((term, diagonals))
}

pub(crate) fn einsum(step: &Step, context: &mut Context) -> Gradients {
    let g = step.gradient()?;
    let (operands, result) = terms(step, context)?;
    let mut gradients = Vec::new();
    for (slot, own) in operands.iter().enumerate() {
        if !step.needs(slot) {
            gradients.push(None);
            continue;
        }
        let x = step.input(slot)?;
        let (own, diagonals) = apart(own, &operands)?;
        let mut others: Vec<(String, Vec<char>)> = Vec::new();
        for (other, term) in operands.iter().enumerate().filter(|(other, _)| *other != slot) {
            others.push((step.input(other)?.to_owned(), term.clone()));
        }
        for (place, term) in diagonals {
            let extent = context.shape(x)?.get(place).copied().filter(|n| *n <= LARGEST);
            let extent = extent.ok_or("a diagonal that is too long")?;
            let entries: Vec<f64> = (0..extent * extent).map(|i| f64::from(u8::from(i % (extent + 1) == 0))).collect();
            others.push((context.numbers(x, &[extent, extent], &entries)?, term));
        }
        let is_given = |c: &char| result.contains(c) || others.iter().any(|(_, term)| term.contains(c));
        let given: Vec<char> = own.iter().copied().filter(is_given).collect();
        let mut inputs = vec![g];
        let mut equation: String = result.iter().collect();
        for (other, term) in &others {
            inputs.push(other);
            equation.push(',');
            equation.extend(term.iter());
        }
        equation.push_str("->");
        equation.extend(given.iter());
        let mut gradient = context.node("Einsum", &inputs, vec![text("equation", &equation)]);
        let summed: Vec<usize> = (0..own.len()).filter(|axis| own.get(*axis).is_some_and(|c| !is_given(c))).collect();
        if !summed.is_empty() {
            gradient = context.unsqueeze(&gradient, &summed);
            let shape = context.shape_of(x);
            gradient = context.op("Expand", &[&gradient, &shape]);
        }
        let own = &own;
        // An extent of 1 may stand for any.
        let extent = |c: &char| -> Option<usize> {
            let terms = operands.iter().enumerate().filter(|(other, _)| *other != slot || summed.is_empty());
            let found = terms.filter_map(|(other, term)| {
                let place = term.iter().position(|d| d == c)?;
                context.shape(step.input(other).ok()?).ok()?.get(place).copied()
            });
            found.max()
        };
        let shape = context.shape(x)?;
        let from: Vec<usize> =
            own.iter().zip(shape).map(|(c, own)| if is_given(c) { extent(c).unwrap_or(*own) } else { *own }).collect();
        gradients.push(Some(context.unbroadcast(&gradient, &from, x)?));
    }
    Ok(gradients)
}
