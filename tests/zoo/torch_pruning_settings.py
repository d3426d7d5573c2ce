"""What Torch-Pruning has to be told about a network: the layers behind its outputs, and the heads of its attention.

Its manual leaves both to the user. Here they are found, so that every family is treated alike: output layers by walking back from the
outputs until a layer with a weight is met, heads by the names that collections of models give to projections.
"""

import dataclasses

import torch

PROJECTIONS = (
    ("qkv",),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("query_proj", "key_proj", "value_proj"),
    ("q", "k", "v"),
    ("q", "kv"),
)
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
KEY_HEADS = ("num_key_value_heads", "num_kv_heads")
HEAD_WIDTH = ("head_dim", "attention_head_size", "key_value_proj_dim", "dim_head", "head_size")
ALL_WIDTH = ("attn_dim", "all_head_size", "inner_dim", "dim", "embed_dim", "hidden_size")
LAYERS = (torch.nn.Linear, torch.nn.modules.conv._ConvNd, torch.nn.RNNBase)


@dataclasses.dataclass
class Attention:
    """A module with projections, and how many heads each has."""

    module: torch.nn.Module
    heads: dict[torch.nn.Module, int]
    fused: int


def attentions(network: torch.nn.Module) -> list[Attention]:
    """Every attention with projections of its own. torch.nn.MultiheadAttention is known to Torch-Pruning already."""
    found = []
    for module in network.modules():
        if isinstance(module, torch.nn.MultiheadAttention):
            continue
        owners = [module, getattr(module, "config", None)]
        count = number(owners, HEADS)
        if not count:
            continue
        key_count = number(owners, KEY_HEADS) or count
        for names in PROJECTIONS:
            layers = [getattr(module, name, None) for name in names]
            if all(isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) for layer in layers):
                heads = {layer: count if index == 0 else key_count for index, layer in enumerate(layers)}
                found.append(Attention(module, heads, 3 if len(names) == 1 else 1))
                break
    return found


def number(owners: list, names: tuple[str, ...]) -> int | None:
    """The first attribute that is a whole number."""
    for owner in owners:
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return None


def repair(attention: Attention, heads: dict[torch.nn.Module, int]) -> None:
    """Sets the attributes by which a module reshapes, as the examples of Torch-Pruning do after a cut."""
    module, first = attention.module, next(iter(attention.heads))
    last = list(attention.heads)[-1]
    count, key_count = heads.get(first, attention.heads[first]), heads.get(last, attention.heads[last])
    width = (first.out_features if isinstance(first, torch.nn.Linear) else first.out_channels) // attention.fused
    changes = {name: count for name in HEADS} | {name: key_count for name in KEY_HEADS}
    changes |= {name: width // count for name in HEAD_WIDTH} | {name: width for name in ALL_WIDTH}
    changes["num_key_value_groups"] = count // key_count
    for name, value in changes.items():
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, value)


def output_layers(network: torch.nn.Module, outputs: list[torch.Tensor]) -> list[torch.nn.Module]:
    """The layers between which and an output no other layer stands."""
    owners: dict[int, torch.nn.Module] = {}
    for module in network.modules():
        if isinstance(module, LAYERS):
            owners |= {id(parameter): module for parameter in module.parameters(recurse=False) if parameter.dim() > 1}
    found: dict[int, torch.nn.Module] = {}
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        layers = [owner for parent in parents if (owner := owner_of_weight(parent, owners)) is not None]
        found |= {id(layer): layer for layer in layers}
        if not layers:
            waiting += [parent for parent in parents if parent not in seen]
            seen.update(parents)
    return list(found.values())


def owner_of_weight(node, owners: dict[int, torch.nn.Module]) -> torch.nn.Module | None:
    """The layer whose weight comes from here, perhaps transposed or standardised."""
    for _ in range(8):
        variable = getattr(node, "variable", None)
        if variable is not None:
            return owners.get(id(variable))
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        if len(parents) != 1:
            return None
        node = parents[0]
    return None
