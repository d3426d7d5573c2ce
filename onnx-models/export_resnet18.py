"""Writes torchvision's ResNet-18 with random weights as ONNX: the anchor of the parameter count (11,689,512 trainable parameters).

    python export_resnet18.py OUT.onnx [--seed 0] [--dynamic]

Normalisation statistics and affine parameters are random as well, so that no two channels carry the same numbers and a slice taken at
the wrong index shows. BatchNormalization stays a node of its own. The batch is 1, or open with --dynamic.
"""

import argparse

import onnx
import torch
import torchvision

from count import parameters

TRAINABLE = 11_689_512


def randomise(network):
    """Fills what initialisation leaves equal in every channel. Variances near 1 and small means keep the activations in range."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0.0, 0.2)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--dynamic", action="store_true", help="leave the batch axis open")
    chosen = options.parse_args()
    torch.manual_seed(chosen.seed)
    network = torchvision.models.resnet18(weights=None)
    randomise(network)
    network.eval()
    trainable = sum(values.numel() for values in network.parameters())
    statistics = sum(values.numel() for values in network.buffers() if values.is_floating_point())
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 224, 224),),
        chosen.out,
        dynamo=False,
        opset_version=17,
        # PRESERVE with a network in evaluation mode: no folding of the normalisation into the convolution before it.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}} if chosen.dynamic else None,
    )
    model = onnx.load(chosen.out)
    onnx.checker.check_model(model, full_check=True)
    stored = parameters(model)
    print(f"{chosen.out}: {stored:,} stored floating-point values = {trainable:,} trainable + {statistics:,} statistics")
    if trainable != TRAINABLE or stored != trainable + statistics:
        raise SystemExit(f"expected {TRAINABLE:,} trainable parameters and as many stored values as the network holds")


if __name__ == "__main__":
    main()
