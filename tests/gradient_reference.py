"""Gradients of real models by PyTorch in double precision, for the test `models_agree_with_pytorch` in tests/gradient.rs.

A small interpreter runs every model of ../shared/models over torch operations and asks autograd for the gradients of
all weights. What is kept of each gradient is its norm and its product with a repeatable vector, and for the whole model how far both are off
when PyTorch computes in single precision:

    python tests/gradient_reference.py                                               (torch, onnx, numpy)

The same interpreter runs the backward models that the program writes, so that both are computed in double precision and differ by
what is wrong and not by rounding; fails if a gradient is off by more than EXACT of its norm:

    python tests/gradient_reference.py --exact target/release/onnx-mtprune

The numbers fed are made from names by `numbers`, here and in the test.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch_interpreter import PRECISION, operator_set, run, tensor

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ROOT.parent / "shared" / "models"
FIXTURES = ROOT / "fixtures" / "gradient" / "models"
# Extents of axes that are open, beside the first, which is 2.
OPEN = 24
# Shapes for which the rule above does not do.
SHAPES = {"ppocr_cls": {"x": [2, 3, 48, 192]}}
# The largest distance that passes, relative to the norm of a gradient: constants of backward models are in single precision.
EXACT = 1e-5


def numbers(name, count):
    """Repeatable numbers in [0, 1)."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) % 2**32
    h = (np.arange(count, dtype=np.uint64) * 2654435761 + seed) % 2**32
    for _ in range(2):
        h ^= h >> np.uint64(16)
        h = h * np.uint64(0x45D9F3B) % 2**32
    h ^= h >> np.uint64(16)
    return h.astype(np.float64) / 2**32


def feeds(graph, folder):
    shapes = SHAPES.get(folder, {})
    known = {t.name for t in graph.initializer}
    found = {}
    for info in graph.input:
        if info.name in known:
            continue
        kind = info.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else (2 if i == 0 else OPEN) for i, d in enumerate(kind.shape.dim)]
        dims = shapes.get(info.name, dims)
        u = numbers(info.name, int(np.prod(dims))).reshape(dims)
        if kind.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
            # As single precision has them.
            found[info.name] = u.astype(np.float32).astype(np.float64)
        else:
            found[info.name] = np.floor(u * 20).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return found


def cotangent(name, value):
    """A repeatable gradient of an output."""
    return torch.from_numpy(2 * numbers("of/" + name, value.numel()) - 1).reshape(value.shape).to(PRECISION.element)


def autograd(path):
    """The inputs, the gradients of all weights by their names, and those of the outputs they were made from."""
    model = onnx.load(path)
    graph = model.graph
    inputs = feeds(graph, path.parent.name)
    values = {"": None} | {t.name: tensor(numpy_helper.to_array(t)) for t in graph.initializer}
    literals = {n.output[0] for n in graph.node if n.op_type == "Constant"}
    settings = {n for node in graph.node if node.op_type in ("Resize", "Clip", "Pad") for n in list(node.input)[1:]}
    weights = {}
    for name, value in values.items():
        if value is not None and value.is_floating_point() and name not in settings:
            weights[name] = value.requires_grad_()
    values.update({name: tensor(array) for name, array in inputs.items()})
    for name, value in run(graph.node, operator_set(model), values):
        if name in literals and value.is_floating_point() and value.numel() > 1 and name not in settings:
            weights[name] = value.requires_grad_()
    loss, given = 0, {}
    for output in graph.output:
        value = values[output.name]
        if value.is_floating_point() and value.requires_grad:
            given[output.name] = cotangent(output.name, value)
            loss = loss + (value * given[output.name]).sum()
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    found = {name: gradient for name, gradient in zip(weights, gradients) if gradient is not None and gradient.norm() > 0}
    return inputs, found, given


