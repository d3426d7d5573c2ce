"""Backward models of real models and of the zoo: does the ONNX checker take them, do engines run them?

    python tests/zoo/gradients.py --binary target/release/onnx-mtprune --zoo target/zoo --models ../shared/models

One line per model: how many values get a gradient, what stops, whether `onnx.checker` (full) passes, whether ONNX
Runtime and the built-in engine run the backward model with finite results. Fails if a backward model that was written
is refused by ONNX Runtime, or by the checker that takes the original. Needs onnx and onnxruntime.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import onnx
import onnxruntime

LIMIT = 120


def command(binary, path, out, engine, extra=("--check",)):
    try:
        run = subprocess.run(
            [binary, "gradient", str(path), str(out), "--engine", engine, *extra],
            capture_output=True, text=True, timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"more than {LIMIT} s"
    return run.returncode, run.stdout, run.stderr


def complains(path):
    """What the checker says, or nothing."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as problem:
        return str(problem).strip().splitlines()[-1][:120]
    return None


def judge(binary, path, folder, tract):
    out = folder / "backward.onnx"
    row = {"model": path.stem if path.stem != "model" else path.parent.name}
    if path.stem.startswith("model_"):
        row["model"] = f"{path.parent.name} ({path.stem})"
    code, page, error = command(binary, path, out, "onnxruntime")
    kinds = {n.op_type for n in onnx.load(path, load_external_data=False).graph.node}
    row["convolutional"] = "Conv" in kinds or "FusedConv" in kinds
    if code != 0:
        row["outcome"] = "none"
        row["note"] = error.strip().splitlines()[-1][:160] if error.strip() else str(code)
        match = re.search(r"error: (.*)", error)
        row["note"] = (match.group(1) if match else row["note"])[:200]
        # Written, but it did not run.
        row["refused"] = command(binary, path, out, "onnxruntime", ())[0] == 0
        return row
    row["gradients"] = int(re.search(r"gradients of .*: (\d+), ", page).group(1))
    row["stops"] = re.findall(r"stopped at ([^\n]*?\)): ", page)
    row["finite"] = "all gradients are finite" in page
    behind = re.search(r"behind a stop, no gradient: (.*)", page)
    row["behind"] = 0 if not behind else behind.group(1).count(",") + 1 + int((re.findall(r"and (\d+) more", behind.group(1)) or [0])[0])
    complaint = complains(out)
    # What the checker says of the original it says of what holds the original.
    row["checker"] = "passed" if complaint is None else "refuses the original, too" if complains(path) else complaint
    # The run in ONNX Runtime is that of --check; a session of its own confirms that Python loads the file as well.
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        onnxruntime.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
        row["runtime"] = "ran"
    except Exception as problem:
        row["runtime"] = str(problem)[:120]
    if tract:
        code, page, error = command(binary, path, out, "tract")
        row["tract"] = "ran" if code == 0 and "all gradients are finite" in page else (
            "not finite" if code == 0 else error.strip().splitlines()[-1][:100] if error.strip() else str(code))
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/onnx-mtprune")
    parser.add_argument("--zoo", type=pathlib.Path, default=pathlib.Path("target/zoo"))
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("../shared/models"))
    parser.add_argument("--only", default="", help="a regular expression for the names of zoo files")
    parser.add_argument("--largest", type=float, default=60, help="megabytes of a zoo file")
    parser.add_argument("--no-tract", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    paths = sorted(arguments.models.glob("*/model*.onnx")) if arguments.models.is_dir() else []
    if not paths:
        print(f"skipped: no models in {arguments.models}")
    # One file per family: the plain export.
    plain = [p for p in sorted(arguments.zoo.glob("*.onnx")) if not re.search(r"-(dynbatch|dynquant|qdq|qop)", p.stem)]
    plain = [p for p in plain if not (p.stem.endswith("-dynamo") and p.with_name(p.stem[:-7] + ".onnx").exists())]
    plain = [p for p in plain if re.search(arguments.only, p.stem) and p.stat().st_size < arguments.largest * 1e6]
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for path in paths + plain:
            begun = time.perf_counter()
            row = judge(arguments.binary, path, pathlib.Path(folder), not arguments.no_tract)
            rows.append(row)
            if "outcome" in row:
                failed += row["refused"]
                print(f"{row['model']:44} {'REFUSED' if row['refused'] else 'no gradient'}: {row['note']}", flush=True)
                continue
            good = row["checker"] in ("passed", "refuses the original, too") and row["runtime"] == "ran" and row["finite"]
            failed += not good
            print(
                f"{row['model']:44} {row['gradients']:4} gradients, {row['behind']:4} behind {len(row['stops'])} stops"
                f" {'; '.join(row['stops'])[:90]:90} checker {row['checker']}, ONNX Runtime {row['runtime']}"
                f"{'' if row['finite'] else ' (not finite)'}, tract {row.get('tract', '-')}"
                f" [{time.perf_counter() - begun:.0f} s]",
                flush=True,
            )
    written = [r for r in rows if "outcome" not in r]
    print(
        f"{len(rows)} models, {len(written)} with a backward model ({sum(r['convolutional'] for r in written)} convolutional), "
        f"{sum(not r['stops'] for r in written)} without a stop; checker passes {sum(r['checker'] == 'passed' for r in written)}, "
        f"ONNX Runtime runs {sum(r['runtime'] == 'ran' for r in written)}, finite {sum(r['finite'] for r in written)}, "
        f"tract runs {sum(r.get('tract') == 'ran' for r in written)}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
