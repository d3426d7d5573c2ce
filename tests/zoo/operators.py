#!/usr/bin/env python
"""Checks every operator's rule against ONNX Runtime, one operator at a time.

    python tests/zoo/operators.py [--only 'test_reduce*'] [--operator ReduceMax] [--keep FOLDER] [--json FILE]

The cases are the node tests of the onnx package and, for com.microsoft, those of operators_microsoft.py. Each is put between contractions:
every axis of every input comes out of a product with a random square matrix, and every axis of every output goes into one, so that each
axis may shrink unless the rule locks it. The result is pruned to half and judged twice: by the program's own verification and by judge.py.

There are four variants: `free`, where all inputs of numbers with a point are computed and others are constants; `constants`, where only the
first is computed; `integers`, where whole numbers and truth values are computed too; `fed`, where whole numbers are inputs of the model.
A variant that ONNX Runtime does not run only has to end without an error. The exit status is 1 if the program failed or was wrong.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings
import zlib
from typing import Any

import judge
import numpy as np
import operators_microsoft
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
VARIANTS = ("free", "constants", "integers", "fed")
# What is put behind the contractions of inputs until the result is finite: nothing, then nodes that keep a logarithm or a root happy.
DOMAINS: tuple[tuple[str, ...], ...] = ((), ("Abs",), ("Sigmoid",), ("Softplus", "Exp"))
# A matrix for a longer axis would take the time of hundreds of cases.
LONGEST = 300


class Wrapped:
    """A model around a case's graph; what it is fed; and the axes of the case that could shrink."""

    def __init__(self, case: Any, variant: str, domain: tuple[str, ...]) -> None:
        self.case, self.variant, self.domain = case, variant, domain
        self.random = np.random.default_rng(zlib.crc32(case.name.encode()))
        self.model = ModelProto()
        self.model.CopyFrom(case.model)
        self.feeds: dict[str, np.ndarray] = {}
        self.axes: dict[str, int] = {}
        self.before: list[NodeProto] = []
        self.after: list[NodeProto] = []
        inputs = list(self.model.graph.input)
        del self.model.graph.input[:]
        for slot, (declared, value) in enumerate(zip(inputs, case.data_sets[0][0])):
            self.give(slot, declared, value)
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in self.model.graph.node]
        del self.model.graph.node[:]
        self.model.graph.node.extend([*self.before, *nodes])

    def give(self, slot: int, declared: Any, value: Any) -> None:
        """Makes one input of the case computed, constant or fed."""
        value = np.asarray(value) if isinstance(value, np.generic) else value
        if not isinstance(value, np.ndarray):
            raise judge.Undecided("an input is no tensor")
        floating = value.dtype.kind == "f"
        computed = max(value.shape, default=1) > 1 and value.size > 0
        computed &= floating and (slot == 0 or self.variant != "constants") or value.dtype.kind in "iub" and self.variant == "integers"
        if computed:
            self.compute(declared.name, value)
        elif not floating and self.variant == "fed":
            self.model.graph.input.append(declared)
            self.feeds[declared.name] = value
        else:
            self.model.graph.initializer.append(numpy_helper.from_array(value, declared.name))

    def compute(self, name: str, value: np.ndarray) -> None:
        """Makes an input the result of contractions."""
        given = value.astype(np.float32)
        if not np.isfinite(given).all() or np.abs(given).max() < 1e-3:
            given = self.random.standard_normal(given.shape).astype(np.float32)
        self.feeds[f"{name}/in"] = given
        self.model.graph.input.append(helper.make_tensor_value_info(f"{name}/in", TensorProto.FLOAT, given.shape))
        at = self.contract(f"{name}/in", list(given.shape), self.before)
        steps: list[tuple[str, dict[str, Any]]] = [(op, {}) for op in self.domain]
        if value.dtype.kind in "iu":
            # Whole numbers need some room to differ, and unsigned ones must not be negative.
            at = self.scale(at, 3.0)
            steps = [("Abs", {})] if value.dtype.kind == "u" else []
        if value.dtype != np.float32:
            steps.append(("Cast", {"to": helper.np_dtype_to_tensor_dtype(value.dtype)}))
        for number, (op, attributes) in enumerate(steps or [("Identity", {})]):
            last = number + 1 >= len(steps)
            into = name if last else f"{name}/step{number}"
            self.before.append(helper.make_node(op, [at], [into], **attributes))
            at = into
        self.count(name, given.shape)

    def scale(self, at: str, factor: float) -> str:
        """Multiplies by a number."""
        self.model.graph.initializer.append(numpy_helper.from_array(np.array([factor], np.float32), f"{at}/factor"))
        self.before.append(helper.make_node("Mul", [at, f"{at}/factor"], [f"{at}/scaled"]))
        return f"{at}/scaled"

    def count(self, name: str, shape: tuple[int, ...]) -> None:
        """Notes how many axes of a tensor could shrink."""
        self.axes[name] = sum(1 < extent <= LONGEST for extent in shape)

    def contract(self, at: str, shape: list[int], nodes: list[NodeProto]) -> str:
        """Multiplies every axis of some length by a matrix of its own."""
        base, last = at, len(shape) - 1
        for axis, extent in enumerate(shape):
            if not 1 < extent <= LONGEST:
                continue
            weight = f"{base}/weight{axis}"
            values = self.random.standard_normal((extent, extent)) / np.sqrt(extent)
            self.model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), weight))
            order = list(range(len(shape)))
            order[axis], order[last] = last, axis
            here = f"{base}/axis{axis}"
            if axis == last:
                nodes.append(helper.make_node("MatMul", [at, weight], [here]))
            else:
                nodes.append(helper.make_node("Transpose", [at], [f"{here}/turned"], perm=order))
                nodes.append(helper.make_node("MatMul", [f"{here}/turned", weight], [f"{here}/product"]))
                nodes.append(helper.make_node("Transpose", [f"{here}/product"], [here], perm=order))
            at = here
        return at

    def run(self) -> list[np.ndarray]:
        """The outputs in ONNX Runtime."""
        return judge.session(self.model).run(None, self.feeds)

    def consume(self, outputs: list[Any]) -> None:
        """Contracts every output, now that the shapes are known."""
        declared = list(self.model.graph.output)
        del self.model.graph.output[:]
        for info, value in zip(declared, outputs):
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub" or value.size < 2:
                self.model.graph.output.append(info)
                continue
            at = info.name
            if value.dtype != np.float32:
                self.after.append(helper.make_node("Cast", [at], [f"{at}/number"], to=TensorProto.FLOAT))
                at = f"{at}/number"
            at = self.contract(at, list(value.shape), self.after)
            self.model.graph.output.append(helper.make_tensor_value_info(at, TensorProto.FLOAT, value.shape))
            self.count(info.name, value.shape)
        self.model.graph.node.extend(self.after)


