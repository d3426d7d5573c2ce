#!/usr/bin/env python
"""A second judge of a pruned file, in another language and with another engine than the program's own verification.

    python tests/zoo/judge.py ORIGINAL PRUNED PLAN [--seed N]

The plan (--plan-out) says which indices of which axes stay. In the original every removed entry of a floating-point constant becomes zero,
and every activation that gets smaller passes a selection that puts zero in the place of removed entries (the zero point, where the
activation is quantised). That masked original and the pruned file then run in ONNX Runtime, without its optimisations, on one random
input. Prints one JSON object: `agree` (true, false, or null when nothing can be said), `relative` per output, `equal`, `reason`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
from bodies import graphs, inlined
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Feeds = dict[str, np.ndarray]
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# What ONNX Runtime's Where takes; other types go through float32 and back, which is exact for the small integers and halves.
SELECTABLE = (np.float32, np.float64, np.int32, np.int64, np.uint8)
# Where an operator keeps the zero point of its output.
ZERO_POINT = {"QuantizeLinear": 2, "QLinearConv": 7, "QLinearMatMul": 7, "QLinearAdd": 7, "QLinearMul": 7}
ZERO_POINT |= {"QLinearSigmoid": 4, "QLinearLeakyRelu": 4, "QLinearGlobalAveragePool": 4, "QLinearAveragePool": 4, "QLinearConcat": 1, "QGemm": 8}
PASSED_ON = {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Identity", "Concat", "Pad", "Resize"}


class Undecided(Exception):
    """Nothing can be said, and why."""


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    """A session that computes the graph as it is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def constants(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Every constant with its name, in any graph."""
    for prefix, graph in graphs(model.graph):
        yield from ((prefix + tensor.name, tensor) for tensor in graph.initializer)
        for node in graph.node:
            if node.op_type == "Constant":
                yield from ((prefix + node.output[0], a.t) for a in node.attribute if a.name == "value")


def described_shapes(original: pathlib.Path) -> dict[str, list[int]]:
    """Shapes of inputs in the file's description beside it."""
    description = original.with_suffix(".json")
    if not description.is_file():
        return {}
    inputs = json.loads(description.read_text()).get("inputs", {})
    return {name: list(given["shape"]) for name, given in inputs.items()}


def feeds(model: ModelProto, shapes: dict[str, list[int]], seed: int, limit: int) -> Feeds:
    """Random inputs; whole numbers stay below `limit`."""
    random = np.random.default_rng(seed)
    constant = {tensor.name for tensor in model.graph.initializer}
    made: Feeds = {}
    for declared in model.graph.input:
        if declared.name in constant:
            continue
        tensor = declared.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        shape = shapes.get(declared.name) or [d.dim_value or 2 for d in tensor.shape.dim]
        if np.issubdtype(dtype, np.floating):
            made[declared.name] = random.standard_normal(shape).astype(dtype)
        else:
            made[declared.name] = random.integers(0, limit, shape).astype(dtype)
    return made


def run_original(model: ModelProto, taps: list[str], shapes: dict[str, list[int]], seed: int) -> tuple[Feeds, Feeds]:
    """The first random inputs that the original accepts, and the values of `taps` for them."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    present = {output.name for output in tapped.graph.output}
    tapped.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in taps if name not in present)
    try:
        opened = session(tapped)
    except Exception as error:  # whatever the engine says is a reason
        raise Undecided(f"ONNX Runtime does not load the original: {error}") from error
    reason: Exception | None = None
    for limit in (50, 10, 2, 1):
        given = feeds(model, shapes, seed, limit)
        try:
            return given, dict(zip(taps, opened.run(taps, given))) if taps else {}
        except Exception as error:
            reason = reason or error
    raise Undecided(f"ONNX Runtime does not run the original: {reason}")


def zero_points(model: ModelProto) -> dict[str, str]:
    """Names of the zero points of quantised activations."""
    found: dict[str, str] = {}
    for _, graph in graphs(model.graph):
        for node in graph.node:
            place = ZERO_POINT.get(node.op_type)
            if place is not None and len(node.input) > place and node.input[place]:
                found[node.output[0]] = node.input[place]
            elif node.op_type == "DynamicQuantizeLinear":
                found[node.output[0]] = node.output[2]
            elif node.op_type in PASSED_ON and node.input[0] in found:
                found |= {output: found[node.input[0]] for output in node.output}
    return found


def packed_zeros(model: ModelProto) -> dict[str, np.ndarray]:
    """Zero points of whole numbers in constants whose products no mask reaches: those of a quantised recurrence."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = [(node.input[1], node.input[9]) for node in model.graph.node if node.op_type == "DynamicQuantizeLSTM"]
    pairs += [(node.input[2], node.input[11]) for node in model.graph.node if node.op_type == "DynamicQuantizeLSTM"]
    return {weight: numpy_helper.to_array(values[zero]) for weight, zero in pairs if weight in values and zero in values}


def zero_constants(model: ModelProto, kept: dict[str, list[list[int] | None]]) -> None:
    """Sets what is removed from floating-point constants to zero."""
    packed = packed_zeros(model)
    for name, tensor in constants(model):
        if name not in kept or tensor.data_type not in FLOATS and name not in packed:
            continue
        values = numpy_helper.to_array(tensor).copy()
        zero = packed[name].reshape(-1)[0] if name in packed else 0
        for axis, indices in enumerate(kept[name]):
            if indices is not None:
                removed = np.setdiff1d(np.arange(values.shape[axis]), indices)
                values[(slice(None),) * axis + (removed,)] = zero
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


class Masks:
    """Puts a selection behind every activation that gets smaller."""

    def __init__(self, model: ModelProto, kept: dict[str, list[list[int] | None]], values: Feeds, stated: dict[str, int | str]) -> None:
        self.model, self.kept, self.values, self.stated = model, kept, values, stated
        self.zeros = zero_points(model)
        self.rewritten: list[tuple[onnx.GraphProto, list[NodeProto]]] = []
        versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
        self.by_product = max(versions, default=0) < 9

    def place(self) -> None:
        """Rewrites all graphs of the model."""
        done: set[str] = set()
        for prefix, graph in list(graphs(self.model.graph)):
            nodes: list[NodeProto] = []
            for node in graph.node:
                nodes.append(node)
                for i, name in enumerate(node.output):
                    if prefix + name in self.kept:
                        node.output[i] = f"{name}/whole"
                        nodes += self.selection(prefix, name)
                        done.add(prefix + name)
            # Innermost last would lose what was done inside: a copy of a node copies its bodies, so these come first.
            self.rewritten.append((graph, nodes))
        for graph, nodes in reversed(self.rewritten):
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
        missing = sorted(set(self.kept) - done)
        if missing:
            raise Undecided(f"the plan names {len(missing)} activations that the original lacks, such as {missing[0]}")

    def selection(self, prefix: str, name: str) -> list[NodeProto]:
        """Nodes that compute `name` from its whole self."""
        whole = f"{name}/whole"
        value = self.values[prefix + name]
        mask = np.ones([1] * value.ndim, dtype=bool)
        for axis, indices in enumerate(self.kept[prefix + name]):
            if indices is not None:
                line = np.isin(np.arange(value.shape[axis]), indices)
                mask = mask & line.reshape([-1 if a == axis else 1 for a in range(value.ndim)])
        nodes: list[NodeProto] = []

        def constant(what: str, array: np.ndarray) -> str:
            nodes.append(helper.make_node("Constant", [], [f"{name}/{what}"], value=numpy_helper.from_array(array)))
            return f"{name}/{what}"

        if self.by_product:
            nodes.append(helper.make_node("Mul", [whole, constant("mask", mask.astype(value.dtype))], [name]))
            return nodes
        direct = value.dtype.type in SELECTABLE
        zero = self.zeros.get(name)
        # What no operator of the file tells (whole numbers that are cast), the plan states.
        stated = self.stated.get(prefix + name, 0)
        other = zero or constant("zero", np.array(stated if isinstance(stated, int) else 0, value.dtype if direct else np.float32))
        if direct:
            nodes.append(helper.make_node("Where", [constant("mask", mask), whole, other], [name]))
            return nodes
        if zero:
            nodes.append(helper.make_node("Cast", [zero], [f"{name}/zero"], to=TensorProto.FLOAT))
            other = f"{name}/zero"
        nodes.append(helper.make_node("Cast", [whole], [f"{name}/float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Where", [constant("mask", mask), f"{name}/float", other], [f"{name}/selected"]))
        back = helper.np_dtype_to_tensor_dtype(value.dtype)
        nodes.append(helper.make_node("Cast", [f"{name}/selected"], [name], to=back))
        return nodes


def nested_values(plan: dict, kept: dict[str, list[list[int] | None]], model: ModelProto) -> Feeds:
    """Stand-ins for activations of nested graphs, which no run can return: extents are the plan's, types the file's, else float."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {
        prefix + declared.name: declared.type.tensor_type.elem_type
        for prefix, graph in graphs(inferred.graph)
        for declared in [*graph.value_info, *graph.output]
    }
    found: Feeds = {}
    for name in kept:
        extents = plan.get("extents", {}).get(name)
        if extents is None:
            raise Undecided(f"the plan does not say how long the axes of {name} were")
        dtype = helper.tensor_dtype_to_np_dtype(types.get(name) or TensorProto.FLOAT)
        found[name] = np.zeros([extent or 1 for extent in extents], dtype)
    return found


def tolerance(model: ModelProto) -> float:
    """What two right files may differ by: more where values are rounded to halves or to 256 steps."""
    half = any(t.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for _, t in constants(model))
    return 2e-2 if coarse(model) or half else 1e-4


def coarse(model: ModelProto) -> bool:
    """True where values are rounded to 256 steps."""
    operators = {node.op_type for _, graph in graphs(model.graph) for node in graph.node}
    return any("Quantize" in o or "QLinear" in o or "Integer" in o or o.startswith("Q") for o in operators)


def nudged(model: ModelProto, seed: int) -> ModelProto:
    """The model with every float32 constant changed in the seventh digit, scales of quantisation among them."""
    random = np.random.default_rng(seed)
    near = ModelProto()
    near.CopyFrom(model)
    for _, tensor in constants(near):
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            values = values * (1 + random.uniform(-3e-7, 3e-7, values.shape))
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), tensor.name))
    return near


def difference(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference, relative to the largest expected value; infinite for other shapes."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if expected.dtype.kind not in "fiub" or not expected.size:
        return 0.0 if np.array_equal(expected, found) else float("inf")
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b)).max()
    scale = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    return float("inf") if np.isnan(gap) else float(gap / (scale + 1e-12))


def judge(original: pathlib.Path, pruned: pathlib.Path, plan_path: pathlib.Path, seed: int = 0) -> dict:
    """The judgement as data."""
    model, plan = inlined(onnx.load(original)), json.loads(plan_path.read_text())
    if hashlib.sha256(original.read_bytes()).hexdigest() != plan["sha256"]:
        raise SystemExit(f"{plan_path} is the plan of another file than {original}")
    sets = plan["sets"]
    kept = {name: [None if i is None else sets[i] for i in axes] for name, axes in plan["activations"].items()}
    top = {output for node in model.graph.node for output in node.output}
    taps = [name for name in kept if name in top]
    given, values = run_original(model, taps, described_shapes(original), seed)
    nested = {name: axes for name, axes in kept.items() if name not in top}
    values |= nested_values(plan, nested, model) if nested else {}
    allowed = tolerance(model)
    masked = ModelProto()
    masked.CopyFrom(model)
    zero_constants(masked, plan["initializers"])
    Masks(masked, kept, values, plan.get("zeros", {})).place()
    names = [output.name for output in model.graph.output]
    # Both signs of the input, so that a model with branches is likelier to take either.
    rounds = [given, {name: -v if v.dtype.kind == "f" else v for name, v in given.items()}]
    rounds = rounds if any(prefix for prefix, _ in graphs(model.graph)) else rounds[:1]
    expected, found = [], []
    try:
        reference = session(masked)
        expected = [reference.run(names, each) for each in rounds]
    except Exception as error:
        raise Undecided(f"ONNX Runtime does not run the masked original: {error}") from error
    try:
        smaller = session(onnx.load(pruned))
        found = [smaller.run(names, each) for each in rounds]
    except Exception as error:
        return {"agree": False, "reason": f"ONNX Runtime runs the original and not the pruned file: {error}"}
    pairs = [(n, np.asarray(a), np.asarray(b)) for one, other in zip(expected, found) for n, a, b in zip(names, one, other)]
    gaps: dict[str, float] = {}
    for name, one, other in pairs:
        gaps[name] = max(gaps.get(name, 0.0), difference(one, other))
    worst = max(gaps, key=lambda n: gaps[n])
    if gaps[worst] > allowed and coarse(model):
        # In a deep quantised network one sum at the border of two steps moves many behind it. How far the reference moves by
        # itself when its constants change in the seventh digit is the yardstick then.
        near = [session(nudged(masked, seed)) for seed in range(8)]
        runs = [(one, other.run(names, each)) for one, each in zip(expected, rounds) for other in near]
        moved = max(difference(np.asarray(a), np.asarray(b)) for one, other in runs for a, b in zip(one, other))
        allowed = max(allowed, 2 * moved)
    agree = gaps[worst] <= allowed
    reason = "" if agree else f"output {worst} differs by {gaps[worst]:.2e} (tolerance {allowed:.1e})"
    # Outputs that are zero everywhere compare equal to anything that is broken in the same way.
    silent = sorted({n for n, a, _ in pairs if a.dtype.kind == "f" and not np.any(a)})
    return {"agree": agree, "equal": max(gaps.values()) == 0, "relative": gaps, "masked": len(kept), "silent": silent, "reason": reason}


def main() -> None:
    """Prints the judgement; the exit status is 1 where the files disagree."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("original", "pruned", "plan"):
        options.add_argument(name, type=pathlib.Path)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    try:
        verdict = judge(chosen.original, chosen.pruned, chosen.plan, chosen.seed)
    except Undecided as reason:
        verdict = {"agree": None, "reason": " ".join(str(reason).split())[:400]}
    print(json.dumps(verdict))
    sys.exit(verdict["agree"] is False)


if __name__ == "__main__":
    main()
