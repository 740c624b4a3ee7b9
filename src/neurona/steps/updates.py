"""Updates of torch's fused optimisers by the functions behind them: what ``Optimizer.step`` comes to, without its
wrapping, which takes a small network two thirds as long as the update.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from neurona.steps import hooks

Update = Callable[[list[Tensor]], None]
"""Makes a step of the gradients, one for each parameter; to be called where no gradients are taken."""


def functional(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> Update | None:
    """The update of all parameters of an optimiser. None where torch's function is not all that a step comes to, or
    where the optimiser has yet to make the state of a parameter.
    """
    make = _UPDATES.get(type(optimizer))
    if make is None or len(optimizer.param_groups) > 1 or hooks.watch_updates(optimizer):
        return None
    return make(optimizer, parameters)


def _adam(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> Update | None:
    group, names = optimizer.param_groups[0], ("exp_avg", "exp_avg_sq", "step")
    if not group["fused"] or group["amsgrad"] or group["maximize"] or not all(p in optimizer.state for p in parameters):
        return None
    means, squares, steps = ([optimizer.state[parameter][name] for parameter in parameters] for name in names)

    def update(gradients: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        adam(
            parameters, gradients, means, squares, [], steps, beta1=beta1, beta2=beta2, lr=group["lr"],
            weight_decay=group["weight_decay"], eps=group["eps"],
            decoupled_weight_decay=group["decoupled_weight_decay"], fused=True, amsgrad=False, maximize=False,
        )  # fmt: skip

    return update


def _sgd(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> Update | None:
    group = optimizer.param_groups[0]
    buffers = [optimizer.state.get(parameter, {}).get("momentum_buffer") for parameter in parameters]
    if not group["fused"] or group["maximize"] or (group["momentum"] and any(buffer is None for buffer in buffers)):
        return None

    def update(gradients: list[Tensor]) -> None:
        sgd(
            parameters, gradients, buffers, weight_decay=group["weight_decay"], momentum=group["momentum"],
            lr=group["lr"], dampening=group["dampening"], nesterov=group["nesterov"], fused=True, maximize=False,
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
