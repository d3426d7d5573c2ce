//! The operators of com.microsoft: what ONNX Runtime's own tools and optimisers write.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. One row each, in alphabetical
//! order; `table` says what a row is.

use super::Row;
use super::attention::{GroupQueryAttention, MultiHeadAttention, ProjectedAttention, RotaryEmbedding};
use super::blocked::{GatherBlocks, MatMulBits};
use super::channels_last::{
    AVERAGE_POOL, GLOBAL_AVERAGE_POOL, NHWC_CONV, NHWC_FUSED_CONV, NHWC_MAX_POOL, QUANTIZED_CONV,
};
use super::conv::ConvTransposeDynamic;
use super::elementwise::{ComplexProduct, Elementwise};
use super::experts::Experts;
use super::fused::{EmbedLayerNormalization, FusedConv, FusedMatMul, FusedMatMulActivation, SkipLayerNormalization};
use super::fused_quantized::{ProductWithBias, QuantizedAttention, QuantizedGemm, QuantizedLstm};
use super::gather::Gather;
use super::matmul::Gemm;
use super::norm_domains::GroupNorm;
use super::pad::Pad;
use super::qlinear::{QLinearConcat, QLinearPointwise, QLinearSoftmax};
use super::quantize::{Dequantize, Quantize};
use super::quantized::{Form, QuantizedMatMul};
use super::reduce::Reduce;
use super::root_mean_square::RootMeanSquare;
use super::sample::GridSample;
use super::scatter::Trilu;
use super::selection::{GatherNd, Unique};
use super::shapes::Range;
use super::softmax::BiasSoftmax;
use super::spectral::RealFourier;
use super::squeeze::Unsqueeze;
use super::table::{
    ATTENTION, CONTRACTION, CONVOLUTION, FOURIER, LINEAR, POINTWISE, POOL, QUANTIZED_CONVOLUTION, QUANTIZED_PRODUCT,
    RECURRENT, REDUCTION, REGIONS, ROOT_MEAN_SQUARE, ROTARY, SKIP,
};
use super::written::Locked;
use super::{attention_bias, fused, regions};

const fn row(op_type: &'static str, rule: &'static dyn super::Rule, note: &'static str) -> Row {
    Row { domain: "com.microsoft", op_type, rule, shape_inputs: &[], note }
}

const fn shaped(
    op_type: &'static str,
    rule: &'static dyn super::Rule,
    shape_inputs: &'static [usize],
    note: &'static str,
) -> Row {
    Row { domain: "com.microsoft", op_type, rule, shape_inputs, note }
}

/// An operator that is locked as a whole.
const fn locked(op_type: &'static str, rule: &'static Locked) -> Row {
    Row { domain: "com.microsoft", op_type, rule, shape_inputs: &[], note: rule.0 }
}

const GROUPS: &str = "whole groups may go; the channels inside a group and the spatial axes are locked";

