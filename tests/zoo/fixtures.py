#!/usr/bin/env python
"""Writes the small zoo, fixtures/zoo/*.onnx: files of a few kilobytes on which tests/zoo.rs prunes without Python.

    python tests/zoo/fixtures.py [--only GLOB]

Each is a family of the zoo at a tiny width, written as the zoo's files are, then quantised, halved or optimised where its name says so. Two
more are made by hand, because no exporter writes them: a branch (If) and a local function. Weights are random and seeded.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import torch
from derive import KINDS
from export import Variant, write
from onnx import TensorProto, helper, numpy_helper
from own_dense import DrivingPerception, GroupNormUNet, HardSharing, SqueezeMobile
from own_sequences import BiLstmGru, DetectionTransformer, GroupedQueryDecoder, IntentSlots, Mmoe, Ple, TopKExperts
from registry import Family, image, tokens

LARGEST = 60_000
FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "fixtures/zoo"


def timm(name: str, **options: object) -> Callable[[], torch.nn.Module]:
    """A network of timm with other options."""

    def build() -> torch.nn.Module:
        import timm as package

        return package.create_model(name, pretrained=False, num_classes=5, **options).eval()

    return build


def shuffle() -> torch.nn.Module:
    """ShuffleNet v2, one narrow block of each kind in a stage."""
    from torchvision.models.shufflenetv2 import ShuffleNetV2

    return ShuffleNetV2([2, 2, 2], [8, 16, 32, 32, 32], num_classes=5).eval()


def mixer() -> torch.nn.Module:
    """MLP-Mixer of two blocks."""
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=5, img_size=16, patch_size=4, num_blocks=2, embed_dim=12).eval()


def row() -> tuple[torch.Tensor, ...]:
    """Two rows of a table."""
    return (torch.randn(2, 10),)


# Name, network, inputs, exporter ("legacy", "dynamo", "batchnorm": tracing with BatchNormalization kept), relative.
VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 2)}
ROWS: list[tuple[str, Callable[[], torch.nn.Module], Callable, str, str]] = [
    ("hard_sharing", functools.partial(HardSharing, 4), image(16), "batchnorm", ""),
    ("hard_sharing_dynamo", functools.partial(HardSharing, 4), image(16), "dynamo", ""),
    ("hard_sharing_qdq", functools.partial(HardSharing, 4), image(16), "legacy", "qdq"),
    ("hard_sharing_qop", functools.partial(HardSharing, 4), image(16), "legacy", "qop"),
    ("hard_sharing_fp16", functools.partial(HardSharing, 4), image(16), "legacy", "fp16"),
    ("squeeze_mobile_ort", functools.partial(SqueezeMobile, 4), image(16), "legacy", "ort"),
    ("yolop_like", functools.partial(DrivingPerception, 2), image(32), "legacy", ""),
    ("unet_group_norm", functools.partial(GroupNormUNet, 4, 2), image(16), "legacy", ""),
    ("mmoe_einsum", functools.partial(Mmoe, "einsum", 10, 6, 3), row, "legacy", ""),
    ("mmoe_bmm_dynamo", functools.partial(Mmoe, "bmm", 10, 6, 3), row, "dynamo", ""),
    ("mmoe_dynquant", functools.partial(Mmoe, "modules", 10, 8, 3), row, "legacy", "dynquant"),
    ("ple_modules", functools.partial(Ple, "modules", 10, 6), row, "legacy", ""),
    ("top_k_experts", functools.partial(TopKExperts, 10, 8), row, "legacy", ""),
    ("bilstm_gru", functools.partial(BiLstmGru, 20, 6), tokens(5, 20), "legacy", ""),
    ("intent_slots_fused", functools.partial(IntentSlots, 20, 8, 8, True), tokens(8, 20), "legacy", ""),
    ("intent_slots_ort", functools.partial(IntentSlots, 20, 8, 8), tokens(8, 20), "legacy", "ort"),
    ("detr_like", functools.partial(DetectionTransformer, 8, 4), image(16), "legacy", ""),
    ("grouped_query_decoder", functools.partial(GroupedQueryDecoder, 20, 16, 4, 2, 1), tokens(6, 20), "legacy", ""),
    ("grouped_query_decoder_dynamo", functools.partial(GroupedQueryDecoder, 20, 16, 4, 2, 1), tokens(6, 20), "dynamo", ""),
    ("vit", timm("vit_tiny_patch16_224", **VIT), image(16), "legacy", ""),
    ("swin", timm("swin_tiny_patch4_window7_224", **SWIN), image(16), "dynamo", ""),
    ("mixer", mixer, image(16), "legacy", ""),
    ("convnext", timm("convnext_atto", depths=(1, 1, 1, 1), dims=(4, 6, 8, 12)), image(32), "legacy", ""),
    ("shufflenet", shuffle, image(32), "legacy", ""),
]


def weight(name: str, *shape: int) -> TensorProto:
    """A constant of normal numbers."""
    random = np.random.default_rng(sum(name.encode()))
    return numpy_helper.from_array((random.standard_normal(shape) / 2).astype(np.float32), name)


def declared(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    """An input or output of single precision."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def branch() -> onnx.ModelProto:
    """If: both branches read the channels of a convolution outside, and have weights of their own."""
    node = helper.make_node
    inner = {}
    for side in ("left", "right"):
        nodes = [node("Conv", ["t", f"{side}.a"], [f"{side}_t"]), node("Relu", [f"{side}_t"], [f"{side}_r"])]
        nodes.append(node("Conv", [f"{side}_r", f"{side}.b"], [f"{side}_y"]))
        constants = [weight(f"{side}.a", 8, 12, 1, 1), weight(f"{side}.b", 6, 8, 1, 1)]
        inner[side] = helper.make_graph(nodes, side, [], [declared(f"{side}_y", 1, 6, 8, 8)], constants)
    nodes = [
        node("Conv", ["x", "stem.weight", "stem.bias"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["t"]),
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["y"], then_branch=inner["left"], else_branch=inner["right"]),
        node("Conv", ["t", "middle.weight"], ["m"]),
        node("Relu", ["m"], ["n"]),
        node("Conv", ["n", "other.weight"], ["z"]),
    ]
    constants = [weight("stem.weight", 12, 3, 3, 3), weight("stem.bias", 12), weight("middle.weight", 10, 12, 1, 1)]
    constants += [weight("other.weight", 4, 10, 1, 1), numpy_helper.from_array(np.zeros((), np.float32), "zero")]
    ends = [declared("y", 1, 6, 8, 8), declared("z", 1, 4, 8, 8)]
    graph = helper.make_graph(nodes, "branch", [declared("x", 1, 3, 8, 8)], ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def local_function() -> onnx.ModelProto:
    """A gated convolution as a function of the model, called twice with weights of its callers, and two heads."""
    node, opset = helper.make_node, helper.make_opsetid("", 17)
    body = [node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]), node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["y"])]
    gated = helper.make_function("own", "GatedConv", ["x", "w", "b"], ["y"], body, [opset])
    nodes = [
        node("GatedConv", ["image", "first.weight", "first.bias"], ["t"], domain="own"),
        node("GatedConv", ["t", "second.weight", "second.bias"], ["u"], domain="own"),
        node("Conv", ["u", "a.weight"], ["a"]),
        node("GlobalAveragePool", ["u"], ["p"]),
        node("Conv", ["p", "b.weight"], ["b"]),
    ]
    constants = [weight("first.weight", 8, 3, 3, 3), weight("first.bias", 8), weight("second.weight", 12, 8, 3, 3)]
    constants += [weight("second.bias", 12), weight("a.weight", 3, 12, 1, 1), weight("b.weight", 5, 12, 1, 1)]
    ends = [declared("a", 1, 3, 8, 8), declared("b", 1, 5, 1, 1)]
    graph = helper.make_graph(nodes, "local_function", [declared("image", 1, 3, 8, 8)], ends, constants)
    imports = [opset, helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=[gated], ir_version=8)


