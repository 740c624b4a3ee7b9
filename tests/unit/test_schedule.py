"""Learning rates follow closed formulas, counted in optimiser steps whose total is inferred."""

from __future__ import annotations

import math
from types import FunctionType

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from neurona import schedule
from neurona.errors import ConfigError
from neurona.optimizer import Optimization


def optimizer_of(*names: str, kind=torch.optim.SGD, **arguments) -> torch.optim.Optimizer:
    """Of parameters with these names."""
    parameters = [(name, nn.Parameter(torch.zeros(1))) for name in names or ("weight",)]
    return Optimization.of(kind, **arguments).optimizer(parameters)


def rates(chosen: schedule.Schedule, total: int, name: str = "lr", kind=torch.optim.SGD, **arguments) -> np.ndarray:
    """What each of ``total`` steps is taken with; name: the parameter group's key."""
    algorithm = optimizer_of(lr=0.2, kind=kind, **arguments)
    scheduler = chosen.build(algorithm, total)
    taken = []
    for _ in range(total):
        taken.append(algorithm.param_groups[0][name])
        algorithm.step()
        scheduler.step()
    return np.array(taken)


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (
            StepLR(torch.optim.SGD([torch.zeros(1)]), 1),
            r"returns a StepLR; it must return a neurona\.schedule\.Schedule",
        ),
        (None, r"returns None; it must return a neurona\.schedule\.Schedule"),
        (lambda optimizer: StepLR(optimizer, 1), "its build does not take an optimiser and a number"),
    ],
)
@pytest.mark.parametrize("needs_length", [False, True])
def test_what_makes_no_scheduler_is_refused_by_its_path(made, problem, needs_length):
    made = schedule.Schedule(build=made, needs_length=needs_length) if isinstance(made, FunctionType) else made
    with pytest.raises(ConfigError, match=rf"^optimizer\.schedule\._target_=mine\.own: {problem}"):
        schedule.check("mine.own", made, optimizer_of(lr=0.1))


@pytest.mark.parametrize(("result", "name"), [(None, "None"), (torch.nn.ReLU(), "a ReLU"), (StepLR, "StepLR")])
def test_what_is_no_scheduler_is_refused_as_it_is_built(result, name):
    made = schedule.Schedule(build=lambda optimizer, total_steps: result, needs_length=False)
    schedule.check("mine.own", made, optimizer_of(lr=0.1))
    with pytest.raises(ConfigError, match=rf"^optimizer\.schedule={name}: is what its build returns; it must take .*"):
        schedule.built(made, optimizer_of(lr=0.1), 0)


def test_a_sound_schedule_is_built_once():
    built = []

    def build(optimizer, total_steps):
        built.append(total_steps)
        return StepLR(optimizer, 1)

    made, optimizer = schedule.Schedule(build=build, needs_length=True), optimizer_of(lr=0.1)
    schedule.check("mine.own", made, optimizer)
    assert isinstance(schedule.built(made, optimizer, 7), StepLR)
    assert built == [7]
    for name in ("constant", "cosine"):
        schedule.check(name, getattr(schedule, name)(), optimizer)


def test_constant_builds_nothing():
    assert schedule.constant().build is None
    assert not schedule.constant().needs_length


@pytest.mark.parametrize(("warmup_fraction", "final_fraction"), [(0.1, 0.0), (0.25, 0.1), (0.0, 0.05)])
def test_cosine_warms_up_linearly_and_falls_by_half_a_cosine(warmup_fraction, final_fraction):
    total = 40
    warmup = int(warmup_fraction * total)
    low, high = 0.2 * final_fraction, 0.2
    expected = [high * k / warmup for k in range(1, warmup + 1)]
    # Loshchilov & Hutter 2017, eq. 5: the i-th of T steps.
    expected += [low + (high - low) / 2 * (1 + math.cos(math.pi * i / (total - warmup))) for i in range(total - warmup)]
    chosen = schedule.cosine(warmup_fraction=warmup_fraction, final_fraction=final_fraction)
    np.testing.assert_allclose(rates(chosen, total), expected, rtol=1e-12)
    assert chosen.needs_length


def test_cosine_stays_at_its_final_rate_beyond_the_total():
    chosen = schedule.cosine(warmup_fraction=0.0, final_fraction=0.25)
    algorithm = optimizer_of(lr=0.2)
    scheduler = chosen.build(algorithm, 5)
    for _ in range(9):
        algorithm.step()
        scheduler.step()
    assert algorithm.param_groups[0]["lr"] == pytest.approx(0.05)


def one_cycle(total: int, rise: float, start: float, peak: float, end: float) -> list[float]:
    """Half a cosine from start to peak at step rise·total - 1, another one to end at the last step (as torch)."""
    top, last = rise * total - 1, total - 1

    def blend(a: float, b: float, share: float) -> float:
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    return [
        blend(start, peak, k / top) if k <= top else blend(peak, end, (k - top) / (last - top)) for k in range(total)
    ]