def reference(path):
    inputs, gradients, _ = autograd(path)
    page = {}
    for name, gradient in gradients.items():
        gradient = gradient.double()
        along = torch.from_numpy(2 * numbers(name, gradient.numel()) - 1)
        page[name] = [float(f"{gradient.norm().item():.9g}"), float(f"{(gradient.reshape(-1) * along).sum().item():.9g}")]
    shapes = {name: list(np.shape(array)) for name, array in inputs.items()}
    return {"model": f"{path.parent.name}/{path.name}", "inputs": shapes, "weights": page}


def exact(path, binary):
    """How far the gradients of our backward model are from autograd, where both are computed in double precision: the largest
    distance of any weight, relative to its norm, with its name, and how many weights were compared."""
    inputs, expected, given = autograd(path)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "backward.onnx"
        graph = onnx.load(path, load_external_data=False).graph
        is_open = {i.name for i in graph.input if any(not d.dim_value for d in i.type.tensor_type.shape.dim)}
        words = [part for name in inputs if name in is_open for part in ("--input-shape", f"{name}={'x'.join(map(str, inputs[name].shape))}")]
        words += [part for name in given for part in ("--of", name)] + [part for name in expected for part in ("--with-respect-to", name)]
        done = subprocess.run([str(binary), "gradient", str(path), str(out), *words], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["?"])[-1])
        model = onnx.load(out)
    values = {"": None} | {t.name: tensor(numpy_helper.to_array(t)) for t in model.graph.initializer}
    values.update({name: tensor(array) for name, array in inputs.items()})
    values.update({f"gradient/{name}": value for name, value in given.items()})
    with torch.no_grad():
        for _ in run(model.graph.node, operator_set(model), values):
            pass
    most = max(gradient.norm().item() for gradient in expected.values())
    worst = (0.0, "")
    for name, gradient in expected.items():
        own = values[f"gradient_of/{name}"].reshape(gradient.shape)
        worst = max(worst, ((own - gradient).norm().item() / max(gradient.norm().item(), 1e-9 * most), name))
    return worst, len(expected)


def compare(binary, names):
    """Prints how far every model is off; 1 if one is by more than EXACT."""
    failed = 0
    for path in sorted(MODELS.glob("*/model.onnx")):
        if names and path.parent.name not in names:
            continue
        try:
            (off, weight), count = exact(path, binary)
        except Exception as error:
            print(f"{path.parent.name}: not compared: {type(error).__name__} {str(error)[:150]}", flush=True)
            continue
        failed += not off <= EXACT
        print(f"{path.parent.name}: {count} weights, off by at most {off:.1e} ({weight})", flush=True)
    return int(failed > 0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--exact", type=pathlib.Path, metavar="BINARY", help="write nothing; compare the backward models that this program makes")
    arguments = parser.parse_args()
    if arguments.exact:
        return compare(arguments.exact, arguments.names)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for path in sorted(MODELS.glob("*/model.onnx")):
        name = path.parent.name
        if arguments.names and name not in arguments.names:
            continue
        try:
            page = reference(path)
        except Exception as error:
            print(f"{name}: no reference: {type(error).__name__} {str(error)[:150]}", flush=True)
            continue
        PRECISION.element = torch.float32
        single, largest = reference(path)["weights"], max(norm for norm, _ in page["weights"].values())
        PRECISION.element = torch.float64
        # How far PyTorch in single precision is from itself in double precision.
        page["single"] = 0.0
        for weight, (norm, along) in page["weights"].items():
            if norm >= 1e-6 * largest:
                own = single.get(weight, [0.0, 0.0])
                off = max(abs(own[0] - norm), abs(own[1] - along)) / norm
                page["single"] = max(page["single"], float(f"{off:.2g}"))
        text = json.dumps(page, indent=0).replace("[\n", "[").replace(",\n", ", ").replace("\n]", "]")
        (FIXTURES / f"{name}.json").write_text(text + "\n")
        print(f"{name}: {len(page['weights'])} weights, single precision off by {page['single']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
