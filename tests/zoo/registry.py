"""The families of the zoo: what each is, how it is built, and what it is fed.

A module NAME_families.py keeps a list FAMILIES of `Family`; `families()` collects them. Importing such a module is cheap: whatever is
large (timm, transformers) is imported by `build` alone, so that listing the zoo takes no time.
"""

import dataclasses
import fnmatch
import importlib
import pathlib
import zlib
from collections.abc import Callable

import torch

Inputs = Callable[[], tuple[torch.Tensor, ...]]


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture.

    `build` returns the network in evaluation mode, with random weights; `inputs` returns example tensors, in the order of the
    parameters of `forward`. `dynamic` maps an input or output to {axis: symbol} and asks for a variant whose axes are open.
    `exporters` names what writes it: "legacy" (tracing) and "dynamo" (torch.export). `tags` are words that other scripts act on:

    - "batch-norm": one more file, in which BatchNormalization stays a node of its own
    - "dynamo-dynbatch": the variant with open axes is written by the second exporter too
    - "opset-18": the tracing exporter needs at least this opset
    - "multi-task": more than one task reads the same features
    - "detector": post-processing is inside, and the shapes of the outputs depend on the values
    """

    name: str
    source: str
    build: Callable[[], torch.nn.Module]
    inputs: Inputs
    input_names: tuple[str, ...] = ("image",)
    output_names: tuple[str, ...] = ("logits",)
    dynamic: dict[str, dict[int, str]] = dataclasses.field(default_factory=dict)
    exporters: tuple[str, ...] = ("legacy",)
    tags: tuple[str, ...] = ()

    def seed(self) -> int:
        """The same in every process and on every machine."""
        return zlib.crc32(self.name.encode())


def image(size: int, channels: int = 3, batch: int = 1) -> Inputs:
    """Inputs of an image classifier: N C H W, standard normal."""
    return lambda: (torch.randn(batch, channels, size, size),)


def tokens(length: int, vocabulary: int = 256, batch: int = 1, count: int = 1) -> Inputs:
    """Inputs of a language model: `count` tensors N L of word numbers."""
    return lambda: tuple(torch.randint(3, vocabulary, (batch, length)) for _ in range(count))


def batch_of(*names: str) -> dict[str, dict[int, str]]:
    """`dynamic` for inputs and outputs whose first axis is the batch."""
    return {name: {0: "batch"} for name in names}


def families(only: str = "*") -> list[Family]:
    """All families whose name matches the pattern, in the order of the modules."""
    here = pathlib.Path(__file__).resolve().parent
    found: list[Family] = []
    for path in sorted(here.glob("*_families.py")):
        found.extend(importlib.import_module(path.stem).FAMILIES)
    names = [family.name for family in found]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise SystemExit(f"two families have one name: {', '.join(sorted(repeated))}")
    return [family for family in found if fnmatch.fnmatch(family.name, only)]
