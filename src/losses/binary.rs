//! Binary: an output whose every element is a probability for itself, and its cross-entropy.

use super::classes::TINY;
use super::head::Activation;
use super::{Emitter, Target};
use crate::Result;

/// Rows of logits or of probabilities.
pub(super) struct Binary {
    pub(super) rows: String,
    pub(super) length: usize,
    /// True if the rows are logits.
    pub(super) is_logits: bool,
}

/// The elements; `form` says what the output holds, where that is not to be found out.
pub(super) fn binary(target: &Target, form: Option<Activation>, emitter: &mut Emitter) -> Result<Binary> {
    let length = target.len()?;
    let found = target.head.activation;
    let holds_probabilities = matches!(form.unwrap_or(found), Activation::Sigmoid | Activation::Softmax);
    let logits = target.head.before.as_ref().filter(|_| holds_probabilities && found == Activation::Sigmoid);
    let value = emitter.begin(logits.unwrap_or(&target.output), target.element);
    let rows = emitter.rows(&value, &[length]);
    Ok(Binary { rows, length, is_logits: logits.is_some() || !holds_probabilities })
}

impl Binary {
    /// The probabilities.
    pub(super) fn probabilities(&self, emitter: &mut Emitter) -> String {
        if self.is_logits { emitter.op("Sigmoid", &[&self.rows]) } else { self.rows.clone() }
    }

    /// The mean cross-entropy with rows of labels from 0 to 1.
    pub(super) fn loss(&self, labels: &str, emitter: &mut Emitter) -> String {
        let x = &self.rows;
        let loss = if self.is_logits {
            // max(x, 0) - x y + log(1 + exp(-|x|)), which overflows nowhere. Max shares its gradient where both are equal, so
            // that at 0 it is 1/2 - y.
            let zero = emitter.number(0.0);
            let positive = emitter.op("Max", &[x, &zero]);
            let product = emitter.op("Mul", &[x, labels]);
            let size = emitter.op("Abs", &[x]);
            let negative = emitter.op("Neg", &[&size]);
            let small = emitter.op("Exp", &[&negative]);
            let one = emitter.number(1.0);
            let shifted = emitter.op("Add", &[&one, &small]);
            let rest = emitter.op("Log", &[&shifted]);
            let linear = emitter.op("Sub", &[&positive, &product]);
            emitter.op("Add", &[&linear, &rest])
        } else {
            let (tiny, one) = (emitter.number(TINY), emitter.number(1.0));
            let logarithm = |value: &str, emitter: &mut Emitter| {
                let shifted = emitter.op("Add", &[value, &tiny]);
                emitter.op("Log", &[&shifted])
            };
            let other = emitter.op("Sub", &[&one, x]);
            let (yes, no) = (logarithm(x, emitter), logarithm(&other, emitter));
            let unlabelled = emitter.op("Sub", &[&one, labels]);
            let yes = emitter.op("Mul", &[labels, &yes]);
            let no = emitter.op("Mul", &[&unlabelled, &no]);
            let sum = emitter.op("Add", &[&yes, &no]);
            emitter.op("Neg", &[&sum])
        };
        emitter.mean(&loss, self.length)
    }
}
