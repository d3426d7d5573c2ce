"""Measures a model, pruned or not, on the labelled test samples of one of the folders beside this file. Needs numpy and onnxruntime.

    python evaluate.py FOLDER [MODEL.onnx…]      (default: FOLDER/model.onnx)

`test.npz` of a folder holds the graph input under its name and one array of labels per graph output. The metric follows from the labels:
integers [n] give accuracy, integers [n, h, w] give the mean intersection over union of the classes, floats give the mean absolute error.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime

BATCH = 64


def metric(output, label):
    """(name, value) of the metric that fits the labels; class logits lie on axis 1 of the output."""
    if label.dtype.kind == "f":
        return "mean_absolute_error", np.abs(output - label).mean()
    predicted = output.argmax(1)
    if label.ndim == 1:
        return "accuracy", (predicted == label).mean()
    shares = []
    for one in range(output.shape[1]):
        union = ((predicted == one) | (label == one)).sum()
        if union:
            shares.append(((predicted == one) & (label == one)).sum() / union)
    return "miou", np.mean(shares)


def evaluate(model, folder):
    """Metrics {task_metric: value} of the file `model` on the test samples of `folder`, prepared as its meta.json says."""
    data = np.load(folder / "test.npz")
    preparation = json.loads((folder / "meta.json").read_text())["inputs_prep"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    inputs = {}
    for name in (value.name for value in session.get_inputs()):
        inputs[name] = data[name].astype(np.float32) * np.float32(preparation[name]["scale"])
    count = len(next(iter(inputs.values())))
    tasks = [value.name for value in session.get_outputs() if value.name in data.files]
    parts = [
        session.run(tasks, {name: values[begin : begin + BATCH] for name, values in inputs.items()}) for begin in range(0, count, BATCH)
    ]
    found = {}
    for task, outputs in zip(tasks, zip(*parts)):
        name, value = metric(np.concatenate(outputs), data[task])
        found[f"{task}_{name}"] = round(float(value), 4)
    return found


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    for model in sys.argv[2:] or [folder / "model.onnx"]:
        print(f"{model}: {json.dumps(evaluate(model, folder))}")
