"""Writes the ResNet-50 that `make bench-calibration` measures: `python resnet50.py target/bench/resnet50.onnx`.

Needs torch, torchvision and onnx. Weights are random, from a fixed seed; the statistics of normalisations come from
random pictures, so that activations have the sizes that they have in trained networks.
"""

import pathlib
import sys

import torch
import torchvision

torch.manual_seed(0)
model = torchvision.models.resnet50(weights=None).train()
with torch.no_grad():
    for _ in range(8):
        model(torch.rand(8, 3, 224, 224) * 2 - 1)
path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
torch.onnx.export(
    model.eval(),
    (torch.rand(1, 3, 224, 224),),
    str(path),
    input_names=["input"],
    output_names=["logits"],
    dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
    opset_version=17,
    dynamo=False,
)
