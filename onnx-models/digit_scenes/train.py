"""Trains the three-task network on digit scenes and writes model.onnx, calibration.npz, calibration_labels.npz, test.npz, meta.json.

    python train.py [--out FOLDER] [--scenes 26000] [--epochs 3] [--threads 2]

Seeded: with the same package versions and number of threads on the same machine it writes the same model and data files. The metrics in
meta.json are measured on the exported file with ONNX Runtime (../evaluate.py), not on the network in memory.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np
import onnx
import onnxruntime
import torch
from torch.nn import functional as F

from network import DigitScenes
from scenes import make

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from evaluate import evaluate  # noqa: E402

SEED = 7
BATCH = 128
SCALE = 1.0 / 255.0
TASKS = ("digit", "position", "segmentation")


def loss(outputs, labels):
    """Sum of the three task losses, weighted to about the same size at the start."""
    digit, position, dense = outputs
    # Nine pixels in ten are background, so that the digits need a heavier weight.
    weight = torch.tensor([0.4, 1.0, 1.0])
    return (
        F.cross_entropy(digit, labels["digit"], label_smoothing=0.05)
        + 20.0 * F.smooth_l1_loss(position, labels["position"], beta=0.1)
        + 1.5 * F.cross_entropy(dense, labels["segmentation"].long(), weight=weight)
    )


def train(network, data, epochs):
    """AdamW with one rise and fall of the step size."""
    tensors = {name: torch.from_numpy(values) for name, values in data.items()}
    count = len(tensors["image"])
    steps = epochs * (count // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    order = torch.Generator().manual_seed(SEED)
    network.train()
    for epoch in range(epochs):
        permutation = torch.randperm(count, generator=order)
        total = 0.0
        for begin in range(0, count - BATCH + 1, BATCH):
            chosen = permutation[begin : begin + BATCH]
            batch = {name: values[chosen] for name, values in tensors.items()}
            image = (batch["image"].float() * SCALE).contiguous(memory_format=torch.channels_last)
            value = loss(network(image), batch)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            schedule.step()
            total += value.item()
        print(f"epoch {epoch + 1}/{epochs}: mean loss {total / (count // BATCH):.4f}", flush=True)


def export(network, path):
    """ONNX opset 17 with the batch axis left open and BatchNormalization kept as nodes of their own."""
    network = network.eval().to(memory_format=torch.contiguous_format)
    axes = {name: {0: "n"} for name in ("image", *TASKS)}
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, 48, 48),),
        str(path),
        dynamo=False,
        opset_version=17,
        # PRESERVE with a network in evaluation mode: no folding of the normalisation into the convolution before it.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["image"],
        output_names=list(TASKS),
        dynamic_axes=axes,
    )
    onnx.checker.check_model(str(path), full_check=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    options.add_argument("--scenes", type=int, default=26000)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)

    begin = time.time()
    data = make("train", chosen.scenes, SEED)
    network = DigitScenes().to(memory_format=torch.channels_last)
    parameters = sum(values.numel() for values in network.parameters())
    print(f"{chosen.scenes} scenes made in {time.time() - begin:.0f} s; {parameters} trainable parameters", flush=True)
    train(network, data, chosen.epochs)
    seconds = round(time.time() - begin)
    print(f"trained in {seconds} s")

    model = chosen.out / "model.onnx"
    export(network, model)
    calibration, test = make("calibration", 256, SEED), make("test", 400, SEED)
    np.savez_compressed(chosen.out / "calibration.npz", image=calibration["image"])
    np.savez_compressed(chosen.out / "calibration_labels.npz", **{task: calibration[task] for task in TASKS})
    np.savez_compressed(chosen.out / "test.npz", **test)
    meta = {
        "title": "Two handwritten digits on photographic texture, three tasks",
        "tasks": {
            "digit": "class of the left digit: 10 logits",
            "position": "centres of the left and of the right digit: x, y, x, y in 0..1",
            "segmentation": "per pixel: 0 background, 1 left digit, 2 right digit: 3 logits at 48x48",
        },
        "inputs_prep": {"image": {"scale": SCALE}},
        "inputs_n": len(calibration["image"]),
        "test_n": len(test["image"]),
        "source": "scenes.py and train.py; digits and photographs from the scikit-learn package",
        "licence": "MIT OR Apache-2.0 (model); data: see ../README.md",
        "multi_task": True,
        "train_seconds": seconds,
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }
    described = chosen.out / "meta.json"
    described.write_text(json.dumps(meta, indent=1) + "\n")
    # Written twice, because the measurement reads the preparation of the inputs from the file.
    meta["test_metrics"] = evaluate(model, chosen.out)
    described.write_text(json.dumps(meta, indent=1) + "\n")
    print(json.dumps(meta["test_metrics"]))


if __name__ == "__main__":
    main()
