//! The table of operators: one row each, in alphabetical order.
//!
//! docs/operators.md is generated from it and a test keeps it sorted and unique.

use super::Row;
use super::arithmetic::{Arithmetic, Operation};
use super::attention::{Attention, GroupQueryAttention, MultiHeadAttention, ProjectedAttention, RotaryEmbedding};
use super::bodies::{If, Loop, Scan};
use super::concat::Concat;
use super::conv::{Conv, ConvTranspose};
use super::einsum::Einsum;
use super::elementwise::{Elementwise, FirstInput, PRelu};
use super::expand::{Expand, Tile};
use super::fused::{EmbedLayerNormalization, FusedConv, FusedMatMul, SkipLayerNormalization};
use super::gather::{Gather, GatherElements};
use super::matmul::{Gemm, MatMul};
use super::norm::{
    BatchNormalization, GroupNormalization, InstanceNormalization, LayerNormalization, LocalResponse, LpNormalization,
    MeanVariance,
};
use super::ordered::{Cumulative, TopK};
use super::pad::Pad;
use super::pool::{GlobalPool, Pool};
use super::quantize::{Dequantize, Dynamic, Quantize};
use super::quantized::{Form, QuantizedConv, QuantizedMatMul};
use super::recurrent::Recurrent;
use super::reduce::{ArgExtreme, Reduce};
use super::reshape::{Flatten, Reshape};
use super::resize::{Resize, Upsample};
use super::root_mean_square::RootMeanSquare;
use super::sample::GridSample;
use super::scatter::{Scatter, Trilu};
use super::shapes::{ConstantOfShape, OneHot, Range, Shape, Size};
use super::shuffle::{DepthToSpace, SpaceToDepth};
use super::slice::Slice;
use super::softmax::Softmax;
use super::split::Split;
use super::squeeze::{Squeeze, Unsqueeze};
use super::transpose::Transpose;

const fn row(op_type: &'static str, rule: &'static dyn super::Rule, note: &'static str) -> Row {
    Row { domain: "", op_type, rule, shape_inputs: &[], note }
}

const fn shaped(
    op_type: &'static str,
    rule: &'static dyn super::Rule,
    shape_inputs: &'static [usize],
    note: &'static str,
) -> Row {
    Row { domain: "", op_type, rule, shape_inputs, note }
}

/// An operator of ONNX Runtime's own domain.
const fn microsoft(op_type: &'static str, rule: &'static dyn super::Rule, note: &'static str) -> Row {
    Row { domain: "com.microsoft", op_type, rule, shape_inputs: &[], note }
}

const ADDITIVE: &str = "every axis, the summed ones too: a sum does not see a channel that is zero";
const ATTENTION: &str = "whole heads, the values inside a head, and if `scale` is given queries and keys inside a head; positions are locked";
const CONTRACTION: &str = "every axis of both operands";
const CONVOLUTION: &str =
    "input and output channels, also of grouped and depthwise convolutions; batch and spatial axes are locked";
const LINEAR: &str = "every axis; vectors of scales follow their axis, blocks go as a whole";
const QUANTIZED_CONVOLUTION: &str = "as Conv; channels summed over are locked unless the input's zero point is 0";
const QUANTIZED_PRODUCT: &str = "as MatMul; the contracted axis is locked unless a computed operand's zero point is 0";
const POINTWISE: &str = "every axis passes through; broadcasting is followed";
const POOL: &str = "channels pass through; batch and spatial axes are locked";
const RECURRENT: &str = "inputs and hidden units, `hidden_size` follows; time, batch, directions and gates are locked";
const ROOT_MEAN_SQUARE: &str =
    "every axis, the normalised ones too: `epsilon` follows, and the output is multiplied by a factor";
const ROTARY: &str = "whole heads; what is inside a head is locked, positions too";
const SKIP: &str = "the last axis is locked, the others pass through";
const REDUCTION: &str = "the reduced axes are locked, the others pass through";

