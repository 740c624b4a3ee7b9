"""A mini-batch's forward and backward pass as the calls of torch's operations that autograd makes, without autograd.

Two thirds of a small network's step are autograd and the Python of modules around kernels of a few microseconds. Here
both are done once, while ``make_fx`` records which operations they call; what is left is a flat function that calls
them: the same kernels in the same order, hence the same bits and the same random numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from neurona.steps import randomness

Passes = Callable[[Tensor, Tensor], Sequence[Any]]
"""(features, targets) → (loss, logits, and each parameter's gradient, None where the loss does not depend on it)."""

SEEDS = {dtype: torch.ones((), dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}
"""Gradients of a loss with respect to itself."""

aten = torch.ops.aten

BINDINGS: dict[Any, Callable[..., Any]] = {
    aten.addmm.default: torch.addmm,
    aten.mm.default: torch.mm,
    aten.t.default: torch.t,
    aten.sum.dim_IntList: torch.sum,
    aten.add.Tensor: torch.add,
    aten.sub.Tensor: torch.sub,
    aten.mul.Tensor: torch.mul,
    aten.div.Tensor: torch.div,
    aten.relu.default: torch.relu,
    aten.sigmoid.default: torch.sigmoid,
    aten.tanh.default: torch.tanh,
}
"""Functions of torch's that are these operations, and take a microsecond less to call."""


def traced(
    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    parameters: Sequence[Tensor],
    buffers: Sequence[Tensor],
    features: Tensor,
    targets: Tensor,
    share: float = 1,
) -> Passes:
    """Forward and backward pass of ``loss``, which gives loss and logits, for mini-batches of this shape.

    parameters: whose gradients are taken, of ``share`` times the loss. buffers: what the passes may change. All tensors
    that the passes read are read where they lie now. Nothing is changed and no random number drawn. Raises whatever the
    loss raises, and RuntimeError where it does more than compute with tensors: looks at a value, or draws numbers in
    Python.
    """

    def passes(features: Tensor, targets: Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            value, logits = loss(features, targets)
            scaled = value * share if share != 1 else value
            gradients = torch.autograd.grad(scaled, parameters, SEEDS[scaled.dtype], allow_unused=True)
        return value.detach(), logits.detach(), *gradients

    state, before = randomness.rng_state(), [buffer.clone() for buffer in buffers]
    try:
        module = make_fx(passes)(features, targets)
        if randomness.has_drawn_in_python(state):
            raise RuntimeError("numbers are drawn in Python")
    finally:
        randomness.restore_rng(state)
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
    _prune(module.graph)
    return _function(module)


def _prune(graph: fx.Graph) -> None:
    """Drops calls that change nothing: ``detach``, the transpose of a transpose, a sum's dimensions of 1 that a view
    takes away again, and what nobody reads.
    """
    for node in list(graph.nodes):
        if node.target is aten.detach.default:
            _replace(node, node.args[0])
        elif node.target is aten.t.default and node.args[0].target is aten.t.default:
            _replace(node, node.args[0].args[0])
        elif node.target is aten.sum.dim_IntList and node.args[2:] == (True,) and len(node.users) == 1:
            (view,) = node.users
            if view.target is aten.view.default and list(view.args[1]) == _without(node.args[1], node.args[0]):
                node.args = node.args[:2]
                _replace(view, node)
    graph.eliminate_dead_code()


def _replace(node: fx.Node, by: Any) -> None:
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def _without(dimensions: Sequence[int], summed: fx.Node) -> list[int]:
    """The shape of a tensor without some of its dimensions."""
    shape = summed.meta["val"].shape
    gone = {dimension % len(shape) for dimension in dimensions}
    return [size for index, size in enumerate(shape) if index not in gone]


def _function(module: fx.GraphModule) -> Passes:
    """The recorded calls as a Python function, whose constants are its globals: a ``GraphModule`` looks each of them,
    and each operation, up anew, which takes a tenth of the time. Transposes of constants are made once.
    """
    *_, output = module.graph.nodes
    names: dict[fx.Node, str] = {}
    scope: dict[str, Any] = {}
    inputs, lines = [], []

    def constant(value: Any) -> str:
        name = f"constant_{len(scope)}"
        scope[name] = value
        return name

    def text(value: Any) -> str:
        if isinstance(value, fx.Node):
            return names[value]
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(text, value))}]"
        return repr(value) if isinstance(value, int | float | None) else constant(value)

    for node in module.graph.nodes:
        if node.op == "placeholder":
            names[node] = node.name
            inputs.append(node.name)
        elif node.op == "get_attr":
            names[node] = constant(operator.attrgetter(node.target)(module).detach())
        elif node.target is aten.t.default and node.args[0].op == "get_attr":
            names[node] = constant(scope[names[node.args[0]]].t())
        elif node.op == "call_function":
            names[node] = node.name
            arguments = [*map(text, node.args), *(f"{name}={text(value)}" for name, value in node.kwargs.items())]
            lines.append(f"{node.name} = {constant(BINDINGS.get(node.target, node.target))}({', '.join(arguments)})")
    lines.append(f"return {text(output.args[0])}")
    body = "\n    ".join(lines)
    exec(f"def passes({', '.join(inputs)}):\n    {body}", scope)
    return scope["passes"]
