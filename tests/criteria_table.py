#!/usr/bin/env python
"""Compares criteria, and ways to combine what tasks say, at equal multiplications: every task's metric on labelled samples.

    python tests/criteria_table.py [--macs 0.75 0.5 0.3] [--criteria l2 column-subset taylor…] [--aggregations mean max…]
                                   [--repairs none least-squares] [--only NAME…] [--labels] [--json FILE]

Run by hand or by `make criteria-table` (needs numpy and onnxruntime). The models are trained multi-task networks of onnx-models. The ratio that
leaves a wanted share of the multiplications is found by bisection; it is the same for all criteria, because every group loses the same
fraction, except with `--scope global` in --extra, where groups compete: then it is found anew. Criteria that look at gradients are run once per
aggregation, the others once. Calibration samples go to the program without labels unless --labels is given. `lost` is what
repair_table.py calls it: the mean over tasks, in points.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from repair_table import ROOT, load, lost, metrics, outputs

GRADIENT = "taylor taylor-weight fisher obd cosprune snip gradient-activation".split()


def options():
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/onnx-mtprune")
    parser.add_argument("--macs", type=float, nargs="+", default=[0.75, 0.5, 0.3])
    parser.add_argument("--criteria", nargs="+", default=["random", "l2", "column-subset", "column-subset:fisher", *GRADIENT])
    parser.add_argument("--aggregations", nargs="+", default=["mean"])
    parser.add_argument("--repairs", nargs="+", default=["none", "least-squares"])
    parser.add_argument("--only", nargs="+", default=["digit_scenes", "mmnist_resnet"])
    parser.add_argument("--labels", action="store_true", help="give the labels of the calibration samples to the program")
    parser.add_argument("--extra", default="", help="more options for the program, as one string")
    parser.add_argument("--json", type=pathlib.Path, help="write all rows there as well")
    return parser.parse_args()


def run(command):
    """Runs the program; an error is what it says last."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [str(done.returncode)])[-1])


def kept_macs(report):
    """The share of multiplications that remains."""
    macs = json.loads(report.read_text())["macs"]
    return macs["after"] / macs["before"]


def ratio_for(share, command, scratch):
    """The ratio at which `share` of the multiplications remains, and what does remain."""
    report, low, high = scratch / "report.json", 0.0, 0.95
    best = (2.0, 0.0, 1.0)
    for _ in range(9):
        ratio = (low + high) / 2
        run([*command, "--ratio", ratio, "--dry-run", "--no-verify", "--report", report])
        kept = kept_macs(report)
        best = min(best, (abs(kept - share), ratio, kept))
        low, high = (ratio, high) if kept > share else (low, ratio)
    return best[1], best[2]


def settings(chosen):
    """(criterion, aggregation or nothing) in the order of the table."""
    for criterion in chosen.criteria:
        name = criterion.split(":")[0]
        for aggregation in chosen.aggregations if name in GRADIENT or ":" in criterion else [None]:
            yield criterion, aggregation


def spelled(criterion, aggregation):
    """The options of a setting; `column-subset:fisher` is column-subset with fisher as its importance."""
    name, _, importance = criterion.partition(":")
    return ["--criterion", name, *(["--importance", importance] if importance else []), *(["--task-aggregation", aggregation] if aggregation else [])]


def page(rows):
    """The points that every setting loses, in Markdown: a table per model, a column per share of the multiplications and repair."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        columns = sorted({(row["repair"], -round(100 * row["macs"])) for row in own}, key=lambda c: (c[0] == "least-squares", c))
        heads = [f"{-share} %{', repaired' if repair == 'least-squares' else ''}" for repair, share in columns]
        lines += ["", f"| `{model}` | aggregation | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(columns)]
        found = {}
        for row in own:
            key = row["criterion"].replace(":", " --importance "), row["aggregation"] or "-"
            found.setdefault(key, {})[row["repair"], -round(100 * row["macs"])] = f"{row['lost']:.1f}"
        for (criterion, aggregation), lost in found.items():
            lines.append(f"| `{criterion}` | {aggregation} | " + " | ".join(lost.get(c, "-") for c in columns) + " |")
    return "\n".join(lines)


def main():
    """Runs everything and prints the table; the exit status."""
    chosen = options()
    rows, failed = [], False
    for name in chosen.only:
        folder = ROOT / "onnx-models" / name
        parts, labels = load(folder)
        ((calibration, test),) = parts
        reference = outputs(folder / "model.onnx", test)
        dense = metrics(name, reference, labels, reference)
        print(f"{name} dense: " + ", ".join(f"{task} {value:.4f}" for task, (value, _) in dense.items()), flush=True)
        with tempfile.TemporaryDirectory() as place:
            scratch = pathlib.Path(place)
            samples, pruned = scratch / "samples.npz", scratch / "pruned.onnx"
            np.savez(samples, **calibration)
            base = [chosen.binary, folder / "model.onnx", pruned]
            given = ["--calibration", samples]
            if chosen.labels:
                given += ["--labels", folder / "calibration_labels.npz"]
            for share in chosen.macs:
                ratio, kept = ratio_for(share, [*base, "--criterion", "l2"], scratch)
                print(f" {100 * kept:.0f} % of the MACs, ratio {ratio:.3f}", flush=True)
                for criterion, aggregation in settings(chosen):
                    own = ratio
                    for repair in chosen.repairs:
                        command = [*base, *given, "--repair", repair, *spelled(criterion, aggregation), *chosen.extra.split()]
                        try:
                            if "global" in chosen.extra and repair == chosen.repairs[0]:
                                own, _ = ratio_for(share, command, scratch)
                            run([*command, "--ratio", own, "--no-verify", "--report", scratch / "report.json"])
                        except RuntimeError as error:
                            failed = True
                            print(f"  {criterion} {aggregation} {repair}: FAILED: {error}", flush=True)
                            continue
                        after = metrics(name, outputs(pruned, test), labels, reference)
                        row = {"model": name, "macs": kept_macs(scratch / "report.json"), "criterion": criterion, "aggregation": aggregation}
                        row |= {"repair": repair, "lost": lost(dense, after), "tasks": {task: value for task, (value, _) in after.items()}}
                        rows.append(row)
                        values = ", ".join(f"{task} {value:.3f}" for task, value in row["tasks"].items())
                        print(f"  {criterion:<20} {aggregation or '-':<12} {repair:<14} lost {row['lost']:6.1f}  {values}", flush=True)
                        if chosen.json:
                            chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(page(rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
