//! Mixtures of experts as one operator: MoE of com.microsoft.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. A router picks some of e experts
//! for every row; each is two contractions, I -> H -> I, and a third beside the first where the activation is gated. The
//! gate may be fused with the first: (H 2) interleaved (`swiglu_fusion` 1) or (2 H) behind each other (2). The experts
//! are compared with each other, so they stay; what they compute inside may go, and what they read and give.

use super::{NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// x [.., I], router [rows, e], weights [e, H, I], bias [e, H], weights [e, I, H], bias [e, I], weights [e, H, I],
/// bias [e, H] -> [.., I].
pub(super) struct Experts;

impl Rule for Experts {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let first = match node.int("swiglu_fusion", 0) {
            0 => "H",
            1 => "(H f)",
            2 => "(f H)",
            _ => return Err(Refusal::new("this fusion of its gate is not known")),
        };
        let rows = match node.rank(0)? {
            2 => "r0",
            3 => "r0 r1",
            _ => return Err(Refusal::new("its input has neither two nor three axes")),
        };
        let weights = format!("e {first} I, e {first}, e I H, e I, e H I, e H");
        let all = format!("{rows} I, r e, {weights}");
        let inputs: Vec<&str> =
            all.split(", ").enumerate().map(|(slot, text)| if node.has(slot) { text } else { "_" }).collect();
        let text = format!("{} -> {rows} I", inputs.join(", "));
        let mut signature = Signature::parse(&text, "a router picks experts row by row")?
            .because("f", "a gate and what it gates")
            .with("f", Extent::known(2));
        signature.inputs.truncate(node.input_count());
        Ok(signature)
    }

    fn macs(&self, node: &NodeView, _outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let x = node.shape(0).ok()?;
        let rows = Extent::product(x.get(..x.len().checked_sub(1)?)?)?.times(&Extent::known(node.int("k", 1)))?;
        let mut all = Extent::known(0);
        for slot in [2, 4, 6] {
            if let Ok(weights) = node.shape(slot) {
                let weights = Extent::product(weights.get(1..)?)?;
                all = node.symbolic(|symbols| symbols.plus(&all, &weights));
            }
        }
        all.times(&rows)
    }
}
