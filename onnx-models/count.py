"""Prints the number of parameters of ONNX files: elements of the floating-point initializers and Constant nodes.

    python count.py FILE [FILE…]
"""

import math
import sys

import onnx

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}


def tensors(graph):
    """Every constant tensor of a graph and of its subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and node.op_type == "Constant":
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from tensors(attribute.g)


def parameters(model):
    """Elements of all floating-point constants of `model`."""
    return sum(math.prod(tensor.dims) for tensor in tensors(model.graph) if tensor.data_type in FLOATS)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for path in sys.argv[1:]:
        print(f"{parameters(onnx.load(path, load_external_data=False)):>12,}  {path}")
