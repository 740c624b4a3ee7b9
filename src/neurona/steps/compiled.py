"""``compile=true``: the recorded forward and backward pass, compiled to fewer and larger kernels."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from neurona.steps.trace import Passes, Recording, Unchanged


def compiled(recording: Recording, features: Tensor, targets: Tensor) -> Passes:
    """The recorded calls, compiled ahead of time for mini-batches of this shape. Changes nothing and draws no random
    number. Raises whatever the compiler raises.
    """
    module = fx.GraphModule({}, recording.graph)
    # As one element: the compiler would take a float64 scalar for a number that may become a constant.
    tensors, are_scalars = [*map(torch.atleast_1d, recording.tensors)], [not one.ndim for one in recording.tensors]

    def function(tensors: list[Tensor], features: Tensor, targets: Tensor) -> Any:
        read = [one.squeeze() if is_scalar else one for one, is_scalar in zip(tensors, are_scalars, strict=True)]
        return module(features, targets, *read)

    # No guards and assertions: all that they would look at in every step is fixed for as long as the recording holds.
    unsafe = torch.compiler.skip_all_guards_unsafe
    options: Any = {"guard_filter_fn": unsafe, "size_asserts": False, "alignment_asserts": False}
    options["cpp_wrapper"] = features.device.type == "cpu"  # Python between kernels took a sixth of a step
    _allow_ahead_of_time()
    with torch.no_grad(), Unchanged(tensors):
        made: Any = torch.compile(function, dynamic=False, fullgraph=True, options=options)
        passes: Passes = partial(made.aot_compile(((tensors, features, targets), {})).fn, tensors)
        _, _, *gradients = passes(features, targets)
    places = [gradient.untyped_storage().data_ptr() for gradient in gradients if gradient is not None]
    if len(set(places)) < len(places):
        raise RuntimeError("the gradients of two parameters are one tensor")
    return passes


def _allow_ahead_of_time() -> None:
    """Torch has ``aot_compile`` switched off in 2.11, and on from 2.12 on."""
    config: Any = torch._dynamo.config
    if not getattr(config, "enable_aot_compile", True):  # the switch is to go
        config.enable_aot_compile = True
