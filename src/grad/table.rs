//! The table: one row per operator that gradients pass, sorted by domain and operator.

use super::Gradients;
use super::context::Context;
use super::rules::{
    activation, arithmetic, attention, blocks, conv, curves, einsum, embedding, fused, linear, local, normalise, pad,
    pool, quantise, rearrange, recurrent, reduce, resize, rotary, sampling, scatter, selection, transforms, transposed,
};
use super::step::Step;

/// An operator and its rule.
pub struct Row {
    /// The domain; empty for that of ONNX.
    pub domain: &'static str,
    /// The operator.
    pub op_type: &'static str,
    /// What is covered and what stops gradients.
    pub note: &'static str,
    rule: Rule,
}

type Rule = fn(&Step, &mut Context) -> Gradients;

const fn row(op_type: &'static str, rule: Rule, note: &'static str) -> Row {
    Row { domain: "", op_type, note, rule }
}

const fn microsoft(op_type: &'static str, rule: Rule, note: &'static str) -> Row {
    Row { domain: "com.microsoft", op_type, note, rule }
}

/// All rules.
pub const GRADIENTS: &[Row] = &[
    row("Abs", activation::absolute, "all"),
    row("Acos", curves::arc_cosine, "all"),
    row("Acosh", curves::area_cosine, "all"),
    row("Add", arithmetic::add, "all"),
    row("AffineGrid", sampling::affine_grid, "all"),
    row("Asin", curves::arc_sine, "all"),
    row("Asinh", curves::area_sine, "all"),
    row("Atan", curves::arc_tangent, "all"),
    row("Atanh", curves::area_tangent, "all"),
    row(
        "Attention",
        attention::standard,
        "all but scores between scale and softmax as an output, and `is_causal` with lengths",
    ),
    row("AveragePool", pool::average, "all"),
    row("BatchNormalization", normalise::batch, "the form with stored statistics"),
    row("Cast", activation::cast, "between floating-point types"),
    row("CastLike", activation::cast_like, "between floating-point types"),
    row("Celu", curves::celu, "all"),
    row("CenterCropPad", selection::crop, "all"),
    row("Clip", activation::clip, "the input; bounds get none"),
    row("Col2Im", selection::columns, "constant blocks"),
    row("Compress", selection::compress, "all"),
    row("Concat", rearrange::concat, "all"),
    row("Conv", conv::conv, "all ranks, groups, strides, dilations and pads"),
    row(
        "ConvTranspose",
        transposed::conv_transpose,
        "all but outputs that are larger than their windows reach, and `output_padding` that is no less than the stride",
    ),
    row("Cos", curves::cosine, "all"),
    row("Cosh", curves::hyperbolic_cosine, "all"),
    row("CumSum", blocks::running_sum, "all"),
    row("DFT", transforms::fourier, "all but lengths of their own and real inverses"),
    row("DeformConv", sampling::deformed, "two axes of space, from operator set 16; offsets and mask as well"),
    row("DepthToSpace", blocks::depth_to_space, "all"),
    row(
        "DequantizeLinear",
        quantise::dequantise,
        "integers get the gradient of what they stand for; scales per tensor or axis",
    ),
    row("Div", arithmetic::divide, "all"),
    row("Dropout", activation::dropout, "the form for inference"),
    row("Einsum", einsum::einsum, "all"),
    row("Elu", activation::elu, "all"),
    row("Erf", activation::error_function, "all"),
    row("Exp", activation::exponential, "all"),
    row("Expand", rearrange::expand, "all"),
    row("Flatten", rearrange::reshape, "all"),
    row("GRU", recurrent::gru, "unrolled for the measured length; all but batches in front (`layout`)"),
    row("Gather", rearrange::gather, "all; a one-hot matrix of the indices is made"),
    row("GatherElements", scatter::gather_elements, "from operator set 16"),
    row("GatherND", scatter::gather_nd, "from operator set 16"),
    row("Gelu", activation::gelu, "all"),
    row("Gemm", linear::gemm, "all"),
    row("GlobalAveragePool", pool::global_average, "all"),
    row("GlobalLpPool", local::global, "all"),
    row("GlobalMaxPool", reduce::global_maximum, "all; equal entries share"),
    row("GridSample", sampling::grid_sample, "all modes and paddings, from operator set 16; the grid as well"),
    row("GroupNormalization", normalise::group, "all"),
    row("HardSigmoid", activation::hard_sigmoid, "all"),
    row("HardSwish", activation::hard_swish, "all"),
    row("Identity", activation::identity, "all"),
    row("InstanceNormalization", normalise::instance, "all"),
    row("LRN", local::response, "all"),
    row("LSTM", recurrent::lstm, "unrolled for the measured length; all but batches in front (`layout`)"),
    row("LayerNormalization", normalise::layer, "the first output"),
    row("LeakyRelu", activation::leaky_relu, "all"),
    row("Log", activation::logarithm, "all"),
    row("LogSoftmax", reduce::log_softmax, "all"),
    row("LpNormalization", reduce::unit_length, "all"),
    row("LpPool", local::pool, "all but `ceil_mode`"),
    row("MatMul", linear::matmul, "all"),
    row("Max", arithmetic::extreme, "all; equal inputs share"),
    row("MaxPool", pool::maximum, "all; before operator set 16, windows that overlap at most 64 times"),
    row("Mean", arithmetic::mean, "all"),
    row("MeanVarianceNormalization", normalise::mean_variance, "all"),
    row("Min", arithmetic::extreme, "all; equal inputs share"),
    row("Mish", curves::mish, "all"),
    row("Mul", arithmetic::multiply, "all"),
    row("Neg", activation::negate, "all"),
    row("PRelu", arithmetic::sloped, "all"),
    row("Pad", pad::pad, "all modes; the constant gets none, pads of the other modes are constant"),
    row("Pow", arithmetic::power, "all; an exponent that needs a gradient has the type of the base"),
    row("QuantizeLinear", quantise::quantise, "straight through, as if nothing were rounded or cut off"),
    row("RMSNormalization", normalise::root_mean_square, "all"),
    row("RNN", recurrent::rnn, "unrolled for the measured length; all but batches in front (`layout`)"),
    row("Reciprocal", activation::reciprocal, "all"),
    row("ReduceL1", reduce::absolute, "constant axes"),
    row("ReduceL2", reduce::length, "constant axes; 0 where the length is"),
    row("ReduceLogSum", reduce::log_sum, "constant axes"),
    row("ReduceLogSumExp", reduce::log_sum_exp, "constant axes"),
    row("ReduceMax", reduce::extreme, "constant axes; equal entries share"),
    row("ReduceMean", reduce::mean, "constant axes"),
    row("ReduceMin", reduce::extreme, "constant axes; equal entries share"),
    row("ReduceProd", reduce::product, "constant axes"),
    row("ReduceSum", reduce::sum, "constant axes"),
    row("ReduceSumSquare", reduce::squares, "constant axes"),
    row("Relu", activation::relu, "all"),
    row("Reshape", rearrange::reshape, "all"),
    row(
        "Resize",
        resize::resize,
        "nearest, linear and cubic with constant scales; no crop boxes, no `antialias`, no kept aspect ratio",
    ),
    row("ReverseSequence", selection::reverse, "all"),
    row("RoiAlign", sampling::regions, "averages with a given `sampling_ratio`, from operator set 16; regions as well"),
    row("RotaryEmbedding", rotary::standard, "the input; tables get none"),
    row("ScatterElements", scatter::scatter_elements, "without reduction, or by adding"),
    row("ScatterND", scatter::scatter_nd, "without reduction, or by adding"),
    row("Selu", activation::selu, "all"),
    row("Shrink", curves::shrink, "all"),
    row("Sigmoid", activation::sigmoid, "all"),
    row("SimplifiedLayerNormalization", normalise::root_mean_square, "the first output"),
    row("Sin", curves::sine, "all"),
    row("Sinh", curves::hyperbolic_sine, "all"),
    row("Slice", rearrange::slice, "constant axes"),
    row("Softmax", reduce::softmax, "all"),
    row("Softplus", activation::softplus, "all"),
    row("Softsign", curves::softsign, "all"),
    row("SpaceToDepth", blocks::space_to_depth, "all"),
    row("Split", rearrange::split, "all"),
    row("Sqrt", activation::root, "all"),
    row("Squeeze", rearrange::reshape, "all"),
    row("Sub", arithmetic::subtract, "all"),
    row("Sum", arithmetic::add, "all"),
    row("Swish", curves::swish, "all"),
    row("Tan", curves::tangent, "all"),
    row("Tanh", activation::tanh, "all"),
    row("ThresholdedRelu", curves::thresholded_relu, "all"),
    row("Tile", blocks::tile, "all"),
    row("TopK", scatter::largest, "the values, where the indices are outputs as well"),
    row("Transpose", rearrange::transpose, "all"),
    row("Trilu", blocks::triangle, "all"),
    row("Unsqueeze", rearrange::reshape, "all"),
    row("Where", arithmetic::choose, "both values"),
    microsoft("Attention", attention::packed, "all but rotation and a past of a length of its own"),
    microsoft("BiasGelu", fused::bias_gelu, "all"),
    microsoft("EmbedLayerNormalization", embedding::embedded, "all"),
    microsoft("ExpandDims", rearrange::reshape, "all"),
    microsoft("FastGelu", fused::fast_gelu, "all"),
    microsoft("FusedConv", fused::convolution, "all"),
    microsoft("FusedGemm", fused::gemm, "all"),
    microsoft("FusedMatMul", linear::fused_matmul, "all but transposed batches"),
    microsoft("GatherND", scatter::gather_nd, "from operator set 16"),
    microsoft("Gelu", activation::gelu, "all"),
    microsoft("GridSample", sampling::grid_sample, "all modes and paddings, from operator set 16; the grid as well"),
    microsoft("Inverse", transforms::inverse, "all"),
    microsoft(
        "MultiHeadAttention",
        attention::multi_head,
        "queries, keys and values apart; no past of a length of its own, no scores as an output",
    ),
    microsoft("Pad", pad::pad, "all modes; the constant gets none, pads of the other modes are constant"),
    microsoft("QuickGelu", curves::quick_gelu, "all"),
    microsoft("RotaryEmbedding", rotary::microsoft, "the input; tables get none"),
    microsoft("SkipLayerNormalization", fused::skip_layer, "outputs 0 and 3"),
    microsoft("SkipSimplifiedLayerNormalization", fused::skip_root_mean_square, "outputs 0 and 3"),
    microsoft("TransposeMatMul", linear::fused_matmul, "all but transposed batches"),
    microsoft("Trilu", blocks::triangle, "from operator set 14"),
];

/// Operators that hand quantised numbers on as they are, or back; their rules do not look at the numbers.
pub(super) const MOVING: &[&str] = &[
    "Concat",
    "DepthToSpace",
    "DequantizeLinear",
    "Expand",
    "Flatten",
    "Identity",
    "Pad",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// The rule of an operator.
pub(super) fn rule_for(domain: &str, op_type: &str) -> Option<Rule> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    let found = GRADIENTS.binary_search_by(|row| (row.domain, row.op_type).cmp(&(domain, op_type)));
    found.ok().and_then(|index| GRADIENTS.get(index)).map(|row| row.rule)
}
