"""Learning-rate schedules by name, counted in optimiser steps; the total is inferred from the data and the Trainer.

They keep the ratios of the rates of parameter groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from neurona.errors import ConfigError, check_range, takes


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A learning-rate schedule.

    build: (optimiser, total number of optimiser steps) → torch scheduler, or None for a constant rate. Stepped after
    every optimiser step, unless it is a ReduceLROnPlateau: that one is stepped at the end of every epoch, or of
    every ``check_val_every_n_epoch``-th. needs_length: whether the rate depends on the total number of steps.
    """

    build: Callable[[Optimizer, int], LRScheduler] | None
    needs_length: bool


NEEDED = (
    "it must take (optimizer, total_steps) and return one of torch's schedulers, as in"
    " docs/extending.md#a-learning-rate-schedule"
)
"""What is asked of the ``build`` of a schedule, in words."""


def check(target: str, schedule: Any, optimizer: Optimizer) -> None:
    """Raises ConfigError unless the function ``target`` has returned a schedule whose ``build`` takes an optimiser and
    a number.
    """
    if not isinstance(schedule, Schedule):
        problem = f"returns {_named(schedule)}; it must return a neurona.schedule.Schedule"
    elif schedule.build is not None and not takes(schedule.build, optimizer, 0):
        problem = f"its build does not take an optimiser and a number; {NEEDED}"
    else:
        return
    raise ConfigError("optimizer.schedule._target_", target, problem)


def built(schedule: Schedule, optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """What its ``build`` makes. Raises ConfigError where that is no scheduler of torch's."""
    assert schedule.build is not None
    scheduler: Any = schedule.build(optimizer, total_steps)
    if not isinstance(scheduler, LRScheduler):
        raise ConfigError("optimizer.schedule", _named(scheduler), f"is what its build returns; {NEEDED}")
    return scheduler


def _named(value: Any) -> str:
    is_named = isinstance(value, type | FunctionType)
    return value.__qualname__ if is_named else "None" if value is None else f"a {type(value).__qualname__}"


def constant() -> Schedule:
    """A constant learning rate."""
    return Schedule(build=None, needs_length=False)


def cosine(*, warmup_fraction: float = 0.05, final_fraction: float = 0.0) -> Schedule:
    """Linear warm-up, then half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5 without restarts).

    warmup_fraction: share of all steps spent on the way up. final_fraction: last rate as a share of ``optimizer.lr``.
    """
    check_range("optimizer.schedule.warmup_fraction", warmup_fraction, least=0, below=1)
    check_range("optimizer.schedule.final_fraction", final_fraction, least=0, below=1)

    def build(optimizer: Optimizer, total_steps: int) -> LRScheduler:
        warmup_steps = round(warmup_fraction * total_steps)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
            return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

        return LambdaLR(optimizer, factor)

    return Schedule(build=build, needs_length=True)


def log_cosine(*, cycles: int = 4) -> Schedule:
    """Cosines from 0 to ``optimizer.lr`` and back to 0, each twice as long as the one before: ½ (1 - cos(2π log₂(1 +
    (2^cycles - 1) t))) at the share t of all steps (Holzmüller et al. 2024, arXiv:2407.04491, section 3.1, with 4).

    The rate is 0 at the end of each cycle, so that the best epoch is found after a short fit and after a long one.
    """
    check_range("optimizer.schedule.cycles", cycles, least=1, most=30)

    def build(optimizer: Optimizer, total_steps: int) -> LRScheduler:
        def factor(step: int) -> float:
            progress = min((step + 0.5) / max(total_steps, 1), 1.0)
            return 0.5 * (1 - math.cos(2 * math.pi * math.log2(1 + (2**cycles - 1) * progress)))

        return LambdaLR(optimizer, factor)

    return Schedule(build=build, needs_length=True)


def one_cycle(
    *, rise_fraction: float = 0.3, start_divisor: float = 25.0, final_divisor: float = 1e4, cycle_momentum: bool = True
) -> Schedule:
    """One cycle up to ``optimizer.lr`` and down (Smith & Topin 2018, arXiv:1708.07120): torch's, with its defaults.

    rise_fraction: share of all steps spent on the way up. start_divisor: lr / first rate. final_divisor: first rate /
    last rate. cycle_momentum: move the momentum (or Adam's beta 1) the other way, where the optimiser has one.
    """
    check_range("optimizer.schedule.rise_fraction", rise_fraction, least=0, below=1)
    check_range("optimizer.schedule.start_divisor", start_divisor, above=0)
    check_range("optimizer.schedule.final_divisor", final_divisor, above=0)

    def build(optimizer: Optimizer, total_steps: int) -> LRScheduler:
        rates = [group["lr"] for group in optimizer.param_groups]
        has_momentum = "betas" in optimizer.defaults or optimizer.defaults.get("momentum", 0) > 0
        return OneCycleLR(
            optimizer,
            max_lr=rates,
            total_steps=total_steps,
            pct_start=rise_fraction if rise_fraction * total_steps > 1 else 0.0,  # at exactly 1 torch divides by zero
            div_factor=start_divisor,
            final_div_factor=final_divisor,
            cycle_momentum=cycle_momentum and has_momentum,
        )

    return Schedule(build=build, needs_length=True)


def plateau(*, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, min_lr: float = 0.0) -> Schedule:
    """Multiplies the rate by ``factor`` after more than ``patience`` epochs without a lower ``val/loss``.

    torch's ReduceLROnPlateau. Without a validation part, ``train/loss`` takes its place. threshold: the smallest
    relative improvement. min_lr: where ``optimizer.lr`` stops; other groups' rates stop in proportion.
    """
    check_range("optimizer.schedule.factor", factor, above=0, below=1)
    check_range("optimizer.schedule.patience", patience, least=0)
    check_range("optimizer.schedule.threshold", threshold, least=0)
    check_range("optimizer.schedule.min_lr", min_lr, least=0)

    def build(optimizer: Optimizer, total_steps: int) -> LRScheduler:
        rate = optimizer.defaults["lr"]
        floors = [min_lr * (group["lr"] / rate) for group in optimizer.param_groups]
        # Where all are the same, one number also holds for groups that are added in mid-fit.
        floor = min_lr if set(floors) == {min_lr} else floors
        return ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=threshold, min_lr=floor)

    return Schedule(build=build, needs_length=False)


def geometric(*, first_lr: float, last_lr: float, steps: int) -> Schedule:
    """From one rate to another by the same ratio every step, whatever ``optimizer.lr`` is: what ``stage=lr_find`` fits
    with. steps: at least 2.
    """

    def build(optimizer: Optimizer, total_steps: int) -> LRScheduler:
        start = first_lr / optimizer.defaults["lr"]
        return LambdaLR(optimizer, lambda step: start * (last_lr / first_lr) ** (step / (steps - 1)))

    return Schedule(build=build, needs_length=False)
