#!/usr/bin/env python
"""Prunes real models at several ratios, checks every result with programs that share no code with this project, and prints one table.

    python tests/models_table.py [--all] [--ratios 0.25 0.5 0.75] [--only NAME…] [--extra "--score l1"]

Run by hand or by `make models-table`. For every model and ratio it runs

    onnx-mtprune IN OUT --ratio R --round-to N --report REPORT

and then, where they are found, the two checkers: `check.py` (the file loads, runs, keeps its interface, and infers) and `masked.py` (the
pruned file computes what the original computes once the removed weights are zero). Models and checkers lie outside the repository; what
is absent is said and skipped. The exit status is 1 if anything failed, 2 if there was nothing to run.

A mismatch in `masked.py` decides nothing where statistics run over pruned channels or where weights are not unique; the table then says
`undecided` and why, and the program's own verdict (column "verified") stands alone. Values that are not in the original at all are a
failure, unless --extra asks for a repair, which changes weights.
"""

import argparse
import concurrent.futures
import concurrent.futures.process
import json
import multiprocessing
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

CONVOLUTIONAL = (
    "twinlitenet yunet_n retinaface_mnet025 ultraface_slim320 mtcnn_pnet mtcnn_onet alike_t tfjs_posenet tfjs_blazepose_lite "
    "mp_hand_landmark_lite mp_iris_landmark human_faceres gomoku8 mmnist_lenet mmnist_resnet phasenet ppocr_cls mlperf_ic_resnet8"
).split()
COLUMNS = "model | ratio | exit | s | verified | check | masked | stat ops | parameters kept | MACs kept | note".split(" | ")
ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    """Options of the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", type=pathlib.Path, default=ROOT / "../shared/models", help="folder of model folders")
    options.add_argument("--tools", type=pathlib.Path, default=ROOT / "../shared/tools", help="folder of check.py and masked.py")
    options.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/onnx-mtprune")
    options.add_argument("--ratios", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    options.add_argument("--round-to", type=int, default=1)
    options.add_argument("--all", action="store_true", help="every folder and every .onnx in it, not only the convolutional models")
    options.add_argument("--only", nargs="+", help="these folders")
    options.add_argument("--extra", default="", help="more options for the program, as one string")
    options.add_argument("--timeout", type=float, default=900, help="seconds for one run of the program")
    options.add_argument("--keep", type=pathlib.Path, help="keep the pruned files and reports in this folder")
    options.add_argument("--json", type=pathlib.Path, help="write all rows there as well")
    return options.parse_args()


def files(options):
    """(label, path) of the models to run; absent ones are said."""
    folders = options.only or (sorted(p.name for p in options.models.iterdir() if p.is_dir()) if options.all else CONVOLUTIONAL)
    found = []
    for name in folders:
        here = sorted((options.models / name).glob("*.onnx"))
        if not options.all:
            here = [path for path in here if path.name == "model.onnx"]
        if not here:
            print(f"skipped: no model in {options.models / name}", file=sys.stderr)
        found += [(name if path.name == "model.onnx" else f"{name}/{path.stem}", path) for path in here]
    return found


def inspect(tools, original, pruned):
    """Both checkers on one pair of files; runs in a process of its own, since a runtime may crash on a broken file."""
    sys.path.insert(0, tools)
    from check import check
    from masked import masked

    outcome = {}
    for name, run in (("check", lambda: check(original, pruned, latency=False)), ("masked", lambda: masked(original, pruned))):
        try:
            outcome[name] = run()
        except Exception as error:  # one checker that stumbles must not hide the other
            outcome[name] = {"err": f"{type(error).__name__}: {error}"}
    return outcome


class Checkers:
    """One checking process, started again when it dies."""

    def __init__(self, tools):
        self.tools = str(tools.resolve())
        self.present = all((tools / name).is_file() for name in ("check.py", "masked.py"))
        self.pool = None
        if not self.present:
            print(f"skipped: no check.py and masked.py in {tools}; only the program's own verdict is shown", file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pool is not None:
            self.pool.shutdown()

    def run(self, original, pruned):
        """Outcome of both checkers, or an error in their place."""
        if self.pool is None:
            context = multiprocessing.get_context("spawn")
            self.pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
        try:
            return self.pool.submit(inspect, self.tools, str(original), str(pruned)).result()
        except concurrent.futures.process.BrokenProcessPool:
            self.pool = None
            return {"check": {"err": "the checking process crashed"}, "masked": {"err": "the checking process crashed"}}


def verdict(report):
    """The program's own verdict in its report: True, False, or None when it says nothing. Accepts a flag or an object with one."""
    if not isinstance(report, dict):
        return None
    for key in ("verified", "verification", "verify", "verdict"):
        value = report.get(key)
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            return value.lower() in ("verified", "passed", "pass", "ok", "equal")
        if isinstance(value, dict):
            if isinstance(value.get("outcome"), str):
                return value["outcome"] == "passed"
            for flag in ("verified", "passed", "pass", "ok", "equal"):
                if isinstance(value.get(flag), bool):
                    return value[flag]
    return None


