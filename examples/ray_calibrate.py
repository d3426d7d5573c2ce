"""Calibration spread over a Ray cluster: one task per shard, one merge at the end.

    pip install ray
    python examples/ray_calibrate.py model.onnx samples.npz all.safetensors --shards 8 -- --batch-size 16

What stands behind `--` goes to every `onnx-mtprune calibrate`. Without a cluster Ray starts workers on this machine;
with one, `RAY_ADDRESS` names it, and the program has to be installed on every node. Model and samples travel through
Ray's object store, so nodes need no common folder; with one, write the paths into the task instead. A task whose worker
dies is started again by Ray; the merged file is the one that a single run would have written, byte by byte.

Any other scheduler does the same with one line per shard, for example as a Slurm array:

    onnx-mtprune calibrate model.onnx --calibration samples.npz --shard $SLURM_ARRAY_TASK_ID/8 -o part$SLURM_ARRAY_TASK_ID.safetensors
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import ray


def run(*words):
    """Runs the program; its last words become the error of the task."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout.strip()


@ray.remote(max_retries=3)
def shard(program, model, samples, ending, number, count, words):
    """Measures one shard; gives the node that did it and the bytes of its statistics."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "model.onnx").write_bytes(model)
        (folder / f"samples{ending}").write_bytes(samples)
        said = run(program, "calibrate", folder / "model.onnx", "--calibration", folder / f"samples{ending}",
                   "--shard", f"{number}/{count}", "-o", folder / "part.safetensors", *words)
        return f"process {os.getpid()}: {said.rsplit('/', 1)[-1]}", (folder / "part.safetensors").read_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("samples", type=pathlib.Path, help="one file: .npz, .npy or .safetensors")
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--workers", type=int, help="how many tasks at a time on this machine, without a cluster")
    parser.add_argument("--program", default="onnx-mtprune")
    own = sys.argv[1:]
    words = own[own.index("--") + 1:] if "--" in own else []
    options = parser.parse_args(own[:own.index("--")] if "--" in own else own)

    if os.environ.get("RAY_ADDRESS"):
        ray.init()
    else:
        ray.init(num_cpus=options.workers, include_dashboard=False)
    model = ray.put(options.model.read_bytes())
    samples = ray.put(options.samples.read_bytes())
    tasks = [
        shard.remote(options.program, model, samples, options.samples.suffix, number, options.shards, words)
        for number in range(1, options.shards + 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for number, task in enumerate(tasks, start=1):
            said, part = ray.get(task)
            print(f"shard {number}, {said}")
            parts.append(pathlib.Path(folder) / f"part{number}.safetensors")
            parts[-1].write_bytes(part)
        print(run(options.program, "merge", *parts, "-o", options.output))


if __name__ == "__main__":
    main()
