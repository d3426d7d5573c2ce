//! Operators: what each one says about its axes. The only place that names operator types.
//!
//! One small file per family, one row per operator in [`RULES`]. A rule is stateless: it describes, it never walks the
//! graph and never touches weights. Anything without a row is opaque: all axes locked, with that reason.
//! The laws for writing a rule are in README.md beside this file.

pub mod affine;
mod align;
mod arithmetic;
mod attention;
mod attention_bias;
mod blocked;
mod bodies;
mod channels_last;
mod concat;
mod conv;
mod deform;
pub mod dequantised;
mod einsum;
mod elementwise;
mod expand;
mod experts;
pub mod flat;
mod floats;
mod follow;
mod fused;
mod fused_quantized;
mod gather;
mod integers;
pub mod linear;
mod matmul;
mod norm;
mod norm_domains;
mod ordered;
mod pad;
mod pool;
pub mod probabilities;
mod qlinear;
mod quantize;
mod quantized;
mod random;
mod rearrange;
mod recurrent;
mod reduce;
mod regions;
mod reshape;
mod resize;
mod root_mean_square;
mod sample;
mod scatter;
mod selection;
mod shapes;
mod shuffle;
pub mod sign;
mod signature;
mod slice;
mod softmax;
mod spectral;
mod split;
mod squeeze;
mod table;
mod table_microsoft;
mod table_ml;
#[cfg(test)]
mod testing;
mod transpose;
mod view;
mod window;
mod written;

use std::collections::BTreeMap;

pub use bodies::returns_by_position;
pub use integers::{Integers, MAX_ENTRIES};
pub use signature::{Letter, Part, Signature, TensorTerms, Term, Zero};
pub use table::{RULES, rule_for};
pub use view::{Extents, InputView, NodeView, normalise_axis};

use crate::axes::Extent;
use crate::kept::Indices;

/// Why a rule cannot describe a node: a sentence that ends up as the reason of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Refusal {
    /// A refusal with its reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self(why)
    }
}

/// The result of asking a rule.
pub type Refused<T> = Result<T, Refusal>;

/// What pruning must know about one operator.
pub trait Rule: Sync {
    /// How the axes of the inputs and outputs correspond; the extents of the output terms are the output shape.
    ///
    /// # Errors
    /// A refusal: the node is then opaque.
    fn signature(&self, node: &NodeView) -> Refused<Signature>;

    /// Attributes and shape constants that must change once axes are shorter. Weights are sliced by `rewrite`.
    ///
    /// # Errors
    /// A refusal if the call cannot be spelled any more; pruning then stops with an error.
    fn patch(&self, _before: &NodeView, _change: &Change) -> Refused<Vec<Edit>> {
        Ok(Vec::new())
    }

    /// Multiply-accumulates of one run, with these input shapes and outputs. Data movement costs nothing.
    fn macs(&self, _node: &NodeView, _outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        None
    }

    /// What may shrink besides where approximations are allowed, as a phrase for docs/operators.md.
    fn approximate(&self) -> Option<&'static str> {
        None
    }

    /// True if inputs and outputs that nothing is left of can be left out of the call; `patch` then does so.
    fn leaves_out(&self) -> bool {
        false
    }

    /// Integer outputs of shape arithmetic, where the inputs tell them.
    fn evaluate(&self, _node: &NodeView) -> Option<Vec<Option<Integers>>> {
        None
    }
}

/// One row of the table of operators.
#[derive(Clone, Copy)]
pub struct Row {
    /// The operator's domain (`""` = ai.onnx).
    pub domain: &'static str,
    /// The operator's name.
    pub op_type: &'static str,
    /// Its rule.
    pub rule: &'static dyn Rule,
    /// Input slots that hold shapes, axes or indices; `patch` keeps them right. Any other integer input is data.
    pub shape_inputs: &'static [usize],
    /// One sentence for docs/operators.md: what may shrink, what is locked.
    pub note: &'static str,
}

/// What has become of a node's tensors.
pub struct Change<'a> {
    /// The node in the pruned model: shapes, constants and shape arithmetic after pruning.
    pub after: &'a NodeView<'a>,
    /// The output shapes in the original model; `None` where the rank is unknown.
    pub outputs_before: &'a [Option<Vec<Extent>>],
    /// The output shapes in the pruned model.
    pub outputs_after: &'a [Option<Vec<Extent>>],
    /// Kept indices by (input slot, axis), for axes that got shorter.
    pub input_kept: &'a BTreeMap<(usize, usize), Indices>,
    /// Kept indices by (output slot, axis), for axes that got shorter.
    pub output_kept: &'a BTreeMap<(usize, usize), Indices>,
}

/// One change to one node.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// An integer attribute gets a value.
    Int(&'static str, i64),
    /// A list attribute gets values.
    Ints(&'static str, Vec<i64>),
    /// Input `slot` becomes (or is added as) a constant vector of integers, of the type it had (int64 if it is new).
    Constant(usize, Vec<i64>),
    /// Input `slot` becomes a constant scalar integer, of the type it had.
    Scalar(usize, i64),
    /// Input `slot` becomes a constant of single-precision floats: extents, values.
    Floats(usize, Vec<i64>, Vec<f32>),
    /// Some entries of input `slot`, a vector computed when the model runs, are overridden: (index, value).
    Entries(usize, Vec<(usize, i64)>),
    /// Some entries of input `slot`, a tensor of these dimensions computed when the model runs, are multiplied and divided:
    /// (index, factor, divisor).
    Ratios(usize, Vec<usize>, Vec<(usize, i64, i64)>),
    /// A float attribute gets a value.
    Float(&'static str, f32),
    /// An attribute goes.
    Remove(&'static str),
    /// Output `slot` is multiplied by a factor.
    Scale(usize, f64),
    /// Input `slot` is left out, and those behind it move up; the last of a node's edits, from the highest slot down.
    LeaveInput(usize),
    /// Output `slot` is left out, likewise.
    LeaveOutput(usize),
}
