#!/usr/bin/env python
"""Prunes trained multi-task models, repairs them in every way, and measures each task on labelled samples that the program never saw.

    python tests/repair_table.py [--ratios 0.3 0.5] [--methods none bias batch-norm least-squares] [--seeds 0 1 2] [--only NAME…] [--extra "…"]

Run by hand or by `make repair-table` (needs numpy and onnxruntime). The models are those of onnx-models and, where they are found, of a
folder outside the repository; what is absent is said and skipped. Calibration samples go to the program without labels. Where a model comes
with test samples, these judge. Where it has labelled samples only, they are cut into FOLDS runs of neighbours (neighbours may be of one game
or one earthquake): every run is judged by the model that was fitted on the others, and the metrics are those of all samples together, so that
each sample judges once and none judges what it was fitted to. `lost` is the mean over tasks of what the dense model scores above the pruned
one, in points (100 x the metric; errors count 100 x the growth relative to the dense error), `recovered` the share of what `none` lost that
the repair brings back, both as the mean over seeds with the least and the largest. `worse` is by how many points the worst task is below
`none`. The exit status is 1 if a run failed.
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
# In so many parts go the samples of a model without test samples of its own: each part is judged by a fit on the others.
FOLDS = 4


def options():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/onnx-mtprune")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--methods", nargs="+", default=["none", "bias", "batch-norm", "least-squares"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
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
    """(parts, test labels): each part is (calibration inputs, test inputs), all by name; labels are those of all parts in order."""
    calibration = folder / ("calibration.npz" if (folder / "calibration.npz").is_file() else "inputs.npz")
    inputs = dict(np.load(calibration))
    if (folder / "test.npz").is_file():
        test = dict(np.load(folder / "test.npz"))
        labels = {key: test.pop(key) for key in list(test) if key not in inputs}
        return [(prepared(inputs, folder), prepared(test, folder))], labels
    inputs = prepared(inputs, folder)
    count = len(next(iter(inputs.values())))
    borders = [count * fold // FOLDS for fold in range(FOLDS + 1)]
    parts = []
    for start, end in zip(borders, borders[1:]):
        rest = {key: np.concatenate([values[:start], values[end:]]) for key, values in inputs.items()}
        fitted = {key: varied(folder.name, values) for key, values in rest.items()}
        parts.append((fitted, {key: values[start:end] for key, values in inputs.items()}))
    return parts, dict(np.load(folder / "labels.npz"))


def varied(model, samples):
    """Few samples and what else they tell: calibration needs no labels, so whatever the data allows makes more of it."""
    if model == "gomoku8":
        # A board, turned and mirrored, is a board; all eight stand together, for they are no new games.
        turned = [np.rot90(samples, quarter, axes=(2, 3)) for quarter in range(4)]
        return np.stack(turned + [board[:, :, :, ::-1] for board in turned], axis=1).reshape(-1, *samples.shape[1:])
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


def pruned(folder, parts, options):
    """All outputs of the pruned models for the test samples of all parts, each from the model fitted to its part; or why there are none."""
    found = []
    for calibration, test in parts:
        with tempfile.TemporaryDirectory() as scratch:
            samples, model = pathlib.Path(scratch) / "samples.npz", pathlib.Path(scratch) / "pruned.onnx"
            np.savez(samples, **calibration)
            command = [*options[:1], folder / "model.onnx", model, *options[1:], "--calibration", samples]
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
            if done.returncode:
                return None, str(done.stderr.strip().splitlines()[-1:])
            found.append(outputs(model, test))
    return together(found), None


def together(found):
    """Outputs of several runs as those of one."""
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


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
        parts, labels = load(folder)
        reference = together([outputs(folder / "model.onnx", test) for _, test in parts])
        dense = metrics(folder.name, reference, labels, reference)
        print(f"{folder.name} dense: " + ", ".join(f"{task} {value:.4f}" for task, (value, _) in dense.items()), flush=True)
        for ratio in chosen.ratios:
            without = None
            for method in chosen.methods:
                runs = []
                for seed in chosen.seeds:
                    how = ["--ratio", ratio, "--repair", method, "--seed", seed, *chosen.extra.split()]
                    found, why = pruned(folder, parts, [chosen.binary, *how])
                    if why:
                        failed = True
                        print(f"  {ratio} {method}: FAILED: {why}", flush=True)
                    else:
                        runs.append(metrics(folder.name, found, labels, reference))
                if not runs:
                    continue
                without = runs if method == "none" else without
                row = {"model": folder.name, "ratio": ratio, "method": method, **summary(dense, runs, without)}
                rows.append(row)
                values = ", ".join(f"{task} {value:.4f}" for task, value in row["tasks"].items())
                share = "recovered {:6.1f} % ({:.1f} to {:.1f})".format(*row["recovered"])
                print(f"  {ratio} {method:<14} lost {row['lost']:6.1f}  {share}  worse {row['worse']:4.1f}  {values}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(failed)


def summary(dense, runs, without):
    """What a row of the table says of the runs of all seeds, given those without repair."""
    row = {"lost": float(np.mean([lost(dense, run) for run in runs])), "recovered": [float("nan")] * 3, "worse": float("nan")}
    row["tasks"] = {task: float(np.mean([run[task][0] for run in runs])) for task in dense}
    if without:
        before = float(np.mean([lost(dense, run) for run in without]))
        shares = [100 * (1 - lost(dense, run) / before) if before else float("nan") for run in runs]
        row["recovered"] = [float(np.mean(shares)), min(shares), max(shares)]
        mean = {task: (float(np.mean([run[task][0] for run in without])), error) for task, (_, error) in dense.items()}
        tasks = [lost({task: dense[task]}, {task: (row["tasks"][task], None)}) - lost({task: dense[task]}, mean) for task in dense]
        row["worse"] = max(tasks)
    return row


if __name__ == "__main__":
    sys.exit(main())