def finite(outputs: list[Any]) -> bool:
    """Whether all numbers are."""
    numbers = [o for o in outputs if isinstance(o, np.ndarray) and o.dtype.kind == "f"]
    return all(np.isfinite(o.astype(np.float64)).all() for o in numbers)


def wrapped(case: Any, variant: str) -> tuple[Wrapped, str]:
    """The case between contractions, and why ONNX Runtime does not run it (or nothing)."""
    why, first = "", None
    for domain in DOMAINS:
        made = Wrapped(case, variant, domain)
        first = first or made
        try:
            outputs = made.run()
        except Exception as error:  # whatever the engine says is a reason
            why = why or " ".join(str(error).split())[:200]
            continue
        if finite(outputs) or domain == DOMAINS[-1]:
            made.consume(outputs)
            tensors = all(isinstance(o, np.ndarray) for o in outputs)
            return made, "" if tensors else "an output is no tensor"
    first.consume(case.data_sets[0][1])
    return first, why


def prune(binary: pathlib.Path, folder: pathlib.Path, *extra: str) -> tuple[int, str, dict[str, Any]]:
    """Exit status, the error, and the report."""
    report = folder / "report.json"
    for stale in (report, folder / "plan.json", folder / "pruned.onnx"):
        stale.unlink(missing_ok=True)
    command = [binary, folder / "case.onnx", folder / "pruned.onnx", "--ratio", "0.5", "--round-to", "1", "--report", report]
    command += ["--plan-out", folder / "plan.json", *extra]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    except subprocess.TimeoutExpired:
        return 124, "not done after 60 s", {}
    said = json.loads(report.read_text()) if report.is_file() else {}
    return done.returncode, " ".join(done.stderr.split())[:500], said


