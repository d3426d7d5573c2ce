#!/usr/bin/env python
"""Writes the zoo: ONNX files of many families, with random weights.

    python tests/zoo/export.py --out target/zoo [--only GLOB] [--jobs N] [--timeout SECONDS] [--list]

For every family NAME[-dynamo][-batchnorm][-dynbatch].onnx, and beside each a .json that says what it is: family, source, exporter, open
axes, inputs with their shapes, parameters. What exists is skipped. Every file is written by a process of its own; what fails is said
with its reason, listed in export_failures.json, and makes the exit status 1.
"""

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import json
import multiprocessing
import os
import pathlib
import sys
import time
import warnings

from registry import Family, families

LEGACY_OPSET = 17
DYNAMO_OPSET = 20


@dataclasses.dataclass(frozen=True)
class Variant:
    """One file to write."""

    family: Family
    exporter: str
    batch_norm: bool = False
    dynamic: bool = False

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        marks = {"-dynamo": self.exporter == "dynamo", "-batchnorm": self.batch_norm, "-dynbatch": self.dynamic}
        return self.family.name + "".join(mark for mark, given in marks.items() if given)


def variants(family: Family) -> list[Variant]:
    """The files of a family."""
    found = [Variant(family, exporter) for exporter in family.exporters]
    if "batch-norm" in family.tags:
        found.append(Variant(family, "legacy", batch_norm=True))
    if family.dynamic:
        found.append(Variant(family, family.exporters[0], dynamic=True))
    if "dynamo-dynbatch" in family.tags:
        found.append(Variant(family, "dynamo", dynamic=True))
    return found