/// One row per operator, in alphabetical order.
pub(super) const ROWS: &[Row] = &[
    row("Attention", &ProjectedAttention, ATTENTION),
    locked("AttnLSTM", &Locked("nothing: its attention over a memory is not described")),
    locked("BeamSearch", &Locked("nothing: it generates text with models that it holds itself")),
    row("BiasAdd", &Elementwise, POINTWISE),
    row("BiasDropout", &QLinearPointwise(&[0, 1, 2]), POINTWISE),
    row("BiasGelu", &Elementwise, POINTWISE),
    row("BiasSoftmax", &BiasSoftmax, "the compared axes (all from `axis` on) are locked, the others pass through"),
    row("BiasSplitGelu", &fused::BIAS_SPLIT_GELU, "every axis; index i of both halves goes together"),
    locked("BifurcationDetector", &Locked("nothing: it compares tokens with each other")),
    locked("BitmaskBiasDropout", &Locked("nothing: its mask packs neighbours into bits")),
    locked("BitmaskDropout", &Locked("nothing: its mask packs neighbours into bits")),
    locked("BranchwiseRMSNorm", &Locked("nothing: what its branches are is not described")),
    row("CDist", &fused::DISTANCES, "every axis: a squared difference of two zeros is zero"),
    locked("CausalConvWithState", &Locked("nothing: its state is laid out in a way that is not described")),
    row("ComplexMul", &ComplexProduct, "all but the last axis, which holds real and imaginary parts"),
    row("ComplexMulConj", &ComplexProduct, "all but the last axis, which holds real and imaginary parts"),
    shaped("ConvTransposeWithDynamicPads", &ConvTransposeDynamic, &[2], CONVOLUTION),
    shaped("CropAndResize", &regions::CROP_AND_RESIZE, &[3], REGIONS),
    locked("DecoderAttention", &Locked("nothing: its caches are laid out in a way that is not described")),
    locked(
        "DecoderMaskedMultiHeadAttention",
        &Locked("nothing: its caches are laid out in a way that is not described"),
    ),
    locked("DecoderMaskedSelfAttention", &Locked("nothing: its caches are laid out in a way that is not described")),
    locked("DequantizeBFP", &Locked("nothing: its numbers share exponents in blocks that are not described")),
    row("DequantizeLinear", &Dequantize, LINEAR),
    locked("DequantizeWithOrder", &Locked("nothing: its tensors are tiled for one kind of hardware")),
    row("DynamicQuantizeLSTM", &QuantizedLstm, RECURRENT),
    row("DynamicQuantizeMatMul", &QuantizedMatMul(Form::Dynamic), CONTRACTION),
    locked("DynamicSparseAttention", &Locked("nothing: its caches are laid out in a way that is not described")),
    locked("DynamicTimeWarping", &Locked("nothing: it finds a way through all its positions")),
    locked("EPContext", &Locked("nothing: it holds a model compiled for one kind of hardware")),
    row("EmbedLayerNormalization", &EmbedLayerNormalization, "nothing; the shape of what is looked up is known"),
    locked("EngramGate", &Locked("nothing: its normalised keys are not described")),
    shaped("ExpandDims", &Unsqueeze, &[1], "every axis"),
    row("FastGelu", &Elementwise, POINTWISE),
    row("FusedConv", &FusedConv, CONVOLUTION),
    row("FusedGemm", &Gemm, CONTRACTION),
    row("FusedMatMul", &FusedMatMul, CONTRACTION),
    row("FusedMatMulActivation", &FusedMatMulActivation, CONTRACTION),
    locked("GatedAdd", &Locked("nothing: how its gate is laid out is not described")),
    locked("GatedDeltaNet", &Locked("nothing: its recurrent state is not described")),
    locked("GatedRMSNorm", &Locked("nothing: how its scale and its gate are laid out is not described")),
    row("GatedRelativePositionBias", &attention_bias::GatedBias, "whole heads; positions are locked"),
    shaped(
        "GatherBlockQuantized",
        &GatherBlocks,
        &[1],
        "whole blocks of the packed rows; what is looked up in is locked",
    ),
    row("GatherND", &GatherNd, "the axes behind the indexed ones"),
    row("Gelu", &Elementwise, POINTWISE),
    row("GemmFastGelu", &ProductWithBias, CONTRACTION),
    row("GemmFloat8", &Gemm, CONTRACTION),
    locked("GemmaRotaryEmbedding", &Locked("nothing: it is rotated pair by pair")),
    locked("GreedySearch", &Locked("nothing: it generates text with models that it holds itself")),
    row("GridSample", &GridSample, "channels pass through; batch and space are locked"),
    row("GroupNorm", &GroupNorm, GROUPS),
    row(
        "GroupQueryAttention",
        &GroupQueryAttention,
        "whole groups of heads and heads of every group; positions and what is inside a head are locked",
    ),
    locked("HyperConnectionPostMix", &Locked("nothing: how its streams are mixed is not described")),
    locked("HyperConnectionPreMix", &Locked("nothing: how its streams are mixed is not described")),
    row("Inverse", &fused::INVERSE, "the axes of a stack; the matrices are locked"),
    row("Irfft", &RealFourier { inverse: true }, FOURIER),
    locked("IsAllFinite", &Locked("nothing: it watches over training")),
    locked("LinearAttention", &Locked("nothing: its recurrent state is not described")),
    locked("LinearAttentionGate", &Locked("nothing: the state that it gates is not described")),
    locked("LongformerAttention", &Locked("nothing: its input must be as long as its output, whose heads are")),
    locked("MRotaryEmbedding", &Locked("nothing: it is rotated pair by pair, by sections")),
    locked("MatMulBlockQuantizedFp4Weight", &Locked("nothing: its weights are packed in a way that is not described")),
    locked("MatMulBlockQuantizedFp8Weight", &Locked("nothing: its weights are packed in a way that is not described")),
    locked("MatMulBnb4", &Locked("nothing: its weights are packed in a way that is not described")),
    locked("MatMulFpQ4", &Locked("nothing: its weights are packed in a way that is not described")),
    row("MatMulInteger16", &QuantizedMatMul(Form::Integer), QUANTIZED_PRODUCT),
    row("MatMulIntegerToFloat", &QuantizedMatMul(Form::ToFloat), QUANTIZED_PRODUCT),
    row(
        "MatMulNBits",
        &MatMulBits,
        "the columns and whole blocks of the rows; the rows are locked where zero points are packed across blocks",
    ),
    locked("MatMulNBitsMlp", &Locked("nothing: its weights are packed in a way that is not described")),
    locked("MatMulNBitsQkv", &Locked("nothing: its weights are packed in a way that is not described")),
    locked("MaxpoolWithMask", &Locked("nothing: its mask is laid out in a way that is not described")),
    row("MoE", &Experts, "what experts read, compute inside and give; the experts and the router are locked"),
    row("MulInteger", &QLinearPointwise(&[0, 2]), POINTWISE),
    row("MultiHeadAttention", &MultiHeadAttention, ATTENTION),
    locked("MurmurHash3", &Locked("nothing: it works on words or tokens, one after the other")),
    locked("NGramHashMapping", &Locked("nothing: it works on words or tokens, one after the other")),
    locked("NGramRepeatBlock", &Locked("nothing: it works on words or tokens, one after the other")),
    row("NhwcConv", &NHWC_CONV, CONVOLUTION),
    row("NhwcFusedConv", &NHWC_FUSED_CONV, CONVOLUTION),
    row("NhwcMaxPool", &NHWC_MAX_POOL, POOL),
    locked("PackedAttention", &Locked("nothing: how its sequences are packed is not described")),
    locked("PackedMultiHeadAttention", &Locked("nothing: how its sequences are packed is not described")),
    locked("PackedSparseAttentionIndexer", &Locked("nothing: its caches are laid out in a way that is not described")),
    shaped("Pad", &Pad, &[1], "every axis, padded parts too; reflected, repeated and wrapped axes are locked"),
    locked("PagedAttention", &Locked("nothing: its caches are laid out in a way that is not described")),
    row("QAttention", &QuantizedAttention, ATTENTION),
    locked(
        "QEmbedLayerNormalization",
        &Locked("nothing: its embeddings are looked up along one axis and normalised over the other"),
    ),
    row(
        "QGemm",
        &QuantizedGemm,
        "as Gemm; the contracted axis is locked unless it is known which number of a computed operand is zero",
    ),
    row("QLinearAdd", &QLinearPointwise(&[0, 3]), POINTWISE),
    row("QLinearAveragePool", &AVERAGE_POOL, POOL),
    row("QLinearConcat", &QLinearConcat, "the parts of the joined axis, each by itself; every other axis passes"),
    row("QLinearConv", &QUANTIZED_CONV, QUANTIZED_CONVOLUTION),
    row("QLinearGlobalAveragePool", &GLOBAL_AVERAGE_POOL, POOL),
    row("QLinearLeakyRelu", &QLinearPointwise(&[0]), POINTWISE),
    row("QLinearMul", &QLinearPointwise(&[0, 3]), POINTWISE),
    row("QLinearReduceMean", &Reduce::Locking, REDUCTION),
    row("QLinearSigmoid", &QLinearPointwise(&[0]), POINTWISE),
    row(
        "QLinearSoftmax",
        &QLinearSoftmax,
        "the compared axes are locked (before operator set 13 all from `axis` on), the others pass through",
    ),
    row("QLinearWhere", &QLinearPointwise(&[0, 1, 4]), POINTWISE),
    locked("QMoE", &Locked("nothing: its weights are packed in a way that is not described")),
    locked("QOrderedAttention", &Locked("nothing: its tensors are tiled for one kind of hardware")),
    locked("QOrderedGelu", &Locked("nothing: its tensors are tiled for one kind of hardware")),
    locked("QOrderedLayerNormalization", &Locked("nothing: its tensors are tiled for one kind of hardware")),
    locked("QOrderedLongformerAttention", &Locked("nothing: its tensors are tiled for one kind of hardware")),
    locked("QOrderedMatMul", &Locked("nothing: its tensors are tiled for one kind of hardware")),
    locked("QuantizeBFP", &Locked("nothing: its numbers share exponents in blocks that are not described")),
    row("QuantizeLinear", &Quantize, LINEAR),
    locked("QuantizeWithOrder", &Locked("nothing: its tensors are tiled for one kind of hardware")),
    row("QuickGelu", &Elementwise, POINTWISE),
    shaped("Range", &Range, &[0, 1, 2], "nothing"),
    row(
        "ReduceSumInteger",
        &Reduce::Additive,
        "every axis, the summed ones too: a sum does not see a channel that is zero",
    ),
    shaped("RelativePositionBias", &attention_bias::RELATIVE, &[1, 2], "whole heads; buckets and positions are locked"),
    row("RemovePadding", &fused::REMOVE_PADDING, "the last axis; batch and positions are locked"),
    row("RestorePadding", &fused::RESTORE_PADDING, "the last axis; batch and positions are locked"),
    row("Rfft", &RealFourier { inverse: false }, FOURIER),
    row("RotaryEmbedding", &RotaryEmbedding { cosine: Some(2) }, ROTARY),
    row("SampleOp", &Elementwise, POINTWISE),
    locked("Sampling", &Locked("nothing: it generates text with models that it holds itself")),
    locked("ScaledSiLU", &Locked("nothing: what its scale runs along is not described")),
    row("SkipGroupNorm", &GroupNorm, GROUPS),
    row("SkipLayerNormalization", &SkipLayerNormalization, SKIP),
    row("SkipSimplifiedLayerNormalization", &RootMeanSquare { skip: true }, ROOT_MEAN_SQUARE),
    locked("Snpe", &Locked("nothing: it holds a model compiled for one kind of hardware")),
    locked("SparseAttention", &Locked("nothing: its caches are laid out in a way that is not described")),
    locked("SparseAttentionIndexer", &Locked("nothing: its caches are laid out in a way that is not described")),
    locked("SparsePagedAttention", &Locked("nothing: its caches are laid out in a way that is not described")),
    locked("SparseToDenseMatMul", &Locked("nothing: its first operand is no dense tensor")),
    locked("Tokenizer", &Locked("nothing: it works on words or tokens, one after the other")),
    shaped("TorchEmbedding", &Gather, &[1], "the axes of what is looked up; the table of rows is locked"),
    row("TransposeMatMul", &FusedMatMul, CONTRACTION),
    shaped("Trilu", &Trilu, &[1], "the last two axes are locked, the others pass through"),
    locked("UnfoldTensor", &Locked("nothing: its windows overlap along one axis")),
    row("Unique", &Unique, "nothing: its elements are compared with each other"),
    locked("VarlenCausalConvWithState", &Locked("nothing: its state is laid out in a way that is not described")),
    locked("VarlenNGramHashMapping", &Locked("nothing: it works on words or tokens, one after the other")),
    locked("WhisperBeamSearch", &Locked("nothing: it generates text with models that it holds itself")),
    locked("WordConvEmbedding", &Locked("nothing: words are looked up letter by letter")),
];