/// Every operator that pruning understands.
pub static RULES: &[Row] = &[
    row("Abs", &Arithmetic(Operation::Abs), POINTWISE),
    row("Acos", &Elementwise, POINTWISE),
    row("Acosh", &Elementwise, POINTWISE),
    row("Add", &Arithmetic(Operation::Add), POINTWISE),
    row("And", &Arithmetic(Operation::And), POINTWISE),
    row("ArgMax", &ArgExtreme, REDUCTION),
    row("ArgMin", &ArgExtreme, REDUCTION),
    row("Asin", &Elementwise, POINTWISE),
    row("Asinh", &Elementwise, POINTWISE),
    row("Atan", &Elementwise, POINTWISE),
    row("Atanh", &Elementwise, POINTWISE),
    row("Attention", &Attention, ATTENTION),
    row("AveragePool", &Pool, POOL),
    row(
        "BatchNormalization",
        &BatchNormalization,
        "every axis passes through; in training mode all but the channels are locked",
    ),
    row("BitShift", &Elementwise, POINTWISE),
    row("BitwiseAnd", &Elementwise, POINTWISE),
    row("BitwiseNot", &Elementwise, POINTWISE),
    row("BitwiseOr", &Elementwise, POINTWISE),
    row("BitwiseXor", &Elementwise, POINTWISE),
    row("Cast", &Arithmetic(Operation::Cast), POINTWISE),
    row("CastLike", &FirstInput, POINTWISE),
    row("Ceil", &Elementwise, POINTWISE),
    row("Celu", &Elementwise, POINTWISE),
    row("Clip", &FirstInput, POINTWISE),
    row("Concat", &Concat, "the parts of the joined axis, each by itself; every other axis passes"),
    shaped("ConstantOfShape", &ConstantOfShape, &[0], "every axis of known extent"),
    row("Conv", &Conv, CONVOLUTION),
    row("ConvInteger", &QuantizedConv(Form::Integer), QUANTIZED_CONVOLUTION),
    row("ConvTranspose", &ConvTranspose, CONVOLUTION),
    row("Cos", &Elementwise, POINTWISE),
    row("Cosh", &Elementwise, POINTWISE),
    shaped("CumProd", &Cumulative, &[1], "the axis it runs along is locked, the others pass through"),
    shaped("CumSum", &Cumulative, &[1], "the axis it runs along is locked, the others pass through"),
    row("DepthToSpace", &DepthToSpace, "channels outside the block; the block is locked"),
    row("DequantizeLinear", &Dequantize, LINEAR),
    row("Div", &Arithmetic(Operation::Div), POINTWISE),
    row("Dropout", &FirstInput, POINTWISE),
    row(
        "DynamicQuantizeLinear",
        &Dynamic,
        "every axis: the range includes 0, so a channel that is zero does not move it",
    ),
    row("Einsum", &Einsum, "every axis of every operand; the axes of a diagonal are locked"),
    row("Elu", &Elementwise, POINTWISE),
    row("Equal", &Arithmetic(Operation::Equal), POINTWISE),
    row("Erf", &Elementwise, POINTWISE),
    row("Exp", &Elementwise, POINTWISE),
    shaped("Expand", &Expand, &[1], "every axis, repeated ones too"),
    row("Flatten", &Flatten, "every axis; merged ones shrink by their parts"),
    row("Floor", &Elementwise, POINTWISE),
    row("GRU", &Recurrent::Gru, RECURRENT),
    shaped(
        "Gather",
        &Gather,
        &[1],
        "constant indices: runs of neighbours; computed indices lock the axis; other axes pass",
    ),
    row("GatherElements", &GatherElements, "the gathered axis is locked, the others pass"),
    row("Gelu", &Elementwise, POINTWISE),
    row("Gemm", &Gemm, CONTRACTION),
    row("GlobalAveragePool", &GlobalPool, POOL),
    row("GlobalLpPool", &GlobalPool, POOL),
    row("GlobalMaxPool", &GlobalPool, POOL),
    row("Greater", &Arithmetic(Operation::Greater), POINTWISE),
    row("GreaterOrEqual", &Arithmetic(Operation::GreaterOrEqual), POINTWISE),
    row("GridSample", &GridSample, "channels pass through; batch and space are locked"),
    row(
        "GroupNormalization",
        &GroupNormalization,
        "whole groups may go; the channels inside a group and the spatial axes are locked",
    ),
    row("HardSigmoid", &Elementwise, POINTWISE),
    row("HardSwish", &Elementwise, POINTWISE),
    row(
        "Hardmax",
        &Softmax,
        "the compared axes are locked (before operator set 13 all from `axis` on), the others pass through",
    ),
    row("Identity", &Arithmetic(Operation::Identity), POINTWISE),
    row("If", &If, "inside the branches too; an axis that both branches return alike is one axis"),
    row("InstanceNormalization", &InstanceNormalization, "batch and channels pass through; spatial axes are locked"),
    row("IsInf", &Elementwise, POINTWISE),
    row("IsNaN", &Elementwise, POINTWISE),
    row("LRN", &LocalResponse, "the channel axis is locked, the others pass through"),
    row("LSTM", &Recurrent::Lstm, RECURRENT),
    row("LayerNormalization", &LayerNormalization, "the normalised axes are locked, the others pass through"),
    row("LeakyRelu", &Elementwise, POINTWISE),
    row("Less", &Arithmetic(Operation::Less), POINTWISE),
    row("LessOrEqual", &Arithmetic(Operation::LessOrEqual), POINTWISE),
    row("Log", &Elementwise, POINTWISE),
    row(
        "LogSoftmax",
        &Softmax,
        "the compared axes are locked (before operator set 13 all from `axis` on), the others pass through",
    ),
    row(
        "Loop",
        &Loop,
        "inside the body too; a state keeps its axes if every iteration returns the extent that it took",
    ),
    row(
        "LpNormalization",
        &LpNormalization,
        "every axis passes through: a sum of powers does not see a channel that is zero",
    ),
    row("LpPool", &Pool, POOL),
    row("MatMul", &MatMul, CONTRACTION),
    row("MatMulInteger", &QuantizedMatMul(Form::Integer), QUANTIZED_PRODUCT),
    row("Max", &Arithmetic(Operation::Max), POINTWISE),
    row("MaxPool", &Pool, "channels pass through; spatial axes are locked; refused if it gives indices"),
    row("Mean", &Elementwise, POINTWISE),
    row("MeanVarianceNormalization", &MeanVariance, "the normalised axes are locked, the others pass through"),
    row("Min", &Arithmetic(Operation::Min), POINTWISE),
    row("Mish", &Elementwise, POINTWISE),
    row("Mod", &Arithmetic(Operation::Mod), POINTWISE),
    row("Mul", &Arithmetic(Operation::Mul), POINTWISE),
    row("Neg", &Arithmetic(Operation::Neg), POINTWISE),
    row("Not", &Arithmetic(Operation::Not), POINTWISE),
    shaped("OneHot", &OneHot, &[1], "the axes of the indices pass, the depth is locked"),
    row("Or", &Arithmetic(Operation::Or), POINTWISE),
    row("PRelu", &PRelu, "every axis passes through; the slope follows"),
    shaped("Pad", &Pad, &[1, 3], "every axis, padded parts too; reflected, repeated and wrapped axes are locked"),
    row("Pow", &Elementwise, POINTWISE),
    row("QLinearConv", &QuantizedConv(Form::Linear), QUANTIZED_CONVOLUTION),
    row("QLinearMatMul", &QuantizedMatMul(Form::Linear), QUANTIZED_PRODUCT),
    row("QuantizeLinear", &Quantize, LINEAR),
    row("RMSNormalization", &RootMeanSquare { skip: false }, ROOT_MEAN_SQUARE),
    row("RNN", &Recurrent::Rnn, RECURRENT),
    shaped("Range", &Range, &[0, 1, 2], "nothing"),
    row("Reciprocal", &Elementwise, POINTWISE),
    shaped("ReduceL1", &Reduce::Additive, &[1], ADDITIVE),
    shaped("ReduceL2", &Reduce::Additive, &[1], ADDITIVE),
    shaped("ReduceLogSum", &Reduce::Additive, &[1], ADDITIVE),
    shaped("ReduceLogSumExp", &Reduce::Locking, &[1], REDUCTION),
    shaped("ReduceMax", &Reduce::Max, &[1], REDUCTION),
    shaped("ReduceMean", &Reduce::Mean, &[1], "every axis, the averaged ones too: the mean is rescaled"),
    shaped("ReduceMin", &Reduce::Min, &[1], REDUCTION),
    shaped("ReduceProd", &Reduce::Product, &[1], REDUCTION),
    shaped("ReduceSum", &Reduce::Sum, &[1], ADDITIVE),
    shaped("ReduceSumSquare", &Reduce::Additive, &[1], ADDITIVE),
    row("Relu", &Elementwise, POINTWISE),
    shaped("Reshape", &Reshape, &[1], "every axis, split and merged; locked where the target cuts across channels"),
    shaped("Resize", &Resize, &[3], "axes that keep their extent; interpolated ones are locked"),
    row("RotaryEmbedding", &RotaryEmbedding { cosine: None }, ROTARY),
    row("Round", &Elementwise, POINTWISE),
    row("Scan", &Scan, "inside the body too, states as those of Loop; what is scanned is locked"),
    shaped("Scatter", &Scatter, &[1], "every axis of the data is locked; its shape is known"),
    shaped("ScatterElements", &Scatter, &[1], "every axis of the data is locked; its shape is known"),
    shaped("ScatterND", &Scatter, &[1], "every axis of the data is locked; its shape is known"),
    row("Selu", &Elementwise, POINTWISE),
    row("Shape", &Shape, "every axis; the result follows"),
    row("Shrink", &Elementwise, POINTWISE),
    row("Sigmoid", &Elementwise, POINTWISE),
    row("Sign", &Elementwise, POINTWISE),
    row("SimplifiedLayerNormalization", &RootMeanSquare { skip: false }, ROOT_MEAN_SQUARE),
    row("Sin", &Elementwise, POINTWISE),
    row("Sinh", &Elementwise, POINTWISE),
    row("Size", &Size, "every axis; the result follows"),
    shaped(
        "Slice",
        &Slice,
        &[1, 2, 3, 4],
        "the parts inside and outside the range; computed and reversed slices lock the axis",
    ),
    row(
        "Softmax",
        &Softmax,
        "the compared axes are locked (before operator set 13 all from `axis` on), the others pass through",
    ),
    row("Softplus", &Elementwise, POINTWISE),
    row("Softsign", &Elementwise, POINTWISE),
    row("SpaceToDepth", &SpaceToDepth, "channels outside the block; the block is locked"),
    shaped("Split", &Split, &[1], "the parts of the split axis, each by itself; every other axis passes"),
    row("Sqrt", &Elementwise, POINTWISE),
    shaped("Squeeze", &Squeeze, &[1], "every axis"),
    row("Sub", &Arithmetic(Operation::Sub), POINTWISE),
    row("Sum", &Elementwise, POINTWISE),
    row("Swish", &Elementwise, POINTWISE),
    row("Tan", &Elementwise, POINTWISE),
    row("Tanh", &Elementwise, POINTWISE),
    row("ThresholdedRelu", &Elementwise, POINTWISE),
    shaped("Tile", &Tile, &[1], "every axis; the number of copies is locked"),
    row("TopK", &TopK, "the sorted axis is locked, the others pass through"),
    row("Transpose", &Transpose, "every axis"),
    shaped("Trilu", &Trilu, &[1], "the last two axes are locked, the others pass through"),
    shaped("Unsqueeze", &Unsqueeze, &[1], "every axis"),
    row("Upsample", &Upsample, "axes that keep their extent; interpolated ones are locked"),
    row("Where", &Arithmetic(Operation::Where), POINTWISE),
    row("Xor", &Elementwise, POINTWISE),
    microsoft("Attention", &ProjectedAttention, ATTENTION),
    microsoft("BiasGelu", &Elementwise, POINTWISE),
    microsoft("EmbedLayerNormalization", &EmbedLayerNormalization, "nothing; the shape of what is looked up is known"),
    microsoft("FastGelu", &Elementwise, POINTWISE),
    microsoft("FusedConv", &FusedConv, CONVOLUTION),
    microsoft("FusedGemm", &Gemm, CONTRACTION),
    microsoft("FusedMatMul", &FusedMatMul, CONTRACTION),
    microsoft("Gelu", &Elementwise, POINTWISE),
    microsoft(
        "GroupQueryAttention",
        &GroupQueryAttention,
        "whole groups of heads and heads of every group; positions and what is inside a head are locked",
    ),
    microsoft("MultiHeadAttention", &MultiHeadAttention, ATTENTION),
    microsoft("QuickGelu", &Elementwise, POINTWISE),
    microsoft("RotaryEmbedding", &RotaryEmbedding { cosine: Some(2) }, ROTARY),
    microsoft("SkipLayerNormalization", &SkipLayerNormalization, SKIP),
    microsoft("SkipSimplifiedLayerNormalization", &RootMeanSquare { skip: true }, ROOT_MEAN_SQUARE),
];

/// The row of an operator, or `None` if it is opaque.
pub fn rule_for(domain: &str, op_type: &str) -> Option<&'static Row> {
    let at = RULES.binary_search_by(|row| (row.domain, row.op_type).cmp(&(domain, op_type))).ok()?;
    RULES.get(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_unique() {
        for pair in RULES.windows(2) {
            assert!(
                (pair[0].domain, pair[0].op_type) < (pair[1].domain, pair[1].op_type),
                "{} and {} are out of order",
                pair[0].op_type,
                pair[1].op_type
            );
        }
    }
}
