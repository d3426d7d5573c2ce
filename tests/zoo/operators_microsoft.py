"""Cases of com.microsoft for operators.py: one node each, with inputs that ONNX Runtime accepts on a processor."""

from __future__ import annotations

import collections
import dataclasses
import zlib
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper


@dataclasses.dataclass
class Case:
    """What onnx's own test cases look like, as far as operators.py reads it."""

    name: str
    model: ModelProto
    data_sets: list[tuple[list[np.ndarray], list[Any]]]


# A shape stands for random numbers, an array for itself, nothing for an input that is left out.
Given = tuple[int, ...] | np.ndarray | None
Row = tuple[str, list[Given], list[int], dict[str, Any]]
RANDOM = np.random.default_rng(3)


def one(value: float, dtype: type = np.float32) -> np.ndarray:
    """A scalar."""
    return np.array(value, dtype)


def whole(*shape: int, dtype: type = np.uint8, low: int = 0, high: int = 200) -> np.ndarray:
    """Random whole numbers."""
    return RANDOM.integers(low, high, shape).astype(dtype)


def quantised(*shape: int) -> list[Given]:
    """A tensor of bytes with scale and zero point."""
    return [whole(*shape), one(0.02), one(100, np.uint8)]


def boxes() -> np.ndarray:
    """Two regions inside the picture."""
    return np.array([[0.0, 0.0, 0.7, 0.8], [0.2, 0.1, 1.0, 1.0]], np.float32)


CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
TO_BYTES = [one(0.05), one(90, np.uint8)]
# Operator, inputs, the type of every output, attributes.
F, U, I = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT32
ROWS: list[Row] = [
    ("Attention", [(2, 3, 8), (8, 24), (24,)], [F], {"num_heads": 4}),
    ("Attention", [(2, 3, 8), (8, 24), (24,)], [F], {"num_heads": 2, "unidirectional": 1, "scale": 0.4}),
    ("Attention", [(2, 3, 8), (8, 20), (20,)], [F], {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 4]}),
    ("Attention", [(2, 3, 8), (8, 24), (24,), np.array([2, 3], np.int32)], [F], {"num_heads": 4}),
    ("Attention", [(2, 3, 8), (8, 24), (24,), None, None, (1, 4, 3, 3)], [F], {"num_heads": 4}),
    ("BiasGelu", [(2, 3, 6), (6,)], [F], {}),
    ("CDist", [(5, 6), (4, 6)], [F], {"metric": "sqeuclidean"}),
    ("CDist", [(5, 6), (4, 6)], [F], {"metric": "euclidean"}),
    ("ConvTransposeWithDynamicPads", [(1, 4, 5, 5), (4, 6, 3, 3), np.array([1, 1, 1, 1], np.int64)], [F], {"kernel_shape": [3, 3]}),
    ("CropAndResize", [(1, 4, 8, 8), boxes(), np.array([0, 0], np.int32), np.array([4, 4], np.int32)], [F], {}),
    ("DequantizeLinear", [whole(4, 6), one(0.1), one(7, np.uint8)], [F], {}),
    ("DequantizeLinear", [whole(4, 6), (6,), whole(6)], [F], {"axis": 1}),
    ("DynamicQuantizeMatMul", [(3, 6), whole(6, 8), one(0.02)], [F], {}),
    ("DynamicQuantizeMatMul", [(3, 6), whole(6, 8), (8,), whole(8, high=9), (8,)], [F], {}),
    (
        "DynamicQuantizeLSTM",
        [(3, 2, 6), whole(1, 6, 16), whole(1, 4, 16), (1, 32), None, None, None, None, (1,), one(3, np.uint8).reshape(1), (1,), one(3, np.uint8).reshape(1)],
        [F, F, F],
        {"hidden_size": 4},
    ),
    ("EmbedLayerNormalization", [whole(2, 3, dtype=np.int32, high=5), None, (5, 6), (3, 6), None, (6,), (6,)], [F, I], {}),
    ("ExpandDims", [(3, 4), one(1, np.int32)], [F], {}),
    ("FastGelu", [(2, 3, 6), (6,)], [F], {}),
    ("FusedConv", [(1, 4, 5, 5), (6, 4, 3, 3), (6,)], [F], CONV | {"activation": "Relu"}),
    ("FusedConv", [(1, 4, 5, 5), (6, 4, 3, 3), (6,), (1, 6, 5, 5)], [F], CONV | {"activation": "Relu"}),
    ("FusedConv", [(1, 4, 5, 5), (6, 2, 3, 3)], [F], CONV | {"activation": "LeakyRelu", "activation_params": [0.1], "group": 2}),
    ("FusedGemm", [(3, 6), (8, 6), (8,)], [F], {"transB": 1, "activation": "Relu"}),
    ("FusedMatMul", [(2, 6, 3), (2, 6, 8)], [F], {"transA": 1, "alpha": 0.5}),
    ("FusedMatMul", [(2, 3, 6), (2, 8, 6)], [F], {"transB": 1}),
    ("FusedMatMul", [(3, 2, 6), (2, 6, 8)], [F], {"transBatchA": 1}),
    ("FusedMatMul", [(2, 4, 3, 6), (6, 2, 4, 8)], [F], {"transBatchB": 1}),
    ("FusedMatMul", [(4, 6, 2, 3), (6, 2, 4, 8)], [F], {"transBatchA": 1, "transA": 1}),
    ("TransposeMatMul", [(6, 3), (6, 8)], [F], {"transA": 1}),
    ("GatherND", [(4, 5, 6), np.array([[0, 1], [3, 2]], np.int64)], [F], {}),
    ("Gelu", [(2, 6)], [F], {}),
    ("GridSample", [(2, 4, 5, 5), (2, 3, 3, 2)], [F], {}),
    ("GroupQueryAttention", [(1, 3, 32), (1, 3, 16), (1, 3, 16), None, None, one(2, np.int32).reshape(1), one(3, np.int32)], [F], {"num_heads": 4, "kv_num_heads": 2}),
    (
        "GroupQueryAttention",
        [(1, 3, 128), None, None, None, None, one(2, np.int32).reshape(1), one(3, np.int32), (5, 8), (5, 8)],
        [F],
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1},
    ),
    ("Inverse", [(3, 4, 4)], [F], {}),
    ("MatMulIntegerToFloat", [whole(3, 6), whole(6, 8), one(0.1), one(0.1), one(90, np.uint8), one(80, np.uint8), (8,)], [F], {}),
    ("MatMulIntegerToFloat", [whole(3, 6), whole(6, 8), one(0.1), (8,), one(90, np.uint8), whole(8), (8,)], [F], {}),
    ("MatMulNBits", [(3, 64), whole(8, 2, 16, high=256), (8, 2)], [F], {"K": 64, "N": 8, "bits": 4, "block_size": 32}),
    ("MatMulNBits", [(3, 64), whole(8, 2, 16, high=256), (16,)], [F], {"K": 64, "N": 8, "bits": 4, "block_size": 32}),
    ("MatMulNBits", [(3, 64), whole(8, 4, 8, high=256), (8, 4), whole(8, 2), None, (8,)], [F], {"K": 64, "N": 8, "bits": 4, "block_size": 16}),
    ("MatMulNBits", [(3, 64), whole(8, 2, 32, high=256), (8, 2)], [F], {"K": 64, "N": 8, "bits": 8, "block_size": 32}),
    ("MaxpoolWithMask", [(1, 4, 6, 6), np.ones((1, 1, 6, 6), np.int32)], [F], {"kernel_shape": [2, 2]}),
    (
        "MoE",
        [(4, 6), (4, 3), (3, 8, 6), (3, 8), (3, 6, 8), (3, 6)],
        [F],
        {"k": 2, "activation_type": "relu"},
    ),
    ("MultiHeadAttention", [(2, 3, 8), (2, 5, 8), (2, 5, 8)], [F], {"num_heads": 4}),
    ("MultiHeadAttention", [(2, 3, 8), (2, 5, 8), (2, 5, 12), (28,)], [F], {"num_heads": 4, "scale": 0.3}),
    ("MultiHeadAttention", [(2, 3, 8), (2, 4, 5, 2), (2, 4, 5, 2)], [F], {"num_heads": 4, "scale": 0.3}),
    ("MultiHeadAttention", [(2, 3, 4, 3, 2)], [F], {"num_heads": 4}),
    ("MultiHeadAttention", [(2, 3, 8), (2, 5, 4, 2, 2)], [F], {"num_heads": 4}),
    ("MultiHeadAttention", [(2, 3, 8), (2, 5, 8), (2, 5, 8), None, None, (2, 4, 3, 5)], [F], {"num_heads": 4}),
    ("MultiHeadAttention", [(2, 3, 8), (2, 5, 8), (2, 5, 8), None, None, (1, 1, 3, 5)], [F], {"num_heads": 4}),
    ("MultiHeadAttention", [(2, 1, 8), (2, 1, 8), (2, 1, 8), None, None, None, (2, 4, 5, 2), (2, 4, 5, 2)], [F, F, F], {"num_heads": 4}),
    ("NhwcMaxPool", [whole(1, 6, 6, 4)], [U], {"kernel_shape": [2, 2]}),
    ("Pad", [(3, 4), np.array([1, 0, 0, 2], np.int64), one(0.5)], [F], {"mode": "constant"}),
    ("QAttention", [whole(2, 3, 8), whole(8, 24), (24,), one(0.02), one(0.03), None, one(100, np.uint8), one(90, np.uint8)], [F], {"num_heads": 4}),
    ("QGemm", [*quantised(3, 6), *quantised(6, 8), whole(8, dtype=np.int32), *TO_BYTES], [U], {}),
    ("QGemm", [*quantised(3, 6), *quantised(8, 6), whole(8, dtype=np.int32)], [F], {"transB": 1}),
    ("QLinearAdd", [*quantised(3, 6), *quantised(3, 6), *TO_BYTES], [U], {}),
    ("QLinearAdd", [*quantised(3, 6), *quantised(6), *TO_BYTES], [U], {}),
    ("QLinearMul", [*quantised(3, 6), *quantised(3, 1), *TO_BYTES], [U], {}),
    ("QLinearAveragePool", [*quantised(1, 4, 6, 6), *TO_BYTES], [U], {"kernel_shape": [2, 2]}),
    ("QLinearAveragePool", [*quantised(1, 6, 6, 4), *TO_BYTES], [U], {"kernel_shape": [2, 2], "channels_last": 1}),
    ("QLinearConcat", [*TO_BYTES, *quantised(3, 4), *quantised(3, 6)], [U], {"axis": 1}),
    ("QLinearConv", [*quantised(1, 4, 5, 5), *quantised(6, 4, 3, 3), *TO_BYTES, whole(6, dtype=np.int32)], [U], CONV),
    ("QLinearConv", [*quantised(1, 5, 5, 4), *quantised(6, 4, 3, 3), *TO_BYTES, whole(6, dtype=np.int32)], [U], CONV | {"channels_last": 1}),
    ("QLinearGlobalAveragePool", [*quantised(1, 4, 6, 6), *TO_BYTES], [U], {}),
    ("QLinearLeakyRelu", [*quantised(3, 6), *TO_BYTES], [U], {"alpha": 0.1}),
    ("QLinearReduceMean", [*quantised(3, 6), *TO_BYTES], [U], {"axes": [1]}),
    ("QLinearSigmoid", [*quantised(3, 6), *TO_BYTES], [U], {}),
    ("QLinearSoftmax", [*quantised(3, 6), *TO_BYTES], [U], {"axis": 1, "opset": 13}),
    ("QLinearSoftmax", [*quantised(3, 4, 6), *TO_BYTES], [U], {"axis": 1, "opset": 12}),
    ("QLinearWhere", [np.array([[True, False, True, False, True, True]]), *quantised(3, 6), *quantised(3, 6), *TO_BYTES], [U], {}),
    ("QuantizeLinear", [(3, 6), one(0.1), one(90, np.uint8)], [U], {}),
    ("QuantizeLinear", [(3, 6), np.full(6, 0.1, np.float32), whole(6)], [U], {"axis": 1}),
    ("QuickGelu", [(3, 6)], [F], {"alpha": 1.7}),
    ("RotaryEmbedding", [(2, 3, 16), np.array([[0, 1, 2], [0, 1, 2]], np.int64), (5, 2), (5, 2)], [F], {"num_heads": 4, "rotary_embedding_dim": 0}),
    ("RotaryEmbedding", [(2, 4, 3, 4), np.array([0], np.int64), (5, 2), (5, 2)], [F], {"interleaved": 1}),
    ("SkipLayerNormalization", [(2, 3, 6), (2, 3, 6), (6,), (6,), (6,)], [F], {}),
    ("SkipLayerNormalization", [(2, 3, 6), (3, 6), (6,), (6,), (6,)], [F], {}),
    ("SkipSimplifiedLayerNormalization", [(2, 3, 6), (2, 3, 6), (6,), (6,)], [F], {"epsilon": 1e-3}),
    ("SkipSimplifiedLayerNormalization", [(2, 3, 6), (3, 6), (6,)], [F], {}),
    ("Trilu", [(3, 4, 5), one(0, np.int64)], [F], {}),
    ("UnfoldTensor", [(3, 8)], [F], {"dim": -1, "size": 3, "step": 1}),
    ("Unique", [(8,)], [F, TensorProto.INT64, TensorProto.INT64], {}),
    ("GatherBlockQuantized", [whole(6, 16, high=256), np.array([0, 3], np.int64), (6, 2)], [F], {"block_size": 16, "gather_axis": 0, "quantize_axis": 1, "bits": 4}),
    ("BiasSplitGelu", [(2, 3, 2560), (2560,)], [F], {}),
    ("BiasSoftmax", [(2, 4, 6), (2, 1, 6)], [F], {"axis": 2, "is_inner_broadcast": 0}),
    ("GroupNorm", [(1, 4, 4, 8), (8,), (8,)], [F], {"groups": 4, "activation": 0, "epsilon": 1e-3}),
]


def cases() -> list[Case]:
    """One case per row; inputs that are left out have no name."""
    found, seen = [], collections.Counter[str]()
    for op, given, types, attributes in ROWS:
        seen[op] += 1
        random = np.random.default_rng(zlib.crc32(f"{op}{seen[op]}".encode()))
        values = [random.standard_normal(g).astype(np.float32) if isinstance(g, tuple) else g for g in given]
        names = [f"input{slot}" if value is not None else "" for slot, value in enumerate(values)]
        outputs = [f"output{slot}" for slot in range(len(types))]
        node = helper.make_node(op, names, outputs, domain="com.microsoft", **attributes)
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in zip(names, values)
            if value is not None
        ]
        results = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, types)]
        graph = helper.make_graph([node], op, inputs, results)
        versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=10)
        found.append(Case(f"test_microsoft_{op}_{seen[op]}", model, [([v for v in values if v is not None], [])]))
    return found
