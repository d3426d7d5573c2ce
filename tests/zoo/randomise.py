"""Gives networks with fresh weights numbers that differ between channels, so that a slice taken at the wrong index shows.

Initialisation leaves much equal in every channel: normalisation statistics, affine parameters, biases, layer scales, position tables.
BatchNorm statistics are first set to what the example inputs give, then disturbed, so that activations stay in range however deep the
network is.
"""

import torch

from registry import Family

LARGEST = 1e5
BATCH_NORM = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def prepared(family: Family) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The family's network with randomised numbers, and its inputs: the same in every process.

    Raises ValueError where an output is not finite, explodes, or is the same whatever the network computes.
    """
    torch.backends.mha.set_fastpath_enabled(False)  # a fused operator that no exporter knows
    torch.manual_seed(family.seed())
    network = family.build().eval()
    torch.manual_seed(family.seed() + 1)
    inputs = family.inputs()
    with torch.no_grad():
        randomise_parameters(network)
        randomise_statistics(network, inputs)
        check(family.name, network(*inputs))
    return network, inputs


def randomise_parameters(network: torch.nn.Module) -> None:
    """Replaces every parameter that holds one number only."""
    for module in network.modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            value = parameter.flatten()[0].item()
            if not bool((parameter == value).all()):
                continue
            # A norm's factor of zero (the last of a residual block) silences the branch. Gemma's stands for 1 + weight.
            offset = "gemma" in type(module).__name__.lower()
            if is_norm and name == "weight" and not offset:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
            elif parameter.numel() == 1:
                parameter.fill_(value if abs(value) > 0.05 else 0.3)
            elif value == 0:
                torch.nn.init.normal_(parameter, 0.0, 0.1 if parameter.dim() == 1 else 0.02)
            else:
                # A layer scale of 1e-6 would hide the whole branch behind rounding.
                scale = value if abs(value) > 0.05 else 0.3
                parameter.copy_(scale * torch.empty_like(parameter).uniform_(0.5, 1.5))


def randomise_statistics(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Sets every BatchNorm's statistics to those of the inputs, disturbed per channel."""

    def measure(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        values = arguments[0].transpose(0, 1).flatten(1)
        few = values.shape[1] < 8  # too few for statistics per channel
        mean = values.mean() if few else values.mean(1)
        variance = values.var(correction=0) if few else values.var(1)
        noise = torch.empty_like(module.running_mean)
        module.running_mean.copy_(mean + 0.2 * variance.sqrt() * noise.normal_())
        module.running_var.copy_((variance + 1e-3) * noise.uniform_(0.5, 1.5))
        if not isinstance(module, BATCH_NORM):  # frozen: its affine numbers are no parameters
            module.weight.copy_(noise.uniform_(0.5, 1.5))
            module.bias.copy_(0.1 * noise.normal_())

    norms = [module for module in network.modules() if is_batch_norm(module) and module.running_mean is not None]
    hooks = [module.register_forward_pre_hook(measure) for module in norms]
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()


def is_batch_norm(module: torch.nn.Module) -> bool:
    """True for every kind of it, torchvision's frozen one included."""
    return isinstance(module, BATCH_NORM) or type(module).__name__ == "FrozenBatchNorm2d"


def check(name: str, outputs: torch.Tensor | tuple | list) -> None:
    """Raises ValueError for numbers by which nothing can be compared."""
    for index, output in enumerate(flat(outputs)):
        if not output.is_floating_point() or output.numel() == 0:
            continue
        largest = output.abs().max().item()
        if not largest < LARGEST:
            raise ValueError(f"{name}: output {index} reaches {largest:g}")
        if output.numel() > 1 and output.min() == output.max():
            raise ValueError(f"{name}: output {index} is {largest:g} everywhere")


def flat(outputs: object) -> list[torch.Tensor]:
    """All tensors, in order."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in flat(value)] if values is not None else []
