#!/usr/bin/env python
"""Prunes multi-task models with and without a protected task to the same multiplications, and prints how far every task moved.

    python tests/protect_table.py [--ratios 0.5] [--repairs none least-squares] [--only NAME…] [--extra "…"]

Run by hand or by `make protect-table` (needs numpy). The models are those of onnx-models and, where they are found, of a folder outside the
repository; what is absent is said and skipped. Without protection everything is pruned by the ratio. With it, the ratio of what is not
protected is bisected until the model needs no more multiplications than without, and as nearly as many as possible. Drift is that of the
report: the relative distance from the dense model on samples that nothing was fitted to. The exit status is 1 if a run failed.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUTSIDE = ROOT / "../shared/models"
MODELS = ["digit_scenes", "mmnist_lenet", "mmnist_resnet", "twinlitenet", "human_faceres", "retinaface_mnet025", "mp_iris_landmark",
          "tfjs_blazepose_lite", "gomoku8", "snips_lstm", "adult_mmoe", "basic_pitch"]
VARIANTS = {"twinlitenet": ("model_192x320.onnx", "inputs_192x320.npz")}


def options():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/onnx-mtprune")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5])
    parser.add_argument("--repairs", nargs="+", default=["none", "least-squares"])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--extra", default="", help="more options for the program, as one string")
    parser.add_argument("--trunk", type=float, help="the ratio of the trunk in runs with a protected task, in parts of the ratio without")
    parser.add_argument("--json", type=pathlib.Path, help="write all rows there as well")
    return parser.parse_args()


def prepared(folder, file):
    """The inputs as floats where meta.json scales them, else as they are."""
    preparation = json.loads((folder / "meta.json").read_text()).get("inputs_prep") or {}
    result = {}
    for name, values in np.load(file).items():
        how = preparation.get(name)
        if isinstance(how, dict) and (values.dtype == np.uint8 or "scale" in how):
            values = values.astype(np.float32) * np.float32(how.get("scale", 1))
            shape = [1] * values.ndim
            shape[how.get("axis", 1)] = -1
            mean, std = (np.asarray(how.get(key, usual), np.float32).reshape(-1) for key, usual in (("mean", 0), ("std", 1)))
            values = (values - (mean.reshape(shape) if mean.size > 1 else mean)) / (std.reshape(shape) if std.size > 1 else std)
        result[name] = values
    return result


def run(binary, words, folder):
    """The report of one run; the error's line where it failed."""
    report = folder / "report.json"
    command = [str(binary), *map(str, words), "--report", str(report), "--quiet", "--no-verify"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split("\n")[-3:]).strip())
    return json.loads(report.read_text())


def matched(binary, model, folder, words, most, fixed):
    """The smallest ratio with which the protected model needs no more than `most` multiplications; none where no ratio does."""
    macs = lambda ratio: run(binary, [model, folder / "x.onnx", "--dry-run", "--ratio", ratio, *words, *fixed], folder)["macs"]["after"]
    low, high = 0.0, 0.999
    if macs(high) > most:
        return None
    for _ in range(11):
        middle = round((low + high) / 2, 5)
        low, high = (middle, high) if macs(middle) > most else (low, middle)
    return high


def drift(report):
    """How far every task moved: the root of the mean of the squares of its outputs' relative distances."""
    return {row["task"]: float(np.sqrt(np.mean([output["relative"] ** 2 for output in row["outputs"]])))
            for row in report["calibration"]["fidelity"]}


def rows_of(arguments, name, folder):
    """One row for every protected task, ratio and repair."""
    model, samples = VARIANTS.get(name, ("model.onnx", "calibration.npz" if (folder / "calibration.npz").is_file() else "inputs.npz"))
    model = folder / model
    extra = arguments.extra.split()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        arrays = prepared(folder, folder / samples)
        np.savez(scratch / "samples.npz", **arrays)
        out = scratch / "out.onnx"
        for ratio in arguments.ratios:
            plain = run(arguments.binary, [model, out, "--dry-run", "--ratio", ratio], scratch)
            fixed = [] if arguments.trunk is None else ["--trunk-ratio", round(arguments.trunk * ratio, 5)]
            tasks, most = [task["name"] for task in plain["tasks"]], plain["macs"]["after"]
            found = {task: matched(arguments.binary, model, scratch, ["--protect-task", task], most, fixed) for task in tasks}
            for repair in arguments.repairs:
                calibrated = ["--calibration", scratch / "samples.npz", "--repair", repair, *extra]
                before = drift(run(arguments.binary, [model, out, "--ratio", ratio, *calibrated], scratch))
                for task in tasks:
                    row = {"model": name, "ratio": ratio, "repair": repair, "task": task, "without": before}
                    if found[task] is None:
                        yield {**row, "failed": "no ratio of the rest reaches the same multiplications"}
                        continue
                    words = ["--ratio", found[task], "--protect-task", task, *fixed]
                    report = run(arguments.binary, [model, out, *words, *calibrated], scratch)
                    yield {**row, "with": drift(report), "rest": found[task], "macs": report["macs"]["after"], "macs_without": most}


def line(row):
    """One row for people."""
    head = f"{row['model']:20} {row['ratio']:<5} {row['repair']:14} {row['task'][:28]:28}"
    if "failed" in row:
        return f"{head} {row['failed']}"
    own, before = row["with"][row["task"]], row["without"][row["task"]]
    others = [f"{task[:16]} {100 * row['without'][task]:.1f}->{100 * value:.1f}" for task, value in row["with"].items() if task != row["task"]]
    verdict = "half" if own <= before / 2 else "    "
    return (f"{head} {100 * before:7.2f} % -> {100 * own:7.2f} %  {own / max(before, 1e-12):5.2f} {verdict}  rest {row['rest']:.3f}"
            f"  MACs {row['macs'] / row['macs_without']:.3f}  others {', '.join(others)}")


def main():
    """All rows."""
    arguments = options()
    rows, failed = [], False
    for name in arguments.only or MODELS:
        folder = next((place / name for place in (ROOT / "onnx-models", OUTSIDE) if (place / name).is_dir()), None)
        if folder is None:
            print(f"skipped: {name} is not there")
            continue
        try:
            for row in rows_of(arguments, name, folder):
                rows.append(row)
                print(line(row), flush=True)
        except RuntimeError as error:
            print(f"{name}: {error}")
            failed = True
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
