//! The table of operators: one row each, in alphabetical order.
//!
//! docs/operators.md is generated from it and a test keeps it sorted and unique.

use super::Row;
use super::arithmetic::{Arithmetic, Operation};
use super::attention::{Attention, RotaryEmbedding};
use super::bodies::{If, Loop, Scan};
use super::concat::Concat;
use super::conv::{Conv, ConvTranspose};
use super::deform::DeformConv;
use super::einsum::Einsum;
use super::elementwise::{BitCast, Elementwise, FirstInput, PRelu};
use super::expand::{Expand, Tile};
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
use super::random::Drawn;
use super::recurrent::Recurrent;
use super::reduce::{ArgExtreme, Reduce};
use super::regions::{CenterCropPad, Col2Im};
use super::reshape::{Flatten, Reshape};
use super::resize::{Resize, Upsample};
use super::root_mean_square::RootMeanSquare;
use super::sample::{AffineGrid, GridSample};
use super::scatter::{ScatterElements, ScatterNd, Trilu};
use super::selection::{Compress, GatherNd, NonZero, ReverseSequence, TensorScatter, Unique};
use super::shapes::{ConstantOfShape, OneHot, Range, Shape, Size};
use super::shuffle::{DepthToSpace, SpaceToDepth};
use super::slice::Slice;
use super::softmax::Softmax;
use super::spectral::{Dft, MelWeightMatrix, Stft};
use super::split::Split;
use super::squeeze::{Squeeze, Unsqueeze};
use super::transpose::Transpose;
use super::written::Locked;
use super::{conv, fused, random, regions, sample, spectral, table_microsoft, table_ml};

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

/// An operator that is locked as a whole.
const fn locked(op_type: &'static str, rule: &'static Locked) -> Row {
    Row { domain: "", op_type, rule, shape_inputs: &[], note: rule.0 }
}

const TABLES: [&[Row]; 3] = [ROWS, table_ml::ROWS, table_microsoft::ROWS];
const COUNT: usize = TABLES[0].len() + TABLES[1].len() + TABLES[2].len();

/// Every operator that is looked at, sorted by domain and name.
pub static RULES: &[Row] = &{
    let mut rows = [TABLES[0][0]; COUNT];
    let (mut table, mut at, mut next) = (0, 0, 0);
    while table < TABLES.len() {
        while at < TABLES[table].len() {
            rows[next] = TABLES[table][at];
            (at, next) = (at + 1, next + 1);
        }
        (table, at) = (table + 1, 0);
    }
    rows
};

const ADDITIVE: &str = "every axis, the summed ones too: a sum does not see a channel that is zero";
pub(super) const ATTENTION: &str = "whole heads, the values inside a head, and if `scale` is given queries and keys inside a head; positions are locked";
pub(super) const CONTRACTION: &str = "every axis of both operands";
pub(super) const CONVOLUTION: &str =
    "input and output channels, also of grouped and depthwise convolutions; batch and spatial axes are locked";
pub(super) const FOURIER: &str = "the axes beside the transformed ones";
pub(super) const LINEAR: &str = "every axis; vectors of scales follow their axis, blocks go as a whole";
pub(super) const QUANTIZED_CONVOLUTION: &str =
    "as Conv; channels summed over are locked unless it is known which number of the input is zero";
pub(super) const QUANTIZED_PRODUCT: &str =
    "as MatMul; the contracted axis is locked unless it is known which number of a computed operand is zero";
pub(super) const POINTWISE: &str = "every axis passes through; broadcasting is followed";
pub(super) const POOL: &str = "channels pass through; batch and spatial axes are locked";
pub(super) const RECURRENT: &str =
    "inputs and hidden units, `hidden_size` follows; time, batch, directions and gates are locked";
pub(super) const ROOT_MEAN_SQUARE: &str =
    "every axis, the normalised ones too: `epsilon` follows, and the output is multiplied by a factor";
