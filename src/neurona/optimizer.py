"""Optimisers by name: torch's own, with the gradient clipping and accumulation that go with a step.

Each function takes the keys of its yaml in ``configs/optimizer`` and returns an Optimization. To add one: a function
here (or in a module of your own) and a yaml.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from neurona.config import ConfigError
from neurona.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How one optimiser step is made.

    algorithm: parameters → torch optimiser. schedule: of the learning rate. clip_norm: largest global L2 norm of the
    gradient (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1). clip_value: largest absolute value of each gradient
    component. accumulate: mini-batches whose mean gradient makes one step; the remainder at the end of an epoch makes
    one too.
    """

    algorithm: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    schedule: Schedule
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name in ("clip_norm", "clip_value"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                problem = "must be above 0, and finite; null switches clipping off"
                raise ConfigError(f"optimizer.{name}", value, problem)
        if self.clip_norm is not None and self.clip_value is not None:
            raise ConfigError(
                "optimizer.clip_value", self.clip_value, "clip by norm or by value, not both: set one to null"
            )
        if not 1 <= self.accumulate < 2**31:
            problem = "must be 1 or more mini-batches per step, below 2147483648"
            raise ConfigError("optimizer.accumulate", self.accumulate, problem)


def adam(
    *,
    lr: float = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    schedule: Schedule,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    accumulate: int = 1,
) -> Optimization:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1 and its defaults); weight_decay is an L2 penalty."""
    _check(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    algorithm = partial(
        torch.optim.Adam,
        lr=lr,
        betas=(float(betas[0]), float(betas[1])),
        eps=eps,
        weight_decay=weight_decay,
        fused=True,
    )
    return Optimization(
        algorithm=algorithm, schedule=schedule, clip_norm=clip_norm, clip_value=clip_value, accumulate=accumulate
    )


def adamw(
    *,
    lr: float = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    schedule: Schedule,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    accumulate: int = 1,
) -> Optimization:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2); torch's defaults."""
    _check(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    algorithm = partial(
        torch.optim.AdamW,
        lr=lr,
        betas=(float(betas[0]), float(betas[1])),
        eps=eps,
        weight_decay=weight_decay,
        fused=True,
    )
    return Optimization(
        algorithm=algorithm, schedule=schedule, clip_norm=clip_norm, clip_value=clip_value, accumulate=accumulate
    )


def sgd(
    *,
    lr: float = 1e-2,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    schedule: Schedule,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    accumulate: int = 1,
) -> Optimization:
    """Stochastic gradient descent; momentum and Nesterov's variant as in torch (Sutskever et al. 2013)."""
    _check(lr=lr, weight_decay=weight_decay, momentum=momentum)
    if nesterov and momentum == 0:
        raise ConfigError("optimizer.nesterov", nesterov, "needs optimizer.momentum above 0")
    algorithm = partial(
        torch.optim.SGD, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=True
    )
    return Optimization(
        algorithm=algorithm, schedule=schedule, clip_norm=clip_norm, clip_value=clip_value, accumulate=accumulate
    )


def rmsprop(
    *,
    lr: float = 1e-3,
    rho: float = 0.9,
    eps: float = 1e-7,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
    schedule: Schedule,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    accumulate: int = 1,
) -> Optimization:
    """RMSprop (Tieleman & Hinton 2012, lecture 6.5) with Keras' defaults; rho is what torch calls alpha."""
    _check(lr=lr, eps=eps, weight_decay=weight_decay, momentum=momentum, rho=rho)
    algorithm = partial(
        torch.optim.RMSprop,
        lr=lr,
        alpha=rho,
        eps=eps,
        momentum=momentum,
        centered=centered,
        weight_decay=weight_decay,
        foreach=True,
    )
    return Optimization(
        algorithm=algorithm, schedule=schedule, clip_norm=clip_norm, clip_value=clip_value, accumulate=accumulate
    )


def _check(*, lr: float, weight_decay: float, betas: Sequence[float] = (0.0, 0.0), **others: float) -> None:
    if not 0 < lr < math.inf:
        raise ConfigError("optimizer.lr", lr, "must be above 0, and finite")
    if not 0 <= weight_decay < math.inf:
        raise ConfigError("optimizer.weight_decay", weight_decay, "must be 0 or more, and finite")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ConfigError("optimizer.betas", list(betas), "must be two numbers in [0, 1)")
    if (eps := others.pop("eps", None)) is not None and not 0 < eps < math.inf:
        raise ConfigError("optimizer.eps", eps, "must be above 0, and finite")
    for name, value in others.items():
        if not 0 <= value < 1:
            raise ConfigError(f"optimizer.{name}", value, "must be in [0, 1)")
