//! Pools: x [n, C, spatial…] -> y [n, C, spatial…], each channel by itself.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__MaxPool.html>, <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>.
//! Spatial axes slide or are averaged, so they are locked. `Indices` of MaxPool count positions over all channels and
//! would change when a channel goes, so a MaxPool that gives them is refused.

use super::window::window;
use super::{NodeView, Refusal, Refused, Rule, Signature};

/// MaxPool, AveragePool, LpPool.
pub(super) struct Pool;

impl Rule for Pool {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if node.node.outputs.get(1).is_some_and(Option::is_some) {
            return Err(Refusal::new("its indices count positions over all channels"));
        }
        let rank = rank(node)?;
        let kernel = node.ints("kernel_shape").ok_or_else(|| Refusal::new("it has no `kernel_shape`"))?;
        if kernel.len() != rank - 2 {
            return Err(Refusal::new("attribute `kernel_shape` does not fit the spatial axes"));
        }
        let round_up = node.int("ceil_mode", 0) != 0;
        let words = |prefix: &str| (2..rank).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(" ");
        let text = format!("n C {} -> n C {}", words("h"), words("p"));
        let mut signature = Signature::parse(&text, "a pool slides over it or runs it sample by sample")?;
        for (axis, kernel) in kernel.iter().enumerate() {
            let extent = window(node, &node.extent(0, axis + 2)?, *kernel, axis, rank - 2, round_up)?;
            signature = signature.with(&format!("p{}", axis + 2), extent);
        }
        Ok(signature)
    }
}

/// GlobalAveragePool, GlobalMaxPool, GlobalLpPool.
pub(super) struct GlobalPool;

impl Rule for GlobalPool {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = rank(node)?;
        let spatial: Vec<String> = (2..rank).map(|i| format!("h{i}")).collect();
        let ones = vec!["1"; rank - 2].join(" ");
        let text = format!("n C {} -> n C {ones}", spatial.join(" "));
        Ok(Signature::parse(&text, "a pool runs over it or runs it sample by sample")?)
    }
}

/// The rank of a batch of channels.
fn rank(node: &NodeView) -> Refused<usize> {
    match node.rank(0)? {
        rank if rank >= 3 => Ok(rank),
        rank => Err(Refusal::new(format!("a pool needs spatial axes, its input has rank {rank}"))),
    }
}
