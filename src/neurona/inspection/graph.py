"""The network as TensorBoard's graph: a node for each layer, with the size of what it returns.

``SummaryWriter.add_graph`` traces every operation, which takes as long as half of a default run, and torch is to drop
the tracing that it uses.
"""

from __future__ import annotations

from typing import Any

import torch
from tensorboard.compat.proto.graph_pb2 import GraphDef  # type: ignore[import-untyped]
from tensorboard.compat.proto.node_def_pb2 import NodeDef  # type: ignore[import-untyped]
from torch import Tensor, nn


def graph(network: nn.Module, features: Tensor) -> GraphDef:
    """The graph of one pass of some rows, (batch, num_features), through a network in evaluation mode.

    What a module computes from its children's results by itself, such as a residual sum, is a node ``result`` in it.
    """
    nodes = [_node("features", "Input", [], features)]
    names: dict[int, str] = {id(features): "features"}
    tensors = [features]  # alive, so that no other tensor gets the same id

    def hook(name: str) -> Any:
        def add_node(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            is_leaf = not any(module.children())
            path = name.replace(".", "/")
            if not is_leaf and id(output) in names:
                return
            sources = [names[id(tensor)] for tensor in inputs if id(tensor) in names]
            if not is_leaf:
                inside = [node.name for node in nodes if node.name.startswith(f"{path}/")]
                sources = list(dict.fromkeys([*inside[-1:], *sources]))
            node = _node(path if is_leaf else f"{path}/result", type(module).__name__, sources, output)
            node.attr["layer"].s = str(module).encode() if is_leaf else type(module).__name__.encode()
            nodes.append(node)
            names[id(output)] = node.name
            tensors.append(output)

        return add_node

    handles = [module.register_forward_hook(hook(name or "network")) for name, module in network.named_modules()]
    try:
        with torch.inference_mode():
            network(features)
    finally:
        for handle in handles:
            handle.remove()
    return GraphDef(node=nodes)


def _node(name: str, operation: str, inputs: list[str], output: Tensor) -> NodeDef:
    node = NodeDef(name=name, op=operation, input=inputs)
    shape = node.attr["_output_shapes"].list.shape.add()
    for size in (-1, *output.shape[1:]):
        shape.dim.add(size=size)
    return node
