#!/usr/bin/env python
"""Writes relatives of files of the zoo: quantised in four ways, in half precision, and rewritten by ONNX Runtime's optimisers.

    python tests/zoo/derive.py [--zoo target/zoo] [--only GLOB]

Beside NAME.onnx: NAME-qdq (static, QuantizeLinear and DequantizeLinear, a scale per channel), NAME-qdqtensor (a scale per tensor, signed),
NAME-qop (static, integer operators), NAME-dynquant (weights quantised, activations at run time), NAME-fp16, NAME-ort (fused operators,
written by a session), NAME-transformer (fused by the optimiser for transformers). What exists is skipped; a base that is absent is said. A
relative that ONNX Runtime does not load is not written. The exit status is 1 if one could not be written.
"""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from judge import described_shapes, feeds
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

Derive = Callable[[pathlib.Path, pathlib.Path], None]

# The bases, and which relatives each gets. "image" is all that suits convolutions, "token" what suits matrix products.
SETS = {"image": "qdq qdqtensor qop fp16 ort", "token": "qdq dynquant fp16 ort", "small": "dynquant ort"}
BASES: list[tuple[str, str]] = [
    ("hard_sharing", "image"),
    ("yolop_like", "image"),
    ("unet_group_norm", "qdq fp16 ort"),
    ("squeeze_mobile", "image dynquant"),
    ("mtan", "qdq ort"),
    ("detr_like", "token"),
    ("intent_slots", "token transformer"),
    ("intent_slots_fused", "dynquant ort"),
    ("grouped_query_decoder", "token"),
    ("bilstm_gru", "small fp16"),
    ("mmoe_einsum", "token"),
    ("ple_modules", "token"),
    ("smp_unet_two_tasks", "qdq fp16 ort"),
    ("resnet10", "image"),
    ("mobilenet_v2", "image"),
    ("mobilenet_v3_small", "qdq qop ort"),
    ("shufflenet_v2_x1_0", "qdq qop ort"),
    ("densenet121", "ort"),
    ("vit_tiny_patch16_224", "token transformer"),
    ("swin_t_narrow", "qdq fp16 ort"),
    ("convnext_atto", "qdq dynquant ort"),
    ("mixer_s32_224", "dynquant ort"),
    ("bert_two_tasks", "token transformer"),
    ("distilbert", "dynquant ort transformer"),
    ("gpt2", "dynquant fp16 ort transformer"),
    ("llama_gqa", "dynquant fp16 ort"),
    ("t5_encoder", "dynquant ort"),
]


class RandomSamples(CalibrationDataReader):
    """A few random inputs, from which ranges of activations are measured."""

    def __init__(self, path: pathlib.Path, count: int = 4) -> None:
        self.left = [inputs(path, seed) for seed in range(count)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next sample."""
        return self.left.pop() if self.left else None


def inputs(path: pathlib.Path, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of a file."""
    return feeds(onnx.load(path), described_shapes(path), seed, 10)


def static(form: QuantFormat, per_channel: bool, activations: QuantType) -> Derive:
    """Static quantisation with these choices."""

    def derive(base: pathlib.Path, target: pathlib.Path) -> None:
        samples = RandomSamples(base)
        kinds = {"activation_type": activations, "weight_type": QuantType.QInt8}
        quantize_static(base, target, samples, quant_format=form, per_channel=per_channel, **kinds)

    return derive


def dynamic(base: pathlib.Path, target: pathlib.Path) -> None:
    """Weights as integers; activations are quantised when the model runs."""
    quantize_dynamic(base, target, weight_type=QuantType.QInt8, per_channel=True)


def half(base: pathlib.Path, target: pathlib.Path) -> None:
    """Half precision inside, single precision at inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(base), keep_io_types=True), target)


def optimised(base: pathlib.Path, target: pathlib.Path) -> None:
    """What a session makes of the file, without what holds for one kind of processor only."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(base), options, providers=["CPUExecutionProvider"])


def transformer(base: pathlib.Path, target: pathlib.Path) -> None:
    """What the offline optimiser for transformers fuses."""
    from onnxruntime.transformers.optimizer import optimize_model

    name = base.stem
    kind = "gpt2" if "gpt2" in name else "vit" if "vit" in name else "bert"
    made = optimize_model(str(base), model_type=kind, opt_level=0)
    made.save_model_to_file(str(target))
    if not any(node.domain == "com.microsoft" for node in onnx.load(target).graph.node):
        raise ValueError("nothing was fused")


KINDS: dict[str, Derive] = {
    "qdq": static(QuantFormat.QDQ, True, QuantType.QUInt8),
    "qdqtensor": static(QuantFormat.QDQ, False, QuantType.QInt8),
    "qop": static(QuantFormat.QOperator, False, QuantType.QUInt8),
    "dynquant": dynamic,
    "fp16": half,
    "ort": optimised,
    "transformer": transformer,
}


def write(base: pathlib.Path, kind: str) -> None:
    """Writes one relative and its description, or raises and leaves nothing."""
    target = base.with_name(f"{base.stem}-{kind}.onnx")
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, base.name)
        shutil.copy(base, copy)
        shutil.copy(base.with_suffix(".json"), copy.with_suffix(".json"))
        made = pathlib.Path(folder, "made.onnx")
        KINDS[kind](copy, made)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(made), options, providers=["CPUExecutionProvider"]).run(None, inputs(copy, 0))
        description = json.loads(copy.with_suffix(".json").read_text())
        model = onnx.load(made)
        description |= {"name": target.stem, "derived": kind, "nodes": len(model.graph.node), "bytes": made.stat().st_size}
        shutil.move(made, target)
    target.with_suffix(".json").write_text(json.dumps(description, indent=1))


def main() -> int:
    """Writes what is missing; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, default=pathlib.Path("target/zoo"))
    parser.add_argument("--only", default="*", help="pattern of names, such as 'hard_sharing-q*'")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    written = failed = 0
    for name, kinds in BASES:
        base = chosen.zoo / f"{name}.onnx"
        if not base.is_file():
            print(f"skipped: no {base}")
            continue
        for kind in " ".join(SETS.get(word, word) for word in kinds.split()).split():
            target = base.with_name(f"{name}-{kind}.onnx")
            if not pathlib.PurePath(target.stem).match(chosen.only) or target.with_suffix(".json").is_file():
                continue
            try:
                write(base, kind)
                written += 1
                print(f"{target.stem}: written", flush=True)
            except Exception as error:  # tools of others fail in many ways; the rest of the zoo is worth more
                failed += 1
                print(f"{target.stem}: FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
    print(f"{written} written, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
