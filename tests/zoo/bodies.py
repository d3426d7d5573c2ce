"""Graphs inside graphs, as plans name what is in them.

A tensor inside the body of a node is named FIRST_OUTPUT_OF_THE_NODE.ATTRIBUTE/NAME, one prefix for every level. A call of a local function
stands for the function's nodes, whose inner tensors are named FIRST_OUTPUT_OF_THE_CALL/NAME.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto


def first_output(node: NodeProto) -> str:
    """The first output that has a name."""
    return next((name for name in node.output if name), "")


def bodies(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """The graphs in a node's attributes with their prefixes."""
    for attribute in node.attribute:
        inner = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
        for number, graph in enumerate(inner):
            yield f"{first_output(node)}.{attribute.name}{number or ''}/", graph


def graphs(graph: GraphProto, prefix: str = "") -> Iterator[tuple[str, GraphProto]]:
    """A graph and all that are nested in it, with their prefixes."""
    yield prefix, graph
    for node in graph.node:
        for inner, body in bodies(node):
            yield from graphs(body, prefix + inner)


def rename(node: NodeProto, names: dict[str, str]) -> None:
    """Renames what a node reads and writes, and what its bodies read from outside."""
    for values in (node.input, node.output):
        for i, name in enumerate(values):
            values[i] = names.get(name, name)
    for _, body in bodies(node):
        own = {tensor.name for tensor in body.initializer} | {given.name for given in body.input}
        own |= {name for inner in body.node for name in inner.output}
        for inner in body.node:
            rename(inner, {old: new for old, new in names.items() if old not in own})
        for given in body.output:
            given.name = given.name if given.name in own else names.get(given.name, given.name)


def written_out(call: NodeProto, function: FunctionProto) -> list[NodeProto]:
    """The nodes that a call stands for."""
    base = first_output(call)
    names = dict(zip(function.input, [*call.input, *[""] * len(function.input)]))
    names |= dict(zip(function.output, call.output))
    given = {attribute.name: attribute for attribute in (*function.attribute_proto, *call.attribute)}
    nodes = []
    for original in function.node:
        node = NodeProto.FromString(original.SerializeToString())
        fresh = (name for name in node.output if name and name not in names)
        names |= {name: f"{base}/{name}" for name in list(fresh)}
        rename(node, names)
        for attribute in [a for a in node.attribute if a.ref_attr_name]:
            value = given.get(attribute.ref_attr_name)
            name = attribute.name
            node.attribute.remove(attribute)
            if value is not None:
                node.attribute.append(value)
                node.attribute[-1].name = name
        nodes.append(node)
    return nodes


def inlined(model: ModelProto) -> ModelProto:
    """The model with every call of a local function written out. A function that calls itself is not ONNX."""
    if not model.functions:
        return model
    known = {(function.domain, function.name): function for function in model.functions}
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.functions[:]

    def expand(nodes: list[NodeProto]) -> list[NodeProto]:
        found: list[NodeProto] = []
        for node in nodes:
            function = known.get((node.domain, node.op_type))
            found += expand(written_out(node, function)) if function else [node]
        return found

    # Outermost first: what is put in is expanded before, what is nested in it afterwards.
    for _, graph in graphs(copy.graph):
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in expand(list(graph.node))]
        del graph.node[:]
        graph.node.extend(nodes)
    have = {entry.domain for entry in copy.opset_import}
    copy.opset_import.extend(e for f in model.functions for e in f.opset_import if e.domain not in have and not have.add(e.domain))
    return copy
