//! The table: one row per operator that gradients pass, sorted by domain and operator.

use super::Gradients;
use super::context::Context;
use super::rules::{activation, arithmetic, conv, linear, normalise, pool, rearrange, reduce};
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

/// All rules.
pub const GRADIENTS: &[Row] = &[
    row("Abs", activation::absolute, "all"),
    row("Add", arithmetic::add, "all"),
    row("AveragePool", pool::average, "all but `ceil_mode`"),
    row("BatchNormalization", normalise::batch, "the form with stored statistics"),
    row("Cast", activation::cast, "between floating-point types"),
    row("Clip", activation::clip, "the input; bounds get none"),
    row("Concat", rearrange::concat, "all"),
    row("Conv", conv::conv, "all ranks, groups, strides, dilations and pads"),
    row("ConvTranspose", conv::transposed, "all but `output_shape` and `auto_pad`"),
    row("Div", arithmetic::divide, "all"),
    row("Dropout", activation::dropout, "the form for inference"),
    row("Elu", activation::elu, "all"),
    row("Erf", activation::error_function, "all"),
    row("Exp", activation::exponential, "all"),
    row("Expand", rearrange::expand, "all"),
    row("Flatten", rearrange::reshape, "all"),
    row("Gather", rearrange::gather, "all; a one-hot matrix of the indices is made"),
    row("Gelu", activation::gelu, "the form with the error function"),
    row("Gemm", linear::gemm, "all"),
    row("GlobalAveragePool", pool::global_average, "all"),
    row("HardSigmoid", activation::hard_sigmoid, "all"),
    row("HardSwish", activation::hard_swish, "all"),
    row("Identity", activation::identity, "all"),
    row("InstanceNormalization", normalise::instance, "all"),
    row("LayerNormalization", normalise::layer, "the first output"),
    row("LeakyRelu", activation::leaky_relu, "all"),
    row("Log", activation::logarithm, "all"),
    row("LogSoftmax", reduce::log_softmax, "from operator set 13, or over the last axis"),
    row("MatMul", linear::matmul, "all but vectors"),
    row("Max", arithmetic::extreme, "all; equal inputs share"),
    row("MaxPool", pool::maximum, "windows that do not overlap, from operator set 16 all"),
    row("Min", arithmetic::extreme, "all; equal inputs share"),
    row("Mul", arithmetic::multiply, "all"),
    row("Neg", activation::negate, "all"),
    row("PRelu", arithmetic::sloped, "all"),
    row("Pad", rearrange::pad, "constant mode, constant pads of all axes; the constant gets none"),
    row("Pow", arithmetic::power, "base and exponent of one type"),
    row("Reciprocal", activation::reciprocal, "all"),
    row("ReduceMax", reduce::extreme, "constant axes; equal entries share"),
    row("ReduceMean", reduce::mean, "constant axes"),
    row("ReduceMin", reduce::extreme, "constant axes; equal entries share"),
    row("ReduceSum", reduce::sum, "constant axes"),
    row("Relu", activation::relu, "all"),
    row("Reshape", rearrange::reshape, "all"),
    row("Selu", activation::selu, "all"),
    row("Sigmoid", activation::sigmoid, "all"),
    row("Slice", rearrange::slice, "constant axes"),
    row("Softmax", reduce::softmax, "from operator set 13, or over the last axis"),
    row("Softplus", activation::softplus, "all"),
    row("Split", rearrange::split, "all"),
    row("Sqrt", activation::root, "all"),
    row("Squeeze", rearrange::reshape, "all"),
    row("Sub", arithmetic::subtract, "all"),
    row("Sum", arithmetic::add, "all"),
    row("Tanh", activation::tanh, "all"),
    row("Transpose", rearrange::transpose, "all"),
    row("Unsqueeze", rearrange::reshape, "all"),
    row("Where", arithmetic::choose, "both values"),
];

/// The rule of an operator.
pub(super) fn rule_for(domain: &str, op_type: &str) -> Option<Rule> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    let found = GRADIENTS.binary_search_by(|row| (row.domain, row.op_type).cmp(&(domain, op_type)));
    found.ok().and_then(|index| GRADIENTS.get(index)).map(|row| row.rule)
}