def examine(case: Any, variant: str, binary: pathlib.Path, folder: pathlib.Path) -> dict[str, Any] | None:
    """What became of one case, or nothing if the variant is none."""
    try:
        made, unrun = wrapped(case, variant)
    except judge.Undecided as reason:
        return {"end": "skipped", "why": str(reason)}
    if variant != VARIANTS[0] and Wrapped(case, VARIANTS[0], made.domain).model.graph.input == made.model.graph.input:
        return None
    if not made.axes:
        return {"end": "skipped", "why": "nothing has an axis"}
    (folder / "case.onnx").write_bytes(made.model.SerializeToString())
    code, error, report = prune(binary, folder)
    row: dict[str, Any] = {"end": "fine", "why": "", "axes": sum(made.axes.values()), "shrunk": 0, "unrun": unrun}
    row["verified"] = report.get("verification", {}).get("outcome")
    if code != 0:
        row |= {"end": "exit", "why": f"exit {code}: {error}"}
        code, _, report = prune(binary, folder, "--no-verify")
    if code == 0:
        plan = json.loads((folder / "plan.json").read_text())
        kept = plan["activations"]
        row["shrunk"] = sum(a is not None for name in made.axes for a in kept.get(name, []))
        row["stays"] = [s["reason"] for s in report.get("stays", [])]
        if not unrun:
            row |= judged(made, folder, row["end"])
        if row["end"] == "fine" and not row["shrunk"]:
            row["end"] = "locked"
    return row


def judged(made: Wrapped, folder: pathlib.Path, end: str) -> dict[str, Any]:
    """The second judge's word, where it matters."""
    judge.feeds = lambda *_: made.feeds
    try:
        verdict = judge.judge(folder / "case.onnx", folder / "pruned.onnx", folder / "plan.json")
    except judge.Undecided as reason:
        return {"unrun": str(reason)}
    if not verdict["agree"]:
        return {"end": "wrong", "why": " ".join(verdict["reason"].split())[:300]}
    # Outputs that are zero everywhere prove nothing. What the program said before stands beside what ONNX Runtime says.
    return {"judge": len(verdict["silent"]) < len(verdict["relative"]), "end": end}


def operator(case: Any) -> str:
    """The operator that a case is about."""
    nodes = case.model.graph.node
    if len(nodes) != 1:
        return "(several)"
    return f"{nodes[0].domain}:{nodes[0].op_type}" if nodes[0].domain else nodes[0].op_type


def cases() -> list[Any]:
    """All cases."""
    from onnx.backend.test import loader  # takes seconds, and warns of what its own cases compute

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [*loader.load_model_tests(kind="node"), *operators_microsoft.cases()]


def table(rows: list[dict[str, Any]]) -> None:
    """Prints one line per operator, then everything that failed."""
    ends = ("fine", "locked", "wrong", "exit", "skipped")
    print(f"{'operator':34} {'cases':>6} " + " ".join(f"{end:>7}" for end in ends) + f" {'judged':>7} {'axes shrunk':>12}  reasons")
    groups: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in rows:
        groups[row["operator"]].append(row)
    for name, group in sorted(groups.items()):
        counts = collections.Counter(row["end"] for row in group)
        shrunk, axes = sum(r.get("shrunk", 0) for r in group), sum(r.get("axes", 0) for r in group)
        reasons = collections.Counter(why for r in group for why in r.get("stays", [])).most_common(3)
        said = "; ".join(f"{why} ({times})" for why, times in reasons)
        line = f"{name:34} {len(group):6} " + " ".join(f"{counts[end]:7}" for end in ends)
        print(f"{line} {sum(bool(r.get('judge')) for r in group):7} {shrunk:5} of {axes:4}  {said[:240]}")
    for row in rows:
        if row["end"] in ("wrong", "exit"):
            print(f"{row['end'].upper()} {row['case']} [{row['variant']}] {row['why']}")


def main() -> None:
    """Runs all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/onnx-mtprune")
    parser.add_argument("--only", default="*", help="pattern of case names")
    parser.add_argument("--operator", default="*", help="pattern of operators")
    parser.add_argument("--variant", choices=VARIANTS, help="one variant instead of all")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the files of cases that failed")
    parser.add_argument("--json", type=pathlib.Path, help="where all rows go while they come, one object a line")
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for case in cases():
            if not (fnmatch.fnmatch(case.name, chosen.only) and fnmatch.fnmatch(operator(case), chosen.operator)):
                continue
            for variant in [chosen.variant] if chosen.variant else VARIANTS:
                row = examine(case, variant, chosen.binary, folder)
                if row is None:
                    continue
                rows.append({"operator": operator(case), "case": case.name, "variant": variant, **row})
                if chosen.json:
                    with chosen.json.open("a") as lines:
                        lines.write(json.dumps(rows[-1]) + "\n")
                if chosen.keep and row["end"] in ("wrong", "exit"):
                    kept = chosen.keep / f"{case.name}-{variant}"
                    kept.mkdir(parents=True, exist_ok=True)
                    for file in folder.iterdir():
                        (kept / file.name).write_bytes(file.read_bytes())
    table(rows)
    sys.exit(any(row["end"] in ("wrong", "exit") for row in rows) or not rows)


if __name__ == "__main__":
    main()
