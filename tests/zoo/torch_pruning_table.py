#!/usr/bin/env python
"""Prunes every family of the zoo with Torch-Pruning, as its manual advises, and writes what it kept: what ours is compared with.

    python tests/zoo/torch_pruning_table.py --zoo target/zoo --out target/zoo/torch_pruning.json [--only GLOB] [--jobs N]

The networks, their numbers and the inputs are those that were exported. A process of its own prunes each: magnitude of groups (L2),
half of the channels of every group, no rounding, the layers that feed the outputs left alone. Attention is told by its numbers of heads
(`num_heads`); where pruning inside the heads fails, whole heads are tried, and then attention left as it is. Only what still runs and
gives outputs of the same shapes is a success; else the last exception stands on one line, and the first one with it. What the outputs
of the pruned network are worth is not asked: Torch-Pruning cuts axes under LayerNorm as well, which changes what the rest computes.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import pathlib
import resource
import time
import warnings

from registry import families

RATIO = 0.5
WALL_FACTOR = 20
# How attention is pruned, in the order of the attempts: options of the pruner.
ATTEMPTS: dict[str, dict] = {
    "head dimensions": {"prune_num_heads": False, "prune_head_dims": True},
    "whole heads": {"prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": RATIO},
    "no attention": {},
}


def main() -> None:
    """Prunes all families whose files stand in the zoo, and writes the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--zoo", type=pathlib.Path, required=True)
    options.add_argument("--out", type=pathlib.Path, required=True)
    options.add_argument("--only", default="*", help="pattern of names of families")
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("--timeout", type=int, default=120, help="seconds of processor time for one family")
    chosen = options.parse_args()
    descriptions = [path for path in chosen.zoo.glob("*.json") if path.with_suffix(".onnx").exists()]
    exported = {json.loads(path.read_text()).get("family") for path in descriptions}
    table = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    wanted = [family.name for family in families(chosen.only) if family.name in exported]
    missing = [name for name in wanted if name not in table]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timm", "torchvision", "transformers", "torch_pruning"])
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        runs = {pool.submit(start, context, name, chosen.timeout): name for name in missing}
        for run in concurrent.futures.as_completed(runs):
            # Another run may have written meanwhile.
            table = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
            table[runs[run]] = run.result()
            chosen.out.write_text(json.dumps(table, indent=1, sort_keys=True))
    succeeded = sum(bool(table.get(name, {}).get("success")) for name in wanted)
    print(f"Torch-Pruning pruned {succeeded} of {len(wanted)} families")


def start(context, name: str, timeout: int) -> dict:
    """Prunes one family in another process."""
    began = time.monotonic()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=attempt, args=(name, timeout, sender), daemon=True)
    process.start()
    sender.close()
    try:
        # A busy machine must not count against it: the limit is processor time, this one only ends what sleeps.
        late = {"success": False, "error": f"not done after {WALL_FACTOR * timeout} s"}
        row = receiver.recv() if receiver.poll(WALL_FACTOR * timeout) else late
    except EOFError:
        process.join(10)
        row = {"success": False, "error": f"not done after {timeout} s of processor time (the process ended with {process.exitcode})"}
    process.join(2)
    if process.is_alive():
        process.kill()
    kept = row["parameters_after"] / row["parameters_before"] if row["success"] else None
    said = f"{kept:.1%} of the parameters kept ({row['attention']})" if row["success"] else f"FAILED: {row['error']}"
    print(f"{name}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    return row


def attempt(name: str, timeout: int, sender) -> None:
    """Tries each way of pruning attention, and sends the first row that succeeds."""
    import torch

    from torch_pruning_settings import attentions

    resource.setrlimit(resource.RLIMIT_CPU, (timeout, timeout))
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    errors: list[str] = []
    (family,) = [family for family in families() if family.name == name]
    # Without attention, the attempts are all the same.
    attempts = ATTEMPTS if attentions(family.build()) else {"none": {}}
    for attention, settings in attempts.items():
        try:
            row = prune(name, settings, attention == "no attention")
        except Exception as error:
            errors.append(f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
            continue
        sender.send({"success": True, "attention": attention, **row})
        return
    sender.send({"success": False, "error": errors[0], "last_error": errors[-1]})


def prune(name: str, settings: dict, spare_attention: bool) -> dict:
    """Prunes the family. Raises whatever Torch-Pruning raises, or ValueError where shapes changed."""
    import torch
    import torch_pruning

    from randomise import flat, prepared
    from torch_pruning_settings import attentions, output_layers, repair

    (family,) = [family for family in families() if family.name == name]
    network, inputs = prepared(family)
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    before = flat(network(*inputs))
    spared = output_layers(network, before)
    found = attentions(network)
    heads = {layer: count for attention in found for layer, count in attention.heads.items()}
    if spare_attention:
        spared, heads = [*spared, *heads], {}
    counts = parameters(network), macs(network, inputs)
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        inputs,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        round_to=None,
        ignored_layers=spared,
        num_heads=heads,
        in_channel_groups={},
        out_channel_groups={},
        **settings,
    )
    pruner.step()
    for attention in found:
        repair(attention, pruner.num_heads)
    with torch.no_grad():
        after = flat(network(*inputs))
    # How many boxes a detector finds depends on the weights.
    first = 1 if "detector" in family.tags else 0
    shapes = [tuple(tensor.shape[first:]) for tensor in before], [tuple(tensor.shape[first:]) for tensor in after]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the outputs' shapes changed from {shapes[0]} to {shapes[1]}")
    return {
        "parameters_before": counts[0],
        "parameters_after": parameters(network),
        "macs_before": counts[1],
        "macs_after": macs(network, inputs),
    }


def parameters(network) -> int:
    """Stored numbers; a weight with two owners counts twice, because pruning gives each its own."""
    return sum(parameter.numel() for _, parameter in network.named_parameters(remove_duplicate=False))


def macs(network, inputs) -> float | None:
    """Multiplications as Torch-Pruning counts them; None where it cannot."""
    import torch_pruning

    try:
        return float(torch_pruning.utils.count_ops_and_params(network, inputs)[0])
    except Exception:
        return None


if __name__ == "__main__":
    main()
