#!/usr/bin/env python
"""Prunes every file of the zoo to half, has each result judged by programs that share no code, and prints one table.

    python tests/zoo/check.py [--zoo target/zoo] [--binary target/release/onnx-mtprune] [--only GLOB] [--json FILE]

For each file: the program's own verdict (the built-in engine), `check.py` (loads, runs, keeps its interface; an independent checker, which
lies outside the repository and is skipped visibly where absent), judge.py (the masked reference in ONNX Runtime), what is left of
parameters and multiplications, and Torch-Pruning's figures where torch_pruning.json has them. Where less than 3 % went, `inspect` must
prove that hardly anything is prunable, and its reasons are shown. The exit status is 1 if any file fails.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
JUDGE = pathlib.Path(__file__).resolve().parent / "judge.py"
COLUMNS = "file | s | exit | verified | ORT | check | parameters | kept | MACs kept | Torch-Pruning | note".split(" | ")
Row = dict[str, Any]


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, default=ROOT / "target/zoo")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/onnx-mtprune")
    parser.add_argument("--checker", type=pathlib.Path, default=ROOT / "../shared/tools/check.py")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the pruned files (default: ZOO/pruned)")
    parser.add_argument("--json", type=pathlib.Path, help="where all rows go (default: OUT/check.json)")
    parser.add_argument("--only", default="*", help="pattern of file names without the ending, such as 'swin*'")
    parser.add_argument("--page", type=pathlib.Path, help="write the figures of each family as a document")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--extra", default="", help="more options for the program, as one string")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for each of the programs on one file")
    return parser.parse_args()


def run(command: list[Any], timeout: float) -> tuple[int | str, str, str]:
    """Exit status (or "timeout"), what was printed, and the first error in one line."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired:
        return "timeout", "", f"not done after {timeout:g} s"
    lines = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "panicked" in line]
    return done.returncode, done.stdout, (errors or lines or [""])[-1 if "Traceback" in done.stderr else 0][:400]


def last_object(text: str) -> dict[str, Any]:
    """The JSON object in the last line."""
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def examine(path: pathlib.Path, chosen: argparse.Namespace, peers: dict[str, Any]) -> Row:
    """One row of the table."""
    began = time.monotonic()
    base = chosen.out / path.stem
    pruned, report, plan = (base.with_name(base.name + end) for end in (".onnx", ".report.json", ".plan.json"))
    for stale in (pruned, report, plan):
        stale.unlink(missing_ok=True)
    command = [chosen.binary, path, pruned, "--ratio", chosen.ratio, "--round-to", 1, "--report", report, "--plan-out", plan]
    code, _, error = run([*command, *chosen.extra.split()], chosen.timeout)
    described = json.loads(path.with_suffix(".json").read_text()) if path.with_suffix(".json").is_file() else {}
    row: Row = {"file": path.stem, "family": described.get("family", path.stem), "exit": code, "failures": [], "notes": []}
    if code == 0:
        judge_all(row, path, pruned, report, plan, chosen)
        compare(row, peers, path, chosen)
    else:
        row["failures"].append(f"exit {code}: {error}")
    row["s"] = round(time.monotonic() - began, 1)
    return row


def judge_all(row: Row, path: pathlib.Path, pruned: pathlib.Path, report: pathlib.Path, plan: pathlib.Path, chosen: argparse.Namespace) -> None:
    """Fills in what the report and the judges say."""
    said = json.loads(report.read_text())
    verification = said["verification"]
    row["verified"] = {"passed": True, "failed": False}.get(verification["outcome"])
    row["engine"] = verification.get("engine")
    if row["verified"] is None:
        row["notes"].append(f"not run by the program's engines: {verification.get('reason')}")
    elif not row["verified"]:
        row["failures"].append(f"own verification: {verification.get('reason')}")
    for what in ("parameters", "macs"):
        before, after = said[what]["before"], said[what]["after"]
        row[what], row[f"{what}_kept"] = before, after / before if before else 1.0
    row["stays"] = [{"reason": r["reason"], "share": round(r["share"], 4)} for r in said["stays"][:5]]
    if chosen.checker.is_file():
        code, text, error = run([sys.executable, chosen.checker, path, pruned, "--no-latency"], chosen.timeout)
        outcome = last_object(text)
        row["check"] = outcome.get("ok")
        if not row["check"]:
            why = f"check.py: {outcome.get('err') or error or code}"
            # What it says of a file beside itself is the original's fault, or the runtime's.
            _, text, _ = run([sys.executable, chosen.checker, path, path, "--no-latency"], chosen.timeout)
            if last_object(text).get("ok"):
                row["failures"].append(why)
            else:
                row["check"] = None
                row["notes"].append(f"the original fails as well in {why}")
    code, text, error = run([sys.executable, JUDGE, path, pruned, plan], chosen.timeout)
    verdict = last_object(text)
    row["judge"], row["relative"] = verdict.get("agree"), verdict.get("relative")
    if row["judge"] is False or not verdict:
        row["failures"].append(f"judge.py: {verdict.get('reason') or error or code}")
    elif row["judge"] is None:
        row["notes"].append(f"judge.py: {verdict.get('reason')}")
    if row["parameters_kept"] > 0.97:
        explain(row, path, chosen)