def test_log_cosine_has_cycles_each_twice_as_long_as_the_one_before():
    total = 3000
    taken = rates(schedule.log_cosine(cycles=4), total)
    for end, middle in ((1 / 15, 0), (3 / 15, 1), (7 / 15, 2), (1, 3)):
        assert taken[round(end * total) - 1] == pytest.approx(0, abs=1e-3)
        top = (2 ** (middle + 0.5) - 1) / 15
        assert taken[round(top * total)] == pytest.approx(0.2, rel=1e-2)
    shares = (np.arange(total) + 0.5) / total  # arXiv:2407.04491, section 3.1, at the middle of each step
    np.testing.assert_allclose(taken, 0.1 * (1 - np.cos(2 * np.pi * np.log2(1 + 15 * shares))), rtol=1e-9, atol=1e-15)
    shares = (np.arange(9) + 0.5) / 9
    np.testing.assert_allclose(
        rates(schedule.log_cosine(cycles=1), 9), 0.1 * (1 - np.cos(2 * np.pi * np.log2(1 + shares))), rtol=1e-9
    )


def test_one_cycle_rises_and_falls_and_momentum_goes_the_other_way():
    chosen = schedule.one_cycle(rise_fraction=0.25, start_divisor=10.0, final_divisor=100.0)
    expected = one_cycle(40, 0.25, 0.02, 0.2, 0.0002)
    np.testing.assert_allclose(rates(chosen, 40, momentum=0.9), expected, rtol=1e-12)
    momenta = rates(chosen, 40, "momentum", momentum=0.9)
    np.testing.assert_allclose(momenta, one_cycle(40, 0.25, 0.95, 0.85, 0.95), rtol=1e-12)
    assert chosen.needs_length


def test_one_cycle_moves_adams_first_beta():
    betas = rates(schedule.one_cycle(), 30, "betas", kind=torch.optim.Adam)
    np.testing.assert_allclose(betas[:, 0], one_cycle(30, 0.3, 0.95, 0.85, 0.95), rtol=1e-12)
    assert set(betas[:, 1]) == {0.999}


@pytest.mark.parametrize("arguments", [{"cycle_momentum": False}, {}], ids=["switched off", "none to move"])
def test_one_cycle_leaves_the_momentum(arguments):
    momentum = 0.0 if not arguments else 0.9
    assert set(rates(schedule.one_cycle(**arguments), 20, "momentum", momentum=momentum)) == {momentum}


@pytest.mark.parametrize(("total", "rise_fraction"), [(1, 0.3), (1, 0.0), (2, 0.5), (10, 0.1), (4, 0.25)])
def test_one_cycle_of_any_length_is_finite(total, rise_fraction):
    taken = rates(schedule.one_cycle(rise_fraction=rise_fraction), total)
    assert np.isfinite(taken).all()
    assert taken.max() <= 0.2


GROUPS = {"head": {"lr": 0.4}, "stem": {"lr": 0.02}}


@pytest.mark.parametrize(
    "chosen",
    [
        schedule.cosine(warmup_fraction=0.25, final_fraction=0.1),
        schedule.one_cycle(),
        schedule.log_cosine(),
        schedule.plateau(factor=0.5, patience=0, min_lr=0.01),
        schedule.geometric(first_lr=1e-4, last_lr=1.0, steps=20),
    ],
    ids=["cosine", "one_cycle", "log_cosine", "plateau", "geometric"],
)
def test_every_schedule_keeps_the_ratios_of_groups(chosen):
    alone, grouped = optimizer_of(lr=0.2), optimizer_of("stem", "body", "head", lr=0.2, groups=GROUPS)
    schedulers = [chosen.build(algorithm, 20) for algorithm in (alone, grouped)]
    seen = set()
    for _ in range(20):
        rate = alone.param_groups[0]["lr"]
        seen.add(rate)
        # The rest comes first, then the groups in the order of their patterns.
        assert [group["lr"] for group in grouped.param_groups] == pytest.approx([rate, 2 * rate, rate / 10], rel=1e-12)
        for algorithm, scheduler in zip((alone, grouped), schedulers, strict=True):
            algorithm.step()
            scheduler.step(*[1.0] * isinstance(scheduler, ReduceLROnPlateau))
    assert len(seen) > 4
    if isinstance(schedulers[0], ReduceLROnPlateau):
        assert min(seen) == 0.01, "the floor is reached"


