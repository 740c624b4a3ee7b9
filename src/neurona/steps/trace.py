"""A mini-batch's forward and backward pass as the calls of torch's operations that autograd makes, without autograd.

Two thirds of a small network's step are autograd and the Python of modules around kernels of a few microseconds. Here
both are done once, while it is noted which operations they call; what is left is a flat function that calls them: the
same kernels in the same order, hence the same bits and the same random numbers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from neurona.steps import randomness

Passes = Callable[[Tensor, Tensor], Sequence[Any]]
"""(features, targets) → (loss, logits, and each parameter's gradient, None where the loss does not depend on it)."""


class Recording(NamedTuple):
    """graph: the calls; its inputs are features, targets and the ``tensors`` that they read. passes: calls them."""

    graph: fx.Graph
    tensors: list[Tensor]
    passes: Passes


SEED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Of a loss, and of its gradient with respect to itself."""

aten = torch.ops.aten

LOOKS_AT_VALUE = "it looks at a value that it computes or holds"

LOOKS = {Tensor.tolist, Tensor.numpy, Tensor.__array__}
"""Methods whose result would be recorded for good, and that call no operation."""

BINDINGS: dict[Any, Callable[..., Any]] = {
    aten.addmm.default: torch.addmm,
    aten.mm.default: torch.mm,
    aten.t.default: torch.t,
    aten.sum.dim_IntList: torch.sum,
    aten.add.Tensor: torch.add,
    aten.add.out: torch.add,
    aten.sub.Tensor: torch.sub,
    aten.sub.out: torch.sub,
    aten.mul.Tensor: torch.mul,
    aten.mul.out: torch.mul,
    aten.div.Tensor: torch.div,
    aten.div.out: torch.div,
    aten.relu.default: torch.relu,
    aten.relu_.default: torch.relu_,
    aten.sigmoid.default: torch.sigmoid,
    aten.sigmoid_.default: torch.sigmoid_,
    aten.tanh.default: torch.tanh,
    aten.tanh_.default: torch.tanh_,
}
"""Functions of torch's that are these operations, and take a microsecond less to call."""

VIEWS = frozenset([aten.t.default, aten.transpose.int, aten.permute.default, aten.view.default, aten.unsqueeze.default])

PRODUCTS = frozenset({aten.addmm.default, aten.mm.default, aten.baddbmm.default, aten.bmm.default})

ARITHMETIC = frozenset([aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.addcmul.default])

OF_NEW_MEMORY = PRODUCTS | ARITHMETIC | {aten._to_copy.default}

IN_PLACE = {
    aten.relu.default: aten.relu_.default,
    aten.sigmoid.default: aten.sigmoid_.default,
    aten.tanh.default: aten.tanh_.default,
}
"""Activations whose gradient needs what comes out, not what goes in."""


def traced(
    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    parameters: Sequence[Tensor],
    buffers: Sequence[Tensor],
    features: Tensor,
    targets: Tensor,
    share: float = 1,
) -> Recording:
    """Forward and backward pass of ``loss``, which gives loss and logits, for mini-batches of this shape.

    parameters: whose gradients are taken, of ``share`` times the loss. buffers: what the passes may change. All tensors
    that the passes read are read where they lie now. Nothing is changed and no random number drawn. Raises whatever the
    loss raises, and RuntimeError where it does more than compute with tensors: looks at a value, draws numbers in
    Python, changes a parameter; or where what was recorded does not give the very bits of another mini-batch, of these
    rows, paired otherwise (on a GPU, some of whose kernels give other bits every time: what is close to them).
    """
    seeds = {dtype: torch.ones((), dtype=dtype, device=features.device) for dtype in SEED_DTYPES}

    def passes(features: Tensor, targets: Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            value, logits = loss(features, targets)
            scaled = value * share if share != 1 else value
            gradients = torch.autograd.grad(scaled, parameters, seeds[scaled.dtype], allow_unused=True)
        others = [features, targets, value, logits, *seeds.values(), *parameters, *buffers]
        return value.detach(), logits.detach(), *_owned(gradients, parameters, others)

    with Unchanged([*parameters, *buffers]) as unchanged:
        graph, tensors = _recorded(passes, features, targets)
        if unchanged.drawn != randomness.drawn():
            raise RuntimeError("numbers are drawn in Python")
        _prune(graph)
        function = _function(graph, tensors)
        others = torch.cat([features[:1], features[:-1]]), torch.cat([targets[1:], targets[-1:]])
        if not all(map(equal, unchanged.outcome(function, *others), unchanged.outcome(passes, *others))):
            raise RuntimeError("what was recorded gives other bits")
        if not all(map(torch.equal, parameters, unchanged.before)):
            raise RuntimeError("a parameter is changed in place")
    return Recording(graph, tensors, function)


def _recorded(
    passes: Callable[..., tuple[Any, ...]], features: Tensor, targets: Tensor
) -> tuple[fx.Graph, list[Tensor]]:
    """The operations that the passes call, and the tensors that they read."""
    recorder, keeps_casts = _Recorder(features, targets), torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # of weights, which would be read as they are now
    try:
        with _NoLooking(), recorder:
            results = passes(features, targets)
    finally:
        torch.set_autocast_cache_enabled(keeps_casts)
    recorder.graph.output(tuple(map(recorder.node, results)))
    return recorder.graph, recorder.tensors


class _Recorder(TorchDispatchMode):
    """Notes the operations that are called within, below autograd. What they read that none of them has made becomes an
    input of the graph. Whoever asks a tensor for a value gets a RuntimeError.
    """

    def __init__(self, features: Tensor, targets: Tensor) -> None:
        super().__init__()
        self.graph, self.tensors = fx.Graph(), list[Tensor]()
        self._nodes: Any = WeakTensorKeyDictionary()
        self._places = dict[Any, fx.Node]()
        for name, tensor in (("features", features), ("targets", targets)):
            self._note(tensor, self.graph.placeholder(name))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.data_dependent_output in func.tags:
            raise RuntimeError(LOOKS_AT_VALUE)
        if torch.Tag.dynamic_output_shape in func.tags and (func is not aten.index.Tensor or _has_mask(args[1])):
            raise RuntimeError("the shape of what it computes depends on values")
        if func is aten.lift_fresh.default:
            func = aten.clone.default  # what has been made from Python's numbers is new in every pass
        results = func(*args, **(kwargs or {}))
        called: Any = [map_aggregate(part, self.node) for part in (args, kwargs or {})]
        self._note(results, self.graph.call_function(func, *called))
        return results

    def _note(self, results: Any, node: fx.Node) -> None:
        if isinstance(results, Tensor):
            self._nodes[results] = node
            node.meta.update(shape=results.shape, stride=results.stride(), dtype=results.dtype)
        elif isinstance(results, list | tuple):
            for index, result in enumerate(results):
                self._note(result, self.graph.call_function(operator.getitem, (node, index)))

    def node(self, value: Any) -> Any:
        """A tensor's; other values are themselves."""
        if not isinstance(value, Tensor):
            return value
        if value not in self._nodes:
            place = value.data_ptr(), value.shape, value.stride(), value.dtype
            if place not in self._places:
                self._places[place] = self.graph.placeholder(f"tensor_{len(self.tensors)}")
                self.tensors.append(value.detach())
            self._note(value, self._places[place])
        return self._nodes[value]


def _has_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


class _NoLooking(TorchFunctionMode):
    """A context in which reading the value of a tensor without an operation raises a RuntimeError."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LOOKS:
            raise RuntimeError(LOOKS_AT_VALUE)
        return func(*args, **(kwargs or {}))


class Unchanged:
    """A context that restores tensors and random generators at its end."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors, self.before = tensors, [tensor.detach().clone() for tensor in tensors]
        self._rng, self.drawn = randomness.rng_state(), randomness.drawn()

    def __enter__(self) -> Unchanged:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    def restore(self) -> None:
        randomness.restore_rng(self._rng)
        with torch.no_grad():
            for tensor, value in zip(self.tensors, self.before, strict=True):
                tensor.copy_(value)

    def outcome(self, passes: Passes, features: Tensor, targets: Tensor) -> list[Tensor | None]:
        """What passes give and leave behind that begin with the tensors and generators as they were."""
        self.restore()
        with torch.no_grad():
            results = passes(features, targets)
        return [*results, torch.get_rng_state(), *(tensor.detach().clone() for tensor in self.tensors)]


def _owned(
    gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], others: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients as ``backward`` leaves them to the parameters: each in memory of its own and laid out as its
    parameter is, copied where it is not.
    """
    owned: list[Tensor | None] = []
    pointers = {tensor.untyped_storage().data_ptr() for tensor in others}
    for gradient, parameter in zip(gradients, parameters, strict=True):
        if gradient is not None:
            place = gradient.untyped_storage().data_ptr()
            if place in pointers or gradient.stride() != parameter.stride():
                gradient = torch.empty_like(parameter.detach()).copy_(gradient)
            pointers.add(place)
        owned.append(gradient)
    return owned


def equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether these are the same bits; on a GPU, whether they are close."""
    if one is None or other is None:
        return one is other
    return torch.equal(one, other) if one.device.type == "cpu" else torch.allclose(one, other, equal_nan=True)


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
    shape = summed.meta["shape"]
    gone = {dimension % len(shape) for dimension in dimensions}
    return [size for index, size in enumerate(shape) if index not in gone]


def _in_place(node: fx.Node, dying: Sequence[fx.Node]) -> tuple[Any, dict[str, Any]]:
    """The operation and keywords that make a call. Arithmetic, an activation or its gradient takes the place of what it
    is computed from where nothing reads that any more, as memory that the processor's cache does not hold takes time.
    dying: what nobody reads after this call.
    """
    operation: Any = node.target
    for source in dying:
        if source.target not in OF_NEW_MEMORY or source.meta != node.meta or any(map(_is_view, source.users)):
            continue
        if operation in ARITHMETIC:
            return operation.overloadpacket.out, {**node.kwargs, "out": source}
        if source is node.args[0] and operation in IN_PLACE:
            return IN_PLACE[operation], node.kwargs
        is_gradient = torch.Tag.pointwise in operation.tags and "grad_input" in operation.overloadpacket.overloads()
        if source is node.args[0] and is_gradient:
            return operation.overloadpacket.grad_input, {**node.kwargs, "grad_input": source}
    return operation, node.kwargs


def _is_view(node: fx.Node) -> bool:
    """Whether a call gives, or changes, memory that it was given."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(result.alias_info is not None for result in schema.returns)


def _function(graph: fx.Graph, tensors: Sequence[Tensor]) -> Passes:
    """The recorded calls as a Python function, whose constants are its globals: a ``GraphModule`` looks each operation
    up anew, which takes a tenth of the time. Views of constants are made once.
    """
    *_, output = graph.nodes
    last_use = {used: node for node in graph.nodes for used in node.all_input_nodes}
    last_uses: dict[fx.Node, list[fx.Node]] = {node: [] for node in graph.nodes}
    for used, node in last_use.items():
        last_uses[node].append(used)  # its memory is free from then on
    names: dict[fx.Node, str] = {}
    scope: dict[str, Any] = {}
    inputs, lines, made = list[str](), list[str](), set[str]()
    read = iter(tensors)

    def constant(value: Any) -> str:
        name = f"constant_{len(scope)}"
        scope[name] = value
        return name

    def text(value: Any) -> str:
        if isinstance(value, fx.Node):
            return names[value]
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(text, value))}]"
        is_literal = isinstance(value, int | None) or (isinstance(value, float) and math.isfinite(value))
        return repr(value) if is_literal else constant(value)

    for node in graph.nodes:
        if node.op == "placeholder" and len(inputs) < 2:
            names[node] = node.name
            inputs.append(node.name)
        elif node.op == "placeholder":
            names[node] = constant(next(read))
        elif node.target in VIEWS and names[node.args[0]] in scope:
            names[node] = constant(node.target(scope[names[node.args[0]]], *node.args[1:]))
        elif node.op == "call_function":
            names[node] = node.name
            made.add(node.name)
            target, kwargs = _in_place(node, last_uses[node])
            arguments = [*map(text, node.args), *(f"{name}={text(value)}" for name, value in kwargs.items())]
            lines.append(f"{node.name} = {constant(BINDINGS.get(target, target))}({', '.join(arguments)})")
            if over := [used.name for used in last_uses[node] if used.name in made]:
                lines.append(f"del {', '.join(over)}")
    lines.append(f"return {text(output.args[0])}")
    body = "\n    ".join(lines)
    exec(f"def passes({', '.join(inputs)}):\n    {body}", scope)
    return scope["passes"]