pub(super) const ROTARY: &str = "whole heads; what is inside a head is locked, positions too";
pub(super) const SKIP: &str = "the last axis is locked, the others pass through";
pub(super) const REDUCTION: &str = "the reduced axes are locked, the others pass through";
pub(super) const REGIONS: &str = "channels pass through; batch, space and regions are locked";
const LOSS: &str = "nothing: it is a loss, which only training computes";
const OPTIONAL: &str = "nothing: an optional value is no tensor";
const RANDOM: &str = "nothing: random numbers are drawn one after the other";
const SEQUENCE: &str = "nothing: a sequence of tensors is no tensor";
const SUBGRAPH: &str = "nothing: it runs a graph of its own on sequences";
const TEXT: &str = "nothing: it works on text, which has no channels";
const WRITTEN: &str = "all but the axis that is written to, where updates are as long as the data";

/// The operators of ai.onnx.
const ROWS: &[Row] = &[
    row("Abs", &Arithmetic(Operation::Abs), POINTWISE),
    row("Acos", &Elementwise, POINTWISE),
    row("Acosh", &Elementwise, POINTWISE),
    row("Add", &Arithmetic(Operation::Add), POINTWISE),
    shaped("AffineGrid", &AffineGrid, &[1], "nothing: positions are counted along every axis"),
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
    row("Bernoulli", &random::DRAWN_LIKE, RANDOM),
    row("BitCast", &BitCast, "every axis where the types are equally wide"),
    row("BitShift", &Elementwise, POINTWISE),
    row("BitwiseAnd", &Elementwise, POINTWISE),
    row("BitwiseNot", &Elementwise, POINTWISE),
    row("BitwiseOr", &Elementwise, POINTWISE),
    row("BitwiseXor", &Elementwise, POINTWISE),
    shaped("BlackmanWindow", &spectral::WINDOW, &[0], "nothing: it counts the samples of a window"),
    row("Cast", &Arithmetic(Operation::Cast), POINTWISE),
    row("CastLike", &FirstInput, POINTWISE),
    row(
        "CausalConvWithState",
        &conv::CAUSAL,
        "channels pass through with their kernels; batch and positions are locked",
    ),
    row("Ceil", &Arithmetic(Operation::Ceil), POINTWISE),
    row("Celu", &Elementwise, POINTWISE),
    shaped("CenterCropPad", &CenterCropPad, &[1], "axes that are not cut or padded"),
    row("Clip", &FirstInput, POINTWISE),
    shaped("Col2Im", &Col2Im, &[1, 2], "channels pass through; the positions inside a block and space are locked"),
    row("Compress", &Compress, "the axes beside the one along which slices are selected"),
    row("Concat", &Concat, "the parts of the joined axis, each by itself; every other axis passes"),
    locked("ConcatFromSequence", &Locked(SEQUENCE)),
    locked("Constant", &Locked("nothing: its value is no dense tensor of numbers")),
    shaped("ConstantOfShape", &ConstantOfShape, &[0], "every axis of known extent"),
    row("Conv", &Conv, CONVOLUTION),
    row("ConvInteger", &QuantizedConv(Form::Integer), QUANTIZED_CONVOLUTION),
    row("ConvTranspose", &ConvTranspose, CONVOLUTION),
    row("Cos", &Elementwise, POINTWISE),
    row("Cosh", &Elementwise, POINTWISE),
    shaped("CumProd", &Cumulative, &[1], "the axis it runs along is locked, the others pass through"),
    shaped("CumSum", &Cumulative, &[1], "the axis it runs along is locked, the others pass through"),
    shaped("DFT", &Dft, &[1, 2], FOURIER),
    row("DeformConv", &DeformConv, CONVOLUTION),
    row("DepthToSpace", &DepthToSpace, "channels outside the block; the block is locked"),
    row("DequantizeLinear", &Dequantize, LINEAR),
    row("Det", &fused::DETERMINANT, "the axes of a stack; the matrices are locked"),
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
    row("EyeLike", &sample::EYE, "nothing: a diagonal compares its indices"),
    row("Flatten", &Flatten, "every axis; merged ones shrink by their parts"),
    row("Floor", &Arithmetic(Operation::Floor), POINTWISE),
    row("GRU", &Recurrent::Gru, RECURRENT),
    shaped(
        "Gather",
        &Gather,
        &[1],
        "constant indices: runs of neighbours; computed indices lock the axis; other axes pass",
    ),
    row("GatherElements", &GatherElements, "the gathered axis is locked, the others pass"),
    row("GatherND", &GatherNd, "the axes behind the indexed ones"),
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
    shaped("HammingWindow", &spectral::WINDOW, &[0], "nothing: it counts the samples of a window"),
    shaped("HannWindow", &spectral::WINDOW, &[0], "nothing: it counts the samples of a window"),
    row("HardSigmoid", &Elementwise, POINTWISE),
    row("HardSwish", &Elementwise, POINTWISE),
    row(
        "Hardmax",
        &Softmax,
        "the compared axes are locked (before operator set 13 all from `axis` on), the others pass through",
    ),
    row("Identity", &Arithmetic(Operation::Identity), POINTWISE),
    row("If", &If, "inside the branches too; an axis that both branches return alike is one axis"),
    locked("ImageDecoder", &Locked("nothing: it reads an encoded picture, byte by byte")),
    row("InstanceNormalization", &InstanceNormalization, "batch and channels pass through; spatial axes are locked"),
    row("IsInf", &Elementwise, POINTWISE),
    row("IsNaN", &Elementwise, POINTWISE),
    row("LRN", &LocalResponse, "the channel axis is locked, the others pass through"),
    row("LSTM", &Recurrent::Lstm, RECURRENT),
    row("LayerNormalization", &LayerNormalization, "the normalised axes are locked, the others pass through"),
    row("LeakyRelu", &Elementwise, POINTWISE),
    row("Less", &Arithmetic(Operation::Less), POINTWISE),
    row("LessOrEqual", &Arithmetic(Operation::LessOrEqual), POINTWISE),
    locked("LinearAttention", &Locked("nothing: its recurrent state is not described")),
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
    row("MaxRoiPool", &regions::MAX_ROI_POOL, REGIONS),
    locked("MaxUnpool", &Locked("nothing: its indices count positions over all channels")),
    row("Mean", &Elementwise, POINTWISE),
    row("MeanVarianceNormalization", &MeanVariance, "the normalised axes are locked, the others pass through"),
    shaped("MelWeightMatrix", &MelWeightMatrix, &[0, 1, 2], "nothing: it counts frequencies"),
    row("Min", &Arithmetic(Operation::Min), POINTWISE),
    row("Mish", &Elementwise, POINTWISE),
    row("Mod", &Arithmetic(Operation::Mod), POINTWISE),
    row("Mul", &Arithmetic(Operation::Mul), POINTWISE),
    row("Multinomial", &random::MULTINOMIAL, RANDOM),
    row("Neg", &Arithmetic(Operation::Neg), POINTWISE),
    locked("NegativeLogLikelihoodLoss", &Locked(LOSS)),
    shaped("NonMaxSuppression", &regions::NON_MAX_SUPPRESSION, &[2], "nothing: boxes are selected by their scores"),
    row("NonZero", &NonZero, "nothing: its elements are counted"),
    row("Not", &Arithmetic(Operation::Not), POINTWISE),
    shaped("OneHot", &OneHot, &[1], "the axes of the indices pass, the depth is locked"),
    locked("Optional", &Locked(OPTIONAL)),
    locked("OptionalGetElement", &Locked(OPTIONAL)),
    locked("OptionalHasElement", &Locked(OPTIONAL)),
    row("Or", &Arithmetic(Operation::Or), POINTWISE),
    row("PRelu", &PRelu, "every axis passes through; the slope follows"),
    shaped("Pad", &Pad, &[1, 3], "every axis, padded parts too; reflected, repeated and wrapped axes are locked"),
    row("Pow", &Elementwise, POINTWISE),
    row("QLinearConv", &QuantizedConv(Form::Linear), QUANTIZED_CONVOLUTION),
    row("QLinearMatMul", &QuantizedMatMul(Form::Linear), QUANTIZED_PRODUCT),
    row("QuantizeLinear", &Quantize, LINEAR),
    row("RMSNormalization", &RootMeanSquare { skip: false }, ROOT_MEAN_SQUARE),
    row("RNN", &Recurrent::Rnn, RECURRENT),
    row("RandomNormal", &Drawn, RANDOM),
    row("RandomNormalLike", &random::DRAWN_LIKE, RANDOM),
    row("RandomUniform", &Drawn, RANDOM),
    row("RandomUniformLike", &random::DRAWN_LIKE, RANDOM),
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
    locked("RegexFullMatch", &Locked(TEXT)),
    row("Relu", &Elementwise, POINTWISE),
    shaped("Reshape", &Reshape, &[1], "every axis, split and merged; locked where the target cuts across channels"),
    shaped("Resize", &Resize, &[3], "axes that keep their extent; interpolated ones are locked"),
    shaped("ReverseSequence", &ReverseSequence, &[1], "the axes beside batch and time"),
    row("RoiAlign", &regions::ROI_ALIGN, REGIONS),
    row("RotaryEmbedding", &RotaryEmbedding { cosine: None }, ROTARY),
    row("Round", &Arithmetic(Operation::Round), POINTWISE),
    shaped("STFT", &Stft, &[1, 3], "nothing: a Fourier transform sums over its frames"),
    row("Scan", &Scan, "inside the body too, states as those of Loop; what is scanned is locked"),
    row("Scatter", &ScatterElements, WRITTEN),
    row("ScatterElements", &ScatterElements, WRITTEN),
    row("ScatterND", &ScatterNd, "the axes behind the indexed ones"),
    row("Selu", &Elementwise, POINTWISE),
    locked("SequenceAt", &Locked(SEQUENCE)),
    locked("SequenceConstruct", &Locked(SEQUENCE)),
    locked("SequenceEmpty", &Locked(SEQUENCE)),
    locked("SequenceErase", &Locked(SEQUENCE)),
    locked("SequenceInsert", &Locked(SEQUENCE)),
    locked("SequenceLength", &Locked(SEQUENCE)),
    locked("SequenceMap", &Locked(SUBGRAPH)),
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
    locked("SoftmaxCrossEntropyLoss", &Locked(LOSS)),
    row("Softplus", &Elementwise, POINTWISE),
    row("Softsign", &Elementwise, POINTWISE),
    row("SpaceToDepth", &SpaceToDepth, "channels outside the block; the block is locked"),
    shaped("Split", &Split, &[1], "the parts of the split axis, each by itself; every other axis passes"),
    locked("SplitToSequence", &Locked(SEQUENCE)),
    row("Sqrt", &Elementwise, POINTWISE),
    shaped("Squeeze", &Squeeze, &[1], "every axis"),
    locked("StringConcat", &Locked(TEXT)),
    locked("StringNormalizer", &Locked(TEXT)),
    locked("StringSplit", &Locked(TEXT)),
    row("Sub", &Arithmetic(Operation::Sub), POINTWISE),
    row("Sum", &Elementwise, POINTWISE),
    row("SwiGLU", &Elementwise, POINTWISE),
    row("Swish", &Elementwise, POINTWISE),
    row("Tan", &Elementwise, POINTWISE),
    row("Tanh", &Elementwise, POINTWISE),
    row("TensorScatter", &TensorScatter, "all but the batch and the positions that are written to"),
    locked("TfIdfVectorizer", &Locked("nothing: it counts runs of words along its axis")),
    row("ThresholdedRelu", &Elementwise, POINTWISE),
    shaped("Tile", &Tile, &[1], "every axis; the number of copies is locked"),
    row("TopK", &TopK, "the sorted axis is locked, the others pass through"),
    row("Transpose", &Transpose, "every axis"),
    shaped("Trilu", &Trilu, &[1], "the last two axes are locked, the others pass through"),
    row("Unique", &Unique, "nothing: its elements are compared with each other"),
    shaped("Unsqueeze", &Unsqueeze, &[1], "every axis"),
    row("Upsample", &Upsample, "axes that keep their extent; interpolated ones are locked"),
    row("Where", &Arithmetic(Operation::Where), POINTWISE),
    row("Xor", &Elementwise, POINTWISE),
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
