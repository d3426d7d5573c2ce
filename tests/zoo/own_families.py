"""The families of the zoo that no package has: multi-task structures in plain torch (own_dense.py, own_sequences.py)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from own_dense import CrossStitch, DrivingPerception, GroupNormUNet, HardSharing, Mtan, Nddr, PadNet, SqueezeMobile
from own_sequences import (
    BiLstmGru,
    DetectionTransformer,
    GroupedQueryDecoder,
    IntentSlots,
    Mmoe,
    Ple,
    TopKExperts,
    Transducer,
)
from registry import Family, Inputs, batch_of, image, tokens


def row() -> tuple[torch.Tensor, ...]:
    """Two rows of a table with 24 columns."""
    return (torch.randn(2, 24),)


def speech() -> tuple[torch.Tensor, ...]:
    """40 frames of 20 features, and what was said so far."""
    return torch.randn(1, 20, 40), torch.randint(0, 12, (1, 6))


# Name, network, inputs, names of inputs, names of outputs, and which files beside that of the tracing exporter.
ROWS: list[tuple[str, Callable[[], torch.nn.Module], Inputs, str, str, str]] = [
    ("hard_sharing", HardSharing, image(64), "image", "segmentation depth normals", "dynamo dynbatch batch-norm"),
    ("cross_stitch", CrossStitch, image(64), "image", "attributes segmentation", "dynamo dynbatch batch-norm"),
    ("mtan", Mtan, image(64), "image", "segmentation depth normals", "dynamo batch-norm"),
    ("nddr", Nddr, image(64), "image", "normals age", "batch-norm"),
    ("yolop_like", DrivingPerception, image(128), "image", "boxes scores areas lanes", "dynamo dynbatch batch-norm"),
    ("pad_net", PadNet, image(64), "image", "seg0 depth0 normals0 seg depth normals", "dynamo dynbatch"),
    ("unet_group_norm", GroupNormUNet, image(64), "image", "mask kind", "dynamo dynbatch dynamo-dynbatch"),
    ("squeeze_mobile", SqueezeMobile, image(64), "image", "landmarks identity", "batch-norm"),
    ("mmoe_einsum", lambda: Mmoe("einsum"), row, "features", "click like", "dynamo dynbatch"),
    ("mmoe_bmm", lambda: Mmoe("bmm"), row, "features", "click like", "dynamo"),
    ("mmoe_modules", lambda: Mmoe("modules"), row, "features", "click like", "dynbatch"),
    ("ple_einsum", lambda: Ple("einsum"), row, "features", "click like share", ""),
    ("ple_modules", lambda: Ple("modules"), row, "features", "click like share", "dynamo dynbatch dynamo-dynbatch"),
    ("top_k_experts", TopKExperts, row, "features", "a b", "dynamo"),
    ("bilstm_gru", BiLstmGru, tokens(16, 60), "tokens", "labels kind", "dynbatch"),
    ("transducer", Transducer, speech, "audio said", "symbols speaker", ""),
    ("intent_slots", IntentSlots, tokens(16, 80), "tokens", "intent slots", "dynamo dynbatch dynamo-dynbatch"),
    ("intent_slots_fused", lambda: IntentSlots(fused=True), tokens(16, 80), "tokens", "intent slots", "dynamo"),
    ("detr_like", DetectionTransformer, image(64), "image", "classes boxes", "dynamo dynbatch"),
    ("grouped_query_decoder", GroupedQueryDecoder, tokens(16, 64), "tokens", "words value", "dynamo dynbatch dynamo-dynbatch"),
]


def family(name: str, build: Callable[[], torch.nn.Module], inputs: Inputs, ins: str, outs: str, files: str) -> Family:
    """One row as the registry wants it."""
    wanted = files.split()
    ends = (*ins.split(), *outs.split())
    return Family(
        name=name,
        source="own",
        build=lambda: build().eval(),
        inputs=inputs,
        input_names=tuple(ins.split()),
        output_names=tuple(outs.split()),
        dynamic=batch_of(*ends) if "dynbatch" in wanted else {},
        exporters=("legacy", "dynamo") if "dynamo" in wanted else ("legacy",),
        tags=("multi-task", *(w for w in wanted if w in ("batch-norm", "dynamo-dynbatch"))),
    )


FAMILIES: list[Family] = [family(*each) for each in ROWS]