def judge_masked(outcome, repaired):
    """(text, failed) for the outcome of masked.py."""
    if outcome.get("match"):
        return "match", False
    if outcome.get("err"):
        return "error", True
    if outcome.get("skip"):
        return f"skipped: {outcome['skip']}", False
    if outcome.get("stat_ops"):
        return "undecided: statistics", False
    if outcome.get("notfound"):
        return f"{outcome['notfound']} new values", not repaired
    if outcome.get("ambiguous"):
        return f"undecided: {outcome['ambiguous']} not unique", False
    return "MISMATCH", True


def percent(share):
    """A share as text with one decimal."""
    return "-" if share is None else f"{100 * share:.1f} %"


def one(options, checkers, label, path, ratio, folder):
    """One row of the table and whether it failed."""
    pruned = folder / f"{label.replace('/', '_')}-{ratio}.onnx"
    record = pruned.with_suffix(".json")
    for stale in (pruned, record):
        stale.unlink(missing_ok=True)
    command = [str(options.binary), str(path), str(pruned), "--ratio", str(ratio)]
    command += ["--round-to", str(options.round_to), "--report", str(record), *shlex.split(options.extra)]
    row = dict.fromkeys(COLUMNS, "-") | {"model": label, "ratio": ratio, "note": ""}
    failed, begin = [], time.monotonic()
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout, errors="replace")
        row["exit"], said = run.returncode, (run.stderr.strip() or run.stdout.strip()).splitlines()
    except subprocess.TimeoutExpired:
        row["exit"], said = "timeout", [f"no end within {options.timeout:.0f} s"]
    row["s"] = f"{time.monotonic() - begin:.1f}"
    if row["exit"] != 0:
        errors = [text for text in said if "error" in text.lower() or "panicked" in text]
        row["note"] = (errors or said or ["no message"])[0]
        return row, True
    try:
        verified = verdict(json.loads(record.read_text()))
    except (OSError, ValueError) as error:
        verified = None
        failed.append(f"report: {error}")
    row["verified"] = {True: "yes", False: "NO", None: "-"}[verified]
    if verified is False:
        failed.append("not verified")
    if not pruned.is_file():
        failed.append("no output file")
    elif checkers.present:
        outcome = checkers.run(path, pruned)
        check, masked = outcome["check"], outcome["masked"]
        row["check"] = "ok" if check.get("ok") else "FAILED"
        if not check.get("ok"):
            failed.append(f"check: {check.get('err')}")
        row["masked"], bad = judge_masked(masked, "--repair" in options.extra)
        if bad:
            failed.append(f"masked: {masked.get('err') or masked.get('rel')}")
        row["stat ops"] = " ".join(masked.get("stat_ops", [])) or "-"
        row["parameters kept"] = percent(check.get("params_kept"))
        row["MACs kept"] = percent(check.get("macs_kept"))
        if check.get("changed") is False:
            row["note"] = "nothing removed"
    row["note"] = "; ".join(failed) or row["note"]
    return row, bool(failed)


def line(values):
    """One row of a Markdown table; a bar or a line break inside a value would break it."""
    return "| " + " | ".join(" ".join(str(value).split()).replace("|", "/")[:160] for value in values) + " |"


def main():
    """Runs everything, one after another; returns the exit status."""
    options = arguments()
    if not options.models.is_dir():
        print(f"skipped: no folder {options.models}", file=sys.stderr)
        return 2
    if not options.binary.is_file():
        print(f"skipped: no program at {options.binary}; build it with `cargo build --release`", file=sys.stderr)
        return 2
    rows, failures = [], 0
    with Checkers(options.tools) as checkers, tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(line(COLUMNS))
        print(line(["---"] * len(COLUMNS)))
        for label, path in files(options):
            for ratio in options.ratios:
                try:
                    row, failed = one(options, checkers, label, path, ratio, folder)
                except Exception as error:  # the rest of the table is worth more than this row
                    row = dict.fromkeys(COLUMNS, "-") | {"model": label, "ratio": ratio, "note": f"{type(error).__name__}: {error}"}
                    failed = True
                failures += failed
                rows.append(row | {"failed": failed})
                print(line(row[column] for column in COLUMNS), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")

    def count(column, value):
        return sum(row[column] == value for row in rows)

    undecided = sum(str(row["masked"]).startswith(("undecided", "skipped")) for row in rows)
    print(
        f"\n{len(rows)} runs: {len(rows) - failures} passed, {failures} failed; exit 0 in {count('exit', 0)}, "
        f"verified in {count('verified', 'yes')}, check ok in {count('check', 'ok')}, masked match in {count('masked', 'match')}, "
        f"undecided in {undecided}"
    )
    return int(failures > 0) if rows else 2


if __name__ == "__main__":
    sys.exit(main())
