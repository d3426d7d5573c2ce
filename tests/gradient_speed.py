"""What a backward pass costs beside a forward pass, in ONNX Runtime, measured in turns.

    python tests/gradient_speed.py --binary target/release/onnx-mtprune MODEL...

Two backward models per file: of gates (a factor per channel at the input of every convolution and product with a
weight, which is what importance is measured with) and of all weights. Printed is the time of the whole model, forward and backward,
over that of the forward pass alone; fails if that of gates is above the limit. Needs onnx, onnxruntime, numpy.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

LIMIT = 3.5


def gated(path, out):
    """The model with a gate before every convolution but the first; gives their names."""
    model = onnx.load(path)
    graph = onnx.shape_inference.infer_shapes(model).graph
    extents = {t.name: list(t.dims) for t in graph.initializer}
    fed = {i.name for i in graph.input}
    names, nodes = [], []
    for node in model.graph.node:
        wide = extents.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type in ("Conv", "Gemm") and node.input[0] not in fed and wide:
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            if node.op_type == "Conv":
                shape = [1, wide[1] * group] + [1] * (len(wide) - 2)
            else:
                turned = next((a.i for a in node.attribute if a.name == "transB"), 0)
                shape = [1, wide[1] if turned else wide[0]]
            name = f"gate/{node.output[0]}"
            names.append(name)
            model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
            nodes.append(helper.make_node("Mul", [node.input[0], name], [f"{name}/product"], name=name))
            node.input[0] = f"{name}/product"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, out)
    return names


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(session, batch):
    random = np.random.default_rng(0)
    shape = lambda dims: [d if isinstance(d, int) else batch for d in dims]
    return {
        i.name: (np.ones if i.name.startswith("gate/") else random.random)(shape(i.shape)).astype(np.float32)
        for i in session.get_inputs()
    }


def outputs(session, fed, forward, results):
    """Output gradients of the shapes that the forward pass gave."""
    shapes = {f"gradient/{o.name}": r.shape for o, r in zip(forward.get_outputs(), results)}
    random = np.random.default_rng(1)
    return {k: random.random(shapes[k]).astype(np.float32) if k in shapes else v for k, v in fed.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/onnx-mtprune")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for path in arguments.models:
            if not path.exists():
                print(f"skipped: {path} is not there")
                continue
            names = gated(path, folder / "gated.onnx")
            wanted = [w for name in names for w in ("--with-respect-to", name)]
            for source, out, extra in ((folder / "gated.onnx", "gates.onnx", wanted), (path, "weights.onnx", [])):
                command = [arguments.binary, "gradient", str(source), str(folder / out), "--engine", "onnxruntime", *extra]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            forward = session(path, arguments.threads)
            fed = feeds(forward, arguments.batch)
            results = forward.run(None, fed)
            runs = [(forward, fed)]
            for out in ("gates.onnx", "weights.onnx"):
                s = session(folder / out, arguments.threads)
                runs.append((s, {**outputs(s, feeds(s, arguments.batch), forward, results), **fed}))
            walls = [[] for _ in runs]
            for _ in range(arguments.rounds):
                for wall, (s, f) in zip(walls, runs):
                    begun = time.perf_counter()
                    s.run(None, f)
                    wall.append(time.perf_counter() - begun)
            first, gates, weights = (float(np.median(wall)) for wall in walls)
            least = [min(wall) for wall in walls]
            title = path.stem if path.stem != "model" else path.parent.name
            print(
                f"{title}: forward {first * 1e3:.1f} ms; forward and backward to {len(names)} gates {gates * 1e3:.1f} ms = "
                f"{gates / first:.2f} x (least {least[1] / least[0]:.2f}); to all weights {weights * 1e3:.1f} ms = "
                f"{weights / first:.2f} x (least {least[2] / least[0]:.2f})",
                flush=True,
            )
            failed |= gates / first > LIMIT
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