NOT_FINITE = (math.nan, math.inf)
WRONG = [
    (schedule.cosine, "warmup_fraction", -0.1),
    (schedule.cosine, "warmup_fraction", 1.0),
    (schedule.cosine, "final_fraction", -0.1),
    (schedule.cosine, "final_fraction", 1.0),
    (schedule.one_cycle, "rise_fraction", -0.1),
    (schedule.one_cycle, "rise_fraction", 1.0),
    (schedule.one_cycle, "start_divisor", 0.0),
    (schedule.one_cycle, "final_divisor", -1.0),
    (schedule.log_cosine, "cycles", 0),
    (schedule.log_cosine, "cycles", 31),
    (schedule.plateau, "factor", 0.0),
    (schedule.plateau, "factor", 1.0),
    (schedule.plateau, "patience", -1),
    (schedule.plateau, "threshold", -1e-4),
    (schedule.plateau, "min_lr", -1e-4),
    *((schedule.cosine, name, math.nan) for name in ("warmup_fraction", "final_fraction")),
    *((schedule.one_cycle, name, value) for name in ("start_divisor", "final_divisor") for value in NOT_FINITE),
    *((schedule.plateau, name, value) for name in ("factor", "threshold", "min_lr") for value in NOT_FINITE),
]


@pytest.mark.parametrize(("make", "name", "value"), WRONG, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_value_out_of_range_is_refused_by_its_key(make, name, value):
    with pytest.raises(ConfigError) as caught:
        make(**{name: value})
    assert caught.value.key == f"optimizer.schedule.{name}"
    assert caught.value.value is value


# In a fit.


class Rates(Callback):
    """Notes the total number of steps, and the rate that every epoch begins with."""

    def __init__(self) -> None:
        self.of_epochs: list[float] = []

    def on_train_start(self, trainer, pl_module) -> None:
        self.total_steps = pl_module.total_steps()

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.of_epochs.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture
def fit(rows, make_trainer, make_classifier):
    """Fits on 100 rows of zeros in batches of 10 without a bias: the loss is log 2 for ever, no gradient moves it."""

    def run(chosen: schedule.Schedule, *, accumulate: int = 1, **trainer_arguments):
        noted = Rates()
        optimization = Optimization.of(torch.optim.SGD, lr=0.1, schedule=chosen, accumulate=accumulate)
        classifier = make_classifier(nn.Linear(3, 2, bias=False), 3, 2, optimization)
        data = rows(torch.zeros(100, 3), torch.arange(100) % 2, 10)
        trainer = make_trainer(noted, **trainer_arguments)
        trainer.fit(classifier, data)
        return trainer, noted

    return run


@pytest.mark.parametrize(
    ("accumulate", "arguments", "total"),
    [
        (1, {"max_epochs": 3}, 30),
        (3, {"max_epochs": 3}, 12),  # three steps of 3 mini-batches and one of the last, each epoch
        (1, {"max_epochs": 3, "max_steps": 17}, 17),
        (1, {"max_epochs": 1, "max_steps": 17}, 10),
        (4, {"max_epochs": -1, "max_steps": 7}, 7),
        (1, {"max_epochs": 2, "limit_train_batches": 4}, 8),
        (3, {"max_epochs": 2, "limit_train_batches": 0.5}, 4),
        (1, {"max_epochs": 4, "overfit_batches": 2}, 8),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*overfit.*", "ignore:.*`overfit_batches`.*")
def test_the_total_is_inferred_and_reached(fit, accumulate, arguments, total):
    chosen = schedule.cosine(warmup_fraction=0.0, final_fraction=0.5)
    trainer, noted = fit(chosen, accumulate=accumulate, **arguments)
    assert noted.total_steps == trainer.global_step == total
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize("make", [schedule.cosine, schedule.one_cycle])
def test_a_schedule_that_needs_its_length_is_refused_without_a_limit(fit, make):
    with pytest.raises(ConfigError, match=r"set trainer\.max_epochs or trainer\.max_steps") as caught:
        fit(make(), max_epochs=-1)
    assert caught.value.key == "trainer.max_epochs"


@pytest.mark.parametrize("limit_val_batches", [1.0, 0], ids=["validations", "epochs without validation"])
def test_plateau_lowers_the_rate_when_patience_is_exhausted(fit, limit_val_batches):
    """The first figure sets the mark; two more are borne, the next one lowers the rate, and so on."""
    _, noted = fit(schedule.plateau(factor=0.5, patience=2), limit_val_batches=limit_val_batches, max_epochs=8)
    halvings = [0, 0, 0, 0, 1, 1, 1, 2]
    assert noted.of_epochs == pytest.approx([0.1 * 0.5**count for count in halvings])


def test_plateau_counts_validations_not_epochs(fit):
    chosen = schedule.plateau(factor=0.5, patience=1)
    _, noted = fit(chosen, limit_val_batches=1.0, max_epochs=8, check_val_every_n_epoch=2)
    assert noted.of_epochs == pytest.approx([0.1] * 6 + [0.05] * 2)


def test_plateau_stops_at_its_floor(fit):
    _, noted = fit(schedule.plateau(factor=0.1, patience=0, min_lr=0.004), max_epochs=4)
    assert noted.of_epochs == pytest.approx([0.1, 0.1, 0.01, 0.004])