def explain(row: Row, path: pathlib.Path, chosen: argparse.Namespace) -> None:
    """Adds why so little went; that is a failure unless the groups that may shrink hold hardly any parameters."""
    code, text, error = run([chosen.binary, "inspect", "--json", path], chosen.timeout)
    if code != 0:
        row["failures"].append(f"inspect: {error}")
        return
    found = json.loads(text)
    share = found["parameters"]["prunable"] / max(1, found["parameters"]["total"])
    row["prunable_share"] = share
    why = "; ".join(f"{r['reason']} ({100 * r['share']:.0f} %)" for r in found["stays"][:3])
    text = f"less than 3 % went, {100 * share:.0f} % is prunable: {why}"
    row["failures" if share > 0.1 else "notes"].append(text)


def compare(row: Row, peers: dict[str, Any], path: pathlib.Path, chosen: argparse.Namespace) -> None:
    """Adds what Torch-Pruning keeps of the same family, and what keeps more here: where the difference goes once axes under statistics,
    which it cuts and which no masked original equals, may shrink as well, the reason is exactness."""
    peer = peers.get(row["family"], {})
    if not peer.get("success"):
        return
    row["torch_pruning"] = peer["parameters_after"] / peer["parameters_before"]
    # It cannot count the multiplications of some pruned models.
    if peer.get("macs_after") and peer.get("macs_before"):
        row["torch_pruning_macs"] = peer["macs_after"] / peer["macs_before"]
    row["no_more"] = row["parameters_kept"] <= row["torch_pruning"] + 1e-3
    if not row["no_more"]:
        why = "; ".join(f"{r['reason']} ({100 * r['share']:.0f} %)" for r in row["stays"][:2])
        row["notes"].append(f"more than Torch-Pruning: {why}")
        report = chosen.out / f"{path.stem}.approximate.json"
        report.unlink(missing_ok=True)
        command = [chosen.binary, path, chosen.out / "never.onnx", "--ratio", chosen.ratio, "--round-to", 1, "--allow-approximate"]
        code, _, error = run([*command, "--dry-run", "--no-verify", "--report", report], chosen.timeout)
        if code == 0:
            counted = json.loads(report.read_text())["parameters"]
            row["approximate_kept"] = counted["after"] / counted["before"]
        else:
            row["failures"].append(f"--allow-approximate: {error}")


def cell(row: Row, column: str) -> str:
    """One cell of the table."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    def answer(value: bool | None) -> str:
        return {True: "yes", False: "NO", None: "-"}[value]

    match column:
        case "verified" | "check":
            return answer(row.get(column))
        case "ORT":
            return answer(row.get("judge"))
        case "parameters":
            return f"{row['parameters']:,}" if "parameters" in row else "-"
        case "kept":
            return percent(row.get("parameters_kept"))
        case "MACs kept":
            return percent(row.get("macs_kept"))
        case "Torch-Pruning":
            return f"{percent(row.get('torch_pruning'))} / {percent(row.get('torch_pruning_macs'))}"
        case "note":
            return "; ".join([f"FAILED: {text}" for text in row["failures"]] + row["notes"])[:220]
        case _:
            return str(row.get(column, "-"))


def table(rows: list[Row]) -> str:
    """All rows, aligned; the note is last and ragged."""
    lines = [COLUMNS, *([cell(row, column) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]

    def aligned(line: list[str]) -> str:
        first, *middle = (text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line[:-1], widths)))
        return "  ".join([first, *middle, line[-1]]).rstrip()

    return "\n".join(map(aligned, lines))


def approximates(row: Row) -> bool:
    """True if no more than Torch-Pruning's is kept once axes under statistics may shrink."""
    return row.get("approximate_kept", 2.0) <= row["torch_pruning"] + 1e-3