MADE = {"branch": branch, "local_function": local_function}


def small(name: str, build: Callable[[], torch.nn.Module], inputs: Callable, exporter: str, relative: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes one file of the table into the folder."""
    with torch.no_grad():
        given = inputs()
        found = build().eval()(*given)
    ends = found if isinstance(found, (tuple, list)) else (found,)
    names = [f"input{i}" for i in range(len(given))], [f"task{i}" for i in range(len(ends))]
    kept = exporter == "batchnorm"
    family = Family(name, "own", lambda: build().eval(), inputs, tuple(names[0]), tuple(names[1]))
    variant = Variant(family, "legacy" if kept else exporter, batch_norm=kept)
    write(variant, folder)
    path = folder / f"{variant.name}.onnx"
    if relative:
        derived = folder / "derived.onnx"
        KINDS[relative](path, derived)
        path = derived
    return path


def stripped(path: pathlib.Path) -> onnx.ModelProto:
    """The file without what says where its exporter was installed; that is most of a tiny file."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for entry in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del entry.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.ClearField("doc_string")
    return model


def main() -> int:
    """Writes all files; the exit status is 1 if one is missing or too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="pattern of names, such as 'mmoe*'")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in [*(each[0] for each in ROWS), *MADE]:
        if not pathlib.PurePath(name).match(chosen.only):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder, target = pathlib.Path(temporary), FOLDER / f"{name}.onnx"
            try:
                if name in MADE:
                    onnx.checker.check_model(MADE[name](), full_check=True)
                    onnx.save(MADE[name](), target)
                else:
                    onnx.save(stripped(small(*next(each for each in ROWS if each[0] == name), folder)), target)
                bytes_written = target.stat().st_size
                if bytes_written > LARGEST:
                    raise ValueError(f"{bytes_written} bytes, at most {LARGEST}")
                print(f"{name}: {bytes_written} bytes", flush=True)
            except Exception as error:  # the other files are worth having
                failed += 1
                print(f"{name}: FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
