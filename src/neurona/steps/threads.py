"""Whether a recorded pass gives the same bits on half of the threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx

from neurona.devices import cpu
from neurona.steps.trace import PRODUCTS, Recording, Unchanged, equal

GRAIN = 32768
"""Numbers from which on torch shares elementwise operations and sums among threads (at::internal::GRAIN_SIZE)."""

ALIGNED = 64
"""Numbers that vector instructions take at once divide this one: what is left over at the end of a share is computed
otherwise, and rounded otherwise by some functions.
"""

# Operations of torch's by their names in ``torch.ops.aten``.

EACH_BY_ITSELF = frozenset(
    """view.default view.dtype _unsafe_view.default t.default transpose.int permute.default expand.default slice.Tensor
    unsqueeze.default squeeze.dim select.int detach.default alias.default unbind.int split.Tensor clone.default
    _to_copy.default copy_.default cat.default index_select.default empty.memory_format empty_like.default
    zeros_like.default fill_.Scalar random_.default bernoulli_.float embedding.default _log_softmax.default
    _log_softmax_backward_data.default nll_loss_forward.default nll_loss_backward.default""".split()  # noqa: SIM905
)
"""Every number, or row, is computed, copied or drawn in the same way whichever thread does it."""

EXACT = frozenset(
    """add.Tensor sub.Tensor sub_.Tensor mul.Tensor mul_.Tensor mul.Scalar div.Tensor div.Scalar div_.Scalar neg.default
    relu.default threshold_backward.default clamp_.default masked_fill_.Scalar
    bitwise_left_shift_.Tensor_Scalar""".split()  # noqa: SIM905
)
"""Elementwise, and rounded in one way only (IEEE 754)."""

SUMS = frozenset(["sum.dim_IntList", "sum.default", "mean.dim", "mean.default"])


def half_will_do(
    recording: Recording, features: Tensor, targets: Tensor, parameters: Sequence[Tensor], buffers: Sequence[Tensor]
) -> bool:
    """Whether half of torch's threads, if there are several, give the same bits.

    For products and sums that is tried, with random parameters, as those of a fit may be special: their summands are
    shared among threads as a library likes, and in another order nearly every sum differs. Of all other operations it
    must be known.
    """
    threads = torch.get_num_threads()
    if threads < 2 or not all(_is_known(node, threads) for node in recording.graph.nodes if node.op == "call_function"):
        return False
    generator, tensors = torch.Generator().manual_seed(0), [*parameters, *buffers]
    with Unchanged(tensors):
        with torch.no_grad():
            for parameter in parameters:
                values = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.copy_(values / math.sqrt(parameter.shape[-1] if parameter.ndim > 1 else 100))
        with Unchanged(tensors) as unchanged:
            on_all = unchanged.outcome(recording.passes, features, targets)
            with cpu.half_the_threads():
                on_half = unchanged.outcome(recording.passes, features, targets)
    return all(map(equal, on_all, on_half))


def _is_known(node: fx.Node, threads: int) -> bool:
    """Whether an operation cannot depend on the number of threads, or a trial would show it."""
    noted = [one.meta for one in (node, *node.all_input_nodes) if "shape" in one.meta]
    if any(meta["dtype"] in (torch.float16, torch.bfloat16) for meta in noted):  # which round a difference away
        return False
    target: Any = node.target
    name = str(target).removeprefix("aten.")
    is_exact = name in EXACT and node.kwargs.get("alpha", 1) == 1
    if target is getitem or target in PRODUCTS or name in EACH_BY_ITSELF or is_exact:
        return True
    is_small = max((meta["shape"].numel() for meta in noted), default=0) < GRAIN
    if name in SUMS:  # a single one may be the same by chance
        return is_small or node.meta["shape"].numel() > 1
    return torch.Tag.pointwise in target.tags and (is_small or _is_aligned(node.meta["shape"], threads))


def _is_aligned(shape: torch.Size, threads: int) -> bool:
    """Whether the shares of all threads, and of half, end where a row and a vector end."""
    size = shape.numel()
    shares = [min(number, -(-size // GRAIN)) for number in (threads, threads // 2)]
    lengths = [-(-size // number) for number in shares if number > 1]
    return not any(length % ALIGNED or length % shape[-1] for length in lengths)