def main() -> None:
    """Starts one process for each file that is missing."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=pathlib.Path, required=True)
    options.add_argument("--only", default="*", help="pattern of file names, such as 'swin*'")
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("--timeout", type=float, default=600, help="seconds for one file")
    options.add_argument("--list", action="store_true", help="print the names and stop")
    chosen = options.parse_args()
    # One file of every family first: a zoo cut short is as broad as can be.
    found = [variants(family) for family in families()]
    ordered = [several[0] for several in found] + [variant for several in found for variant in several[1:]]
    wanted = [variant for variant in ordered if fnmatch.fnmatchcase(variant.name, chosen.only)]
    if chosen.list:
        return print("\n".join(variant.name for variant in wanted))
    chosen.out.mkdir(parents=True, exist_ok=True)
    log = chosen.out / "export_failures.json"
    failures = json.loads(log.read_text()) if log.exists() else {}
    # A server that has read the large libraries once, and forks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timm", "torchvision", "onnx", "transformers", "torch.onnx"])
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        missing = [variant for variant in wanted if not (chosen.out / f"{variant.name}.json").exists()]
        runs = {pool.submit(start, context, variant.name, chosen): variant.name for variant in missing}
        for run in concurrent.futures.as_completed(runs):
            name, reason = runs[run], run.result()
            failures.pop(name, None)
            if reason:
                failures[name] = reason
            log.write_text(json.dumps(failures, indent=1, sort_keys=True))
    absent = [variant.name for variant in wanted if not (chosen.out / f"{variant.name}.json").exists()]
    print(f"{len(wanted) - len(absent)} of {len(wanted)} files stand in {chosen.out}; {len(absent)} could not be written")
    for name in absent:
        print(f"  {name}: {failures.get(name)}")
    sys.exit(bool(absent))


def start(context, name: str, chosen: argparse.Namespace) -> str | None:
    """Writes one file in another process. Returns why it failed."""
    began = time.monotonic()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=attempt, args=(name, chosen.out, sender), daemon=True)
    process.start()
    sender.close()
    try:
        reason = receiver.recv() if receiver.poll(chosen.timeout) else f"not done after {chosen.timeout:g} s"
    except EOFError:
        process.join(10)
        reason = f"the process ended with {process.exitcode}"
    process.join(2)
    if process.is_alive():
        process.kill()
    print(f"{name}: {'FAILED: ' + reason if reason else 'written'} ({time.monotonic() - began:.0f} s)", flush=True)
    return reason


def attempt(name: str, out: pathlib.Path, sender) -> None:
    """Writes one file and sends None, or why it failed on one line."""
    try:
        named = {variant.name: variant for family in families() for variant in variants(family)}
        write(named[name], out)
        sender.send(None)
    except Exception as error:
        innermost = error
        # Exporters wrap the cause in pages of advice.
        while innermost.__cause__ is not None:
            innermost = innermost.__cause__
        sender.send(f"{type(innermost).__name__}: {' '.join(str(innermost).split())}"[:400])


def write(variant: Variant, out: pathlib.Path) -> None:
    """Writes the file and its description in this process."""
    import onnx
    import torch

    from randomise import prepared

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    family = variant.family
    network, inputs = prepared(family)
    temporary = out / f"{variant.name}.{os.getpid()}.tmp"
    if variant.dynamic:
        inputs = tuple(widened(tensor, family.dynamic.get(name, {})) for name, tensor in zip(family.input_names, inputs))
    with torch.no_grad():
        if variant.exporter == "legacy":
            legacy(variant, network, inputs, temporary)
        else:
            dynamo(variant, network, inputs, temporary)
    model = onnx.load(temporary)
    onnx.checker.check_model(model, full_check=variant.exporter == "legacy")
    stored = sum(size(tensor) for tensor in model.graph.initializer if tensor.data_type in (1, 10, 11, 16))
    description = {
        "name": variant.name,
        "family": family.name,
        "source": family.source,
        "exporter": variant.exporter,
        "opset": max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        "dynamic": family.dynamic if variant.dynamic else {},
        "inputs": {name: {"shape": list(tensor.shape), "type": str(tensor.dtype)[6:]} for name, tensor in zip(family.input_names, inputs)},
        "outputs": [output.name for output in model.graph.output],
        "tags": list(family.tags),
        "parameters": sum(values.numel() for values in network.parameters()),
        "stored_floats": stored,
        "nodes": len(model.graph.node),
        "bytes": temporary.stat().st_size,
    }
    temporary.rename(out / f"{variant.name}.onnx")
    (out / f"{variant.name}.json").write_text(json.dumps(description, indent=1))


def widened(tensor, axes: dict[int, str]):
    """The tensor with two entries where the batch is open: torch.export takes an axis of size one for a constant."""
    import torch

    for axis in axes:
        if tensor.shape[axis] == 1:
            tensor = torch.cat([tensor, tensor], axis)
    return tensor


def legacy(variant: Variant, network, inputs, path: pathlib.Path) -> None:
    """Writes by tracing."""
    import torch

    torch.onnx.export(
        network,
        inputs,
        str(path),
        dynamo=False,
        opset_version=18 if "opset-18" in variant.family.tags else LEGACY_OPSET,
        # PRESERVE with a network in evaluation mode: no folding of the normalisation into the convolution before it.
        training=torch.onnx.TrainingMode.PRESERVE if variant.batch_norm else torch.onnx.TrainingMode.EVAL,
        do_constant_folding=not variant.batch_norm,
        input_names=list(variant.family.input_names),
        output_names=list(variant.family.output_names),
        dynamic_axes=variant.family.dynamic if variant.dynamic else None,
    )


def dynamo(variant: Variant, network, inputs, path: pathlib.Path) -> None:
    """Writes through torch.export."""
    import torch

    family = variant.family
    shapes = tuple(dict(family.dynamic.get(name, {})) or None for name in family.input_names) if variant.dynamic else None
    torch.onnx.export(
        network,
        inputs,
        str(path),
        dynamo=True,
        opset_version=DYNAMO_OPSET,
        external_data=False,
        verbose=False,
        input_names=list(family.input_names),
        output_names=list(family.output_names),
        dynamic_shapes=shapes,
    )


def size(tensor) -> int:
    """Values in a tensor of a file."""
    count = 1
    for dimension in tensor.dims:
        count *= dimension
    return count


if __name__ == "__main__":
    main()