def in_tract(row: Row) -> bool:
    """True if the built-in engine ran and passed it; the program asks ONNX Runtime, where it finds it, for what tract cannot run."""
    return row.get("verified") is True and str(row.get("engine")).startswith("tract")


def summary(rows: list[Row], checked: bool) -> str:
    """The counts in one line."""
    # One file of each family: that with its plain name, which the first exporter wrote.
    beside = [row for row in rows if "no_more" in row and row["file"] == row["family"]]
    return ", ".join(
        [
            f"{len(rows)} files of {len({row['family'] for row in rows})} families",
            f"exit 0: {sum(row['exit'] == 0 for row in rows)}",
            f"verified by the program: {sum(row.get('verified') is True for row in rows)} (in tract {sum(in_tract(row) for row in rows)})",
            f"by a program of its own in ONNX Runtime: {sum(row.get('judge') is True for row in rows)}",
            f"by either: {sum(row.get('verified') is True or row.get('judge') is True for row in rows)}",
            f"check.py ok: {sum(row.get('check') is True for row in rows)}" if checked else "check.py skipped",
            f"less than 3 % went: {sum(row.get('parameters_kept', 0) > 0.97 for row in rows)}",
            f"no more parameters than Torch-Pruning: {sum(row['no_more'] for row in beside)} of {len(beside)} families "
            f"(with --allow-approximate {sum(row['no_more'] or approximates(row) for row in beside)})",
            f"failed: {sum(bool(row['failures']) for row in rows)}",
        ]
    )


def page(rows: list[Row], checked: bool) -> str:
    """The figures as a document: one line per family, that of the file which the first exporter wrote."""
    lines = [
        "# The zoo",
        "",
        "What is left of random networks of many families at `--ratio 0.5 --round-to 1`, in percent, as `make zoo-check` last",
        "wrote it. *Exact* names the judges that ran the masked original and the pruned file: tract (built in), ORT (ONNX",
        "Runtime, by a program of its own). The last column is what Torch-Pruning 1.6.1 keeps of the same network, where it",
        "succeeds; it also cuts axes under LayerNormalization, which changes what the rest computes. Where it keeps less, what",
        "ours keeps with `--allow-approximate`, which unlocks those axes, stands beside it.",
        "",
        f"{summary(rows, checked)[0].upper()}{summary(rows, checked)[1:]}.",
        "",
        "| family | parameters | kept | MACs kept | exact | Torch-Pruning |",
        "|---|---:|---:|---:|---|---:|",
    ]
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row["family"], row["file"] != row["family"], row["file"])):
        first.setdefault(row["family"], row)
    for family, row in first.items():
        judges = [name for name, agrees in (("tract", in_tract(row)), ("ORT", row.get("judge") is True)) if agrees]
        peer = cell(row, "Torch-Pruning").split(" / ")[0] if "torch_pruning" in row else ""
        if "approximate_kept" in row:
            peer += f" (ours with --allow-approximate {100 * row['approximate_kept']:.1f} %)"
        cells = [family, cell(row, "parameters"), cell(row, "kept"), cell(row, "MACs kept"), ", ".join(judges) or "not judged", peer]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs everything; returns the exit status."""
    chosen = options()
    chosen.out = chosen.out or chosen.zoo / "pruned"
    chosen.out.mkdir(parents=True, exist_ok=True)
    files = [path for path in sorted(chosen.zoo.glob("*.onnx")) if pathlib.PurePath(path.stem).match(chosen.only) and ".tmp" not in path.name]
    if not files or not chosen.binary.is_file():
        print(f"nothing to do: {len(files)} files in {chosen.zoo}, program {chosen.binary}", file=sys.stderr)
        return 2
    checked = chosen.checker.is_file()
    if not checked:
        print(f"skipped: no independent checker at {chosen.checker}", file=sys.stderr)
    peers_path = chosen.zoo / "torch_pruning.json"
    peers = json.loads(peers_path.read_text()) if peers_path.is_file() else {}
    record = chosen.json or chosen.out / "check.json"
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        rows: list[Row] = []
        for number, row in enumerate(pool.map(lambda path: examine(path, chosen, peers), files), 1):
            rows.append(row)
            record.write_text(json.dumps(rows, indent=1) + "\n")  # after every file: the whole zoo takes long
            said = f"FAILED: {row['failures']}" if row["failures"] else "ok"
            print(f"[{number}/{len(files)}] {row['file']} {row['s']} s {said}", file=sys.stderr, flush=True)
    print(table(rows))
    print(f"\n{summary(rows, checked)}")
    if chosen.page:
        chosen.page.write_text(page(rows, checked))
    return int(any(row["failures"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
