#!/usr/bin/env python
"""Prunes trained multi-task models, repairs them in every way, and measures each task on labelled samples that the program never saw.

    python tests/repair_table.py [--ratios 0.3 0.5] [--methods none bias batch-norm least-squares] [--only NAME…] [--extra "…"]

Run by hand or by `make repair-table` (needs numpy and onnxruntime). The models are those of onnx-models and, where they are found, of a
folder outside the repository; what is absent is said and skipped. Calibration samples go to the program without labels. `lost` is the mean
over tasks of what the dense model scores above the pruned one, in points (100 x the metric; errors count 100 x the growth relative to the
dense error); `recovered` is the share of what `none` lost that the repair brings back. The exit status is 1 if a run failed.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUTSIDE = ROOT / "../shared/models"
# How many samples of a model without test samples of its own go to the program; the others measure.
FITTED = {"gomoku8": 256, "phasenet": 64}


def options():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/onnx-mtprune")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--methods", nargs="+", default=["none", "bias", "batch-norm", "least-squares"])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--extra", default="", help="more options for the program, as one string")
    parser.add_argument("--json", type=pathlib.Path, help="write all rows there as well")
    return parser.parse_args()


def prepared(arrays, folder):
    """The inputs as floats where meta.json scales them, else as they are."""
    preparation = json.loads((folder / "meta.json").read_text()).get("inputs_prep") or {}
    result = {}
    for name, values in arrays.items():
        how = preparation.get(name)
        if isinstance(how, dict):
            values = values.astype(np.float32) * np.float32(how.get("scale", 1))
            values = (values - np.float32(how.get("mean", 0))) / np.float32(how.get("std", 1))
        result[name] = values
    return result


def load(folder):
    """(calibration inputs, test inputs, test labels), all by name."""
    name = folder.name
    calibration = folder / ("calibration.npz" if (folder / "calibration.npz").is_file() else "inputs.npz")
    inputs = dict(np.load(calibration))
    if (folder / "test.npz").is_file():
        test = dict(np.load(folder / "test.npz"))
        labels = {key: test.pop(key) for key in list(test) if key not in inputs}
        return prepared(inputs, folder), prepared(test, folder), labels
    count = FITTED[name]
    labels = {key: values[count:] for key, values in np.load(folder / "labels.npz").items()}
    inputs = prepared(inputs, folder)
    few = {k: varied(name, v[:count]) for k, v in inputs.items()}
    return few, {k: v[count:] for k, v in inputs.items()}, labels


def varied(model, samples):
    """Few samples and what else they tell: calibration needs no labels, so whatever the data allows makes more of it."""
    if model == "gomoku8":
        # A board, turned and mirrored, is a board.
        turned = [np.rot90(samples, quarter, axes=(2, 3)) for quarter in range(4)]
        return np.ascontiguousarray(np.concatenate(turned + [board[:, :, :, ::-1] for board in turned]))
    return samples


def outputs(model, inputs):
    """All outputs for all samples, by name."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0].shape[0]
    batch = first if isinstance(first, int) else 64
    names = [value.name for value in session.get_outputs()]
    count = len(next(iter(inputs.values())))
    assert not isinstance(first, int) or count % first == 0, "a fixed batch that does not divide the samples"
    runs = [session.run(names, {k: v[at : at + batch] for k, v in inputs.items()}) for at in range(0, count, batch)]
    return {name: np.concatenate([run[place] for run in runs]) for place, name in enumerate(names)}


def accuracy(found, labels, axis=1):
    """The fraction of labels at or above 0 that are the largest class."""
    counted = labels >= 0
    return float((found.argmax(axis)[counted] == labels[counted]).mean())


def picked(name, found, labels):
    """How far, in samples, the largest entry of a phase is from where it was picked: the fraction within 10."""
    track = found["prob:0"][:, :, 0, 1 if name == "p_index" else 2]
    return float((np.abs(track.argmax(1) - labels) <= 10).mean())


def overlap(found, labels):
    """Mean intersection over union."""
    best, shares = found.argmax(1), []
    for one in range(found.shape[1]):
        union = ((best == one) | (labels == one)).sum()
        if union:
            shares.append(((best == one) & (labels == one)).sum() / union)
    return float(np.mean(shares))


