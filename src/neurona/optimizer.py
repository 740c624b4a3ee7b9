"""Optimisers by name: torch's own, with the gradient clipping and accumulation that go with a step.

Each function takes the keys of its yaml in ``configs/optimizer`` and returns an Optimization. To add one: a function
here (or in a module of your own) and a yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from neurona.errors import ConfigError, check_range
from neurona.schedule import Schedule

Algorithm = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Optimization:
    """How one optimiser step is made.

    algorithm: parameters → torch optimiser. schedule: of the learning rate. clip_norm: largest global L2 norm of the
    gradient (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1). clip_value: largest absolute value of each gradient
    component. accumulate: mini-batches whose mean gradient makes one step; the remainder at the end of an epoch makes
    one too.
    """

    algorithm: Algorithm
    schedule: Schedule
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        check_range("optimizer.clip_norm", self.clip_norm, above=0)
        check_range("optimizer.clip_value", self.clip_value, above=0)
        check_range("optimizer.accumulate", self.accumulate, least=1, below=2**31)
        if self.clip_norm is not None and self.clip_value is not None:
            problem = "clip by norm or by value, not both: set one to null"
            raise ConfigError("optimizer.clip_value", self.clip_value, problem)


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
    algorithm = _adam(torch.optim.Adam, lr, betas, eps, weight_decay)
    return Optimization(algorithm, schedule, clip_norm, clip_value, accumulate)


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
    algorithm = _adam(torch.optim.AdamW, lr, betas, eps, weight_decay)
    return Optimization(algorithm, schedule, clip_norm, clip_value, accumulate)


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
    _check(lr, weight_decay, momentum=momentum)
    if nesterov and momentum == 0:
        raise ConfigError("optimizer.nesterov", nesterov, "needs optimizer.momentum above 0")
    algorithm = partial(
        torch.optim.SGD, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=True
    )
    return Optimization(algorithm, schedule, clip_norm, clip_value, accumulate)


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
    check_range("optimizer.eps", eps, above=0)
    _check(lr, weight_decay, momentum=momentum, rho=rho)
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
    return Optimization(algorithm, schedule, clip_norm, clip_value, accumulate)


def _adam(
    kind: type[torch.optim.Adam], lr: float, betas: Sequence[float], eps: float, weight_decay: float
) -> Algorithm:
    _check(lr, weight_decay)
    check_range("optimizer.eps", eps, above=0)
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ConfigError("optimizer.betas", list(betas), "must be two numbers in [0, 1)")
    return partial(
        kind, lr=lr, betas=(float(betas[0]), float(betas[1])), eps=eps, weight_decay=weight_decay, fused=True
    )


def _check(lr: float, weight_decay: float, **shares: float) -> None:
    check_range("optimizer.lr", lr, above=0)
    check_range("optimizer.weight_decay", weight_decay, least=0)
    for name, share in shares.items():
        check_range(f"optimizer.{name}", share, least=0, below=1)
