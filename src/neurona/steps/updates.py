"""Updates of torch's fused optimisers by the kernels behind them: what ``Optimizer.step`` comes to, without its
wrapping, which takes a small network several times as long as the kernel.

Relied on: ``torch._fused_adam_``, ``torch._fused_adamw_`` and ``torch._fused_sgd_``, which torch keeps to itself, with
the arguments of torch 2.11 to 2.14.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neurona.steps import hooks

Update = Callable[[list[Tensor]], None]
"""Makes a step of the gradients, one for each parameter; to be called where no gradients are taken."""


def functional(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> Update | None:
    """The update of all parameters of an optimiser. None where a kernel of torch's is not all that a step comes to, or
    where the optimiser has yet to make the state of a parameter.
    """
    make, group = _UPDATES.get(type(optimizer)), optimizer.param_groups[0]
    if make is None or len(optimizer.param_groups) > 1 or hooks.watch_updates(optimizer):
        return None
    if not group["fused"] or group["maximize"] or len({(p.device, p.dtype) for p in parameters}) > 1:
        return None
    return make(optimizer, parameters)


def _adam(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> Update | None:
    group, states = optimizer.param_groups[0], optimizer.state
    if group["amsgrad"] or not all(parameter in states for parameter in parameters):
        return None
    means, squares = ([states[parameter][name] for parameter in parameters] for name in ("exp_avg", "exp_avg_sq"))
    counts = torch.stack([states[parameter]["step"] for parameter in parameters])  # one addition counts for all
    steps = list(counts.unbind())
    for parameter, step in zip(parameters, steps, strict=True):
        states[parameter]["step"] = step
    kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_

    def update(gradients: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        counts.add_(1)
        kernel(
            parameters, gradients, means, squares, [], steps, lr=group["lr"], beta1=beta1, beta2=beta2,
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip

    return update


def _sgd(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> Update | None:
    group = optimizer.param_groups[0]
    buffers = [optimizer.state.get(parameter, {}).get("momentum_buffer") for parameter in parameters]
    if not group["momentum"]:
        buffers = []
    elif any(buffer is None for buffer in buffers):
        return None

    def update(gradients: list[Tensor]) -> None:
        torch._fused_sgd_(
            parameters, gradients, buffers, weight_decay=group["weight_decay"], momentum=group["momentum"],
            lr=group["lr"], dampening=group["dampening"], nesterov=group["nesterov"], maximize=False,
            is_first_step=False,
        )  # fmt: skip

    return update


_UPDATES: dict[type, Callable[[torch.optim.Optimizer, list[Tensor]], Update | None]] = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.SGD: _sgd,
}


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """That of a parameter trained later than others, at 0 as ever: torch 2.13's fused SGD fails without."""
    if type(optimizer) is not torch.optim.SGD or not optimizer.state:
        return
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                if parameter.requires_grad and parameter not in optimizer.state:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