def metrics(model, found, labels, dense):
    """{task: (value, True if it is an error)}; outputs without labels are measured against the dense model's."""
    result = {}
    for name, values in labels.items():
        if model == "phasenet":
            result[name] = picked(name, found, values), False
        elif name == "self_argmax_move":
            result["policy"] = accuracy(found["policy"], values), False
        elif name == "game_result":
            result["value"] = float(np.abs(found["value"].ravel() - values).mean()), True
        elif name == "slots":
            result[name] = accuracy(found[name], values, -1), False
        elif name not in found:
            continue
        elif values.dtype.kind == "f" and found[name].shape[-1] == 1:
            border = 0.5 if dense[name].min() >= 0 and dense[name].max() <= 1 else 0
            result[name] = float(((found[name].ravel() > border) == (values > 0.5)).mean()), False
        elif values.dtype.kind == "f":
            result[name] = float(np.abs(found[name] - values).mean()), True
        elif values.ndim == 3:
            result[name] = overlap(found[name], values), False
        else:
            result[name] = accuracy(found[name], values), False
    if {"left", "right"} <= labels.keys() and "sum" in found:
        result["sum"] = accuracy(found["sum"], labels["left"] + labels["right"]), False
    for name in found.keys() - result.keys():
        if name == "blur_recon":
            # How much of the dense picture's variance is there: 1 for the dense model itself.
            error = ((found[name] - dense[name]) ** 2).mean()
            result[name] = float(max(0.0, 1 - error / dense[name].var())), False
    return result


def lost(dense, pruned):
    """Mean over tasks, in points."""
    points = []
    for task, (value, is_error) in dense.items():
        points.append(100 * (pruned[task][0] / value - 1) if is_error else 100 * (value - pruned[task][0]))
    return float(np.mean(points))


def main():
    """Runs everything and prints the table; the exit status."""
    chosen = options()
    folders = [path for path in sorted((ROOT / "onnx-models").iterdir()) if (path / "model.onnx").is_file()]
    names = {path.name for path in folders}
    for name in "mmnist_resnet mmnist_lenet gomoku8 snips_tr snips_lstm adult_mmoe phasenet".split():
        if name not in names:
            if (OUTSIDE / name / "model.onnx").is_file():
                folders.append(OUTSIDE / name)
            else:
                print(f"skipped: {name} is not here", file=sys.stderr)
    rows, failed = [], False
    for folder in folders:
        if chosen.only and folder.name not in chosen.only:
            continue
        calibration, test, labels = load(folder)
        reference = outputs(folder / "model.onnx", test)
        dense = metrics(folder.name, reference, labels, reference)
        print(f"{folder.name} dense: " + ", ".join(f"{task} {value:.4f}" for task, (value, _) in dense.items()), flush=True)
        for ratio in chosen.ratios:
            without = None
            for method in chosen.methods:
                with tempfile.TemporaryDirectory() as scratch:
                    samples, pruned = pathlib.Path(scratch) / "samples.npz", pathlib.Path(scratch) / "pruned.onnx"
                    np.savez(samples, **calibration)
                    command = [chosen.binary, folder / "model.onnx", pruned, "--ratio", ratio, "--repair", method]
                    command += ["--calibration", samples, *chosen.extra.split()]
                    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
                    if done.returncode:
                        failed = True
                        print(f"  {ratio} {method}: FAILED: {done.stderr.strip().splitlines()[-1:]}", flush=True)
                        continue
                    after = metrics(folder.name, outputs(pruned, test), labels, reference)
                loss = lost(dense, after)
                without = loss if method == "none" else without
                recovered = 100 * (1 - loss / without) if without else float("nan")
                row = {"model": folder.name, "ratio": ratio, "method": method, "lost": loss, "recovered": recovered}
                row["tasks"] = {task: value for task, (value, _) in after.items()}
                rows.append(row)
                values = ", ".join(f"{task} {value:.4f}" for task, (value, _) in after.items())
                print(f"  {ratio} {method:<14} lost {loss:6.1f}  recovered {recovered:6.1f} %  {values}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
