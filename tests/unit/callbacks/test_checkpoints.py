"""best.ckpt is the state with the lowest val/loss, last.ckpt the newest; the figures of the best are its own."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from neurona.callbacks.checkpoints import BestAndLast
from neurona.errors import ConfigError
from neurona.models.linear import Linear
from neurona.optimizer import Optimization
from neurona.runs.checkpoint import AtomicCheckpointIO

pytestmark = pytest.mark.usefixtures("_every_epoch")

FEATURES, TARGETS = torch.randn(80, 4, generator=torch.Generator().manual_seed(0)), torch.arange(80) % 3


class Validations(Callback):
    """Notes the accuracy and the weights of every validation, and the training loss of every epoch."""

    def __init__(self) -> None:
        self.accuracies: list[float] = []
        self.weights: list[torch.Tensor] = []
        self.train_losses: list[float] = []

    def on_validation_end(self, trainer, pl_module) -> None:
        self.accuracies.append(trainer.callback_metrics["val/accuracy"].item())
        self.weights.append(pl_module.network.head.weight.detach().clone())

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch:
            self.train_losses.append(trainer.callback_metrics["train/loss"].item())


@pytest.fixture
def fit(rows, make_trainer, make_classifier, with_val_losses, tmp_path):
    """Fits 10 mini-batches an epoch, with validation if told the losses to report; returns callback and Trainer."""

    def run(
        *callbacks: Callback,
        val_losses: Sequence[float] = (),
        accumulate: int = 1,
        options: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        **arguments: Any,
    ) -> tuple[BestAndLast, Trainer]:
        keeper = BestAndLast(folder=str(tmp_path / "checkpoints"), **options or {})
        keeper.timer.clock = clock
        optimization = Optimization.of(torch.optim.SGD, lr=0.5, accumulate=accumulate)
        arguments = {"max_epochs": 5, "limit_val_batches": 1.0 if val_losses else 0} | arguments
        arguments["plugins"] = [AtomicCheckpointIO(tmp_path)]
        trainer = make_trainer(*callbacks, keeper, enable_checkpointing=True, **arguments)
        classifier = make_classifier(Linear(4, 3), 4, 3, optimization, kind=with_val_losses(val_losses))
        trainer.fit(classifier, rows(FEATURES, TARGETS, 8))
        return keeper, trainer

    return run


def epoch_and_step(path: Path) -> tuple[int, int]:
    contents = torch.load(path, weights_only=True)
    return contents["epoch"], contents["global_step"]


def test_best_is_the_epoch_of_the_lowest_figure_and_last_the_last(fit):
    keeper, trainer = fit(val_losses=[0.9, 0.5, 0.3, 0.4, 0.3])
    assert epoch_and_step(keeper.best_path) == (2, 30)  # the first of two equal ones
    assert epoch_and_step(keeper.last_path) == (4, 50)
    assert (keeper.best["epoch"], keeper.best["step"]) == (2, 30)
    names = ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert sorted(path.name for path in keeper.best_path.parent.iterdir()) == names
    assert trainer.checkpoint_callback is keeper


def test_best_can_be_the_highest_of_another_figure(fit):
    noted = Validations()
    keeper, _ = fit(noted, val_losses=[0.0] * 5, options={"monitor": "val/accuracy", "mode": "max"})
    assert keeper.best["epoch"] == noted.accuracies.index(max(noted.accuracies))
    assert epoch_and_step(keeper.best_path)[0] == keeper.best["epoch"]


def test_best_holds_the_weights_of_its_own_epoch(fit):
    noted = Validations()
    keeper, _ = fit(noted, val_losses=[0.9, 0.2, 0.3, 0.4, 0.5])
    best, last = (torch.load(path, weights_only=True)["state_dict"] for path in (keeper.best_path, keeper.last_path))
    torch.testing.assert_close(best["network.head.weight"], noted.weights[1], rtol=0, atol=0)
    torch.testing.assert_close(last["network.head.weight"], noted.weights[4], rtol=0, atol=0)
    assert not torch.equal(noted.weights[1], noted.weights[4])


def test_the_figures_of_the_best_are_of_its_epoch(fit):
    noted = Validations()
    keeper, _ = fit(noted, val_losses=[0.9, 0.2, 0.3, 0.4, 0.5])
    assert keeper.best["figures"]["val/loss"] == pytest.approx(0.2)
    assert keeper.best["figures"]["val/accuracy"] == noted.accuracies[1]
    assert keeper.best["figures"]["train/loss"] == noted.train_losses[1]


def test_the_figures_of_a_best_in_mid_epoch_are_not_those_of_the_epochs_end(fit):
    noted = Validations()
    keeper, _ = fit(noted, val_losses=[0.9, 0.8, 0.1, 0.7, 0.6, 0.5], max_epochs=3, val_check_interval=5)
    assert epoch_and_step(keeper.best_path) == (1, 15)
    assert keeper.best["figures"]["val/loss"] == pytest.approx(0.1)
    assert keeper.best["figures"]["val/accuracy"] == noted.accuracies[2]
    assert keeper.best["figures"]["train/loss"] == noted.train_losses[1]


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("seconds", "write"), [(0.0, write) for write in range(8)] + [(3600.0, write) for write in (2, 3, 4)]
)
def test_killed_between_any_two_writes_the_best_is_no_older_than_the_last_says(
    fit, tmp_path, monkeypatch, seconds, write
):
    monkeypatch.setattr("neurona.callbacks.save_timer.PAUSE_SECONDS", seconds)
    count, replace = 0, Path.replace

    def dies(source: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count > write:
            raise Killed
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(Killed):
        fit(val_losses=[0.9, 0.8, 0.7, 0.75, 0.6, 0.65], max_epochs=6)
    best, last = tmp_path / "checkpoints" / "best.ckpt", tmp_path / "checkpoints" / "last.ckpt"
    if last.is_file():
        (remembered,) = torch.load(last, weights_only=True)["callbacks"].values()
        assert epoch_and_step(best)[1] >= remembered["best"]["step"]
        (own,) = torch.load(best, weights_only=True)["callbacks"].values()
        assert own["best"]["step"] == epoch_and_step(best)[1]


def test_without_validation_the_best_is_the_last(fit):
    keeper, trainer = fit()
    assert keeper.best_path.read_bytes() == keeper.last_path.read_bytes()
    assert epoch_and_step(keeper.best_path) == (4, 50)
    assert keeper.best["epoch"] == 4
    assert keeper.best["figures"]["train/loss"] == trainer.callback_metrics["train/loss"].item()


def test_without_a_validation_so_far_the_best_is_the_last(fit):
    keeper, trainer = fit(val_losses=[0.5], max_steps=7)
    assert epoch_and_step(keeper.best_path) == epoch_and_step(keeper.last_path) == (0, 7)
    assert keeper.best["figures"] == {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert (keeper.best["epoch"], keeper.best["step"]) == (0, 7)
    assert keeper.best["score"] == math.inf  # the first validation is better


def test_what_is_remembered_of_the_best_travels_with_the_last(fit, tmp_path):
    keeper, _ = fit(val_losses=[0.9, 0.2, 0.3, 0.4, 0.5])
    resumed = BestAndLast(folder=str(tmp_path))
    state = torch.load(keeper.last_path, weights_only=True)["callbacks"][keeper.state_key]
    resumed.load_state_dict(state)
    assert (resumed.best, resumed.last) == (keeper.best, keeper.last)
    assert resumed.last["val/loss"] == 0.5


class Saves(Callback):
    """Notes at which optimiser step, after how many mini-batches, the last checkpoint was written."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        if trainer.global_step:  # what it would hold is looked at before the first step
            self.steps.append((trainer.global_step, trainer.fit_loop.epoch_loop.batch_progress.total.ready))


class EveryStep(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        pass


@pytest.mark.parametrize("others", [[], [EveryStep()]], ids=["chunked", "single steps"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_last_is_also_written_after_so_many_whole_steps(fit, others, accumulate):
    """With 3 of 10 mini-batches to a step, an epoch has four steps: after 3, 6, 9 and 10."""
    saves = Saves()
    fit(saves, *others, accumulate=accumulate, options={"every_n_steps": 3}, max_epochs=2)
    if accumulate == 1:
        assert saves.steps == [(3, 3), (6, 6), (9, 9), (10, 10), (12, 12), (15, 15), (18, 18), (20, 20)]
    else:
        assert saves.steps == [(3, 9), (4, 10), (6, 16), (8, 20)]


def test_short_epochs_share_a_checkpoint(fit, monkeypatch):
    """Five epochs within a second: the first is the best so far, so are the third and, the fit's last, the fifth."""
    monkeypatch.setattr("neurona.callbacks.save_timer.PAUSE_SECONDS", 3600.0)
    saves = Saves()
    fit(saves, val_losses=[0.9, 0.95, 0.7, 0.75, 0.8], max_epochs=5)
    assert saves.steps == [(10, 10), (30, 30), (50, 50)]


class Hours(Callback):
    """Makes every epoch take an hour, and every checkpoint 90 seconds, of a clock that stands still otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.now += 3600

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        self.now += 90 if trainer.global_step else 0


def test_checkpoints_take_a_hundredth_of_the_time_at_most(fit, monkeypatch):
    """Three hours are at least 9000 seconds, two are not."""
    monkeypatch.setattr("neurona.callbacks.save_timer.SHARE_OF_TIME", 0.01)
    saves, hours = Saves(), Hours()
    options = {"every_minutes": None}
    fit(saves, hours, val_losses=[0.5, *[0.6] * 7], max_epochs=8, options=options, clock=lambda: hours.now)
    assert saves.steps == [(10, 10), (40, 40), (70, 70), (80, 80)]


class Stops(Callback):
    """Ends the fit with an error in an epoch, and notes the checkpoints that are there then."""

    def __init__(self, epoch: int, folder: Path) -> None:
        self.epoch, self.folder = epoch, folder
        self.checkpoints: dict[str, tuple[int, int]] = {}

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epoch:
            self.checkpoints = {path.name: epoch_and_step(path) for path in self.folder.iterdir()}
            raise ZeroDivisionError


def test_a_best_too_soon_after_another_waits_in_memory_and_an_error_does_not_lose_it(fit, monkeypatch, tmp_path):
    monkeypatch.setattr("neurona.callbacks.save_timer.PAUSE_SECONDS", 3600.0)
    stops = Stops(4, tmp_path / "checkpoints")
    noted = Validations()
    with pytest.raises(ZeroDivisionError):
        fit(stops, noted, val_losses=[0.9, 0.8, 0.7, 0.75, 0.6])
    assert stops.checkpoints == {"best.ckpt": (0, 10), "last.ckpt": (0, 10)}
    best, last = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert epoch_and_step(best) == epoch_and_step(last) == (2, 30)  # a fit that goes on knows of it
    assert epoch_and_step(last.with_name("previous.ckpt")) == (0, 10)
    contents = torch.load(best, weights_only=True)
    assert torch.equal(contents["state_dict"]["network.head.weight"], noted.weights[2])
    (own,) = contents["callbacks"].values()
    assert own["best"]["step"] == 30
    assert own["last"]["val/loss"] == pytest.approx(0.7)


def test_a_best_that_waits_is_on_the_disk_before_a_last_that_remembers_it(fit, monkeypatch, tmp_path):
    monkeypatch.setattr("neurona.callbacks.save_timer.PAUSE_SECONDS", 3600.0)
    keeper, _ = fit(val_losses=[0.9, 0.7, 0.8], max_epochs=3)
    assert (epoch_and_step(keeper.best_path), epoch_and_step(keeper.last_path)) == ((1, 20), (2, 30))
    assert keeper.best["step"] == 20


def test_the_last_before_it_stays(fit):
    keeper, _ = fit(val_losses=[0.9, 0.8, 0.7, 0.75, 0.6])
    assert epoch_and_step(keeper.last_path.with_name("previous.ckpt")) == (3, 40)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_last_is_also_written_by_the_clock_after_whole_steps(fit, accumulate):
    """A clock that says another minute at every look: a checkpoint after every step that ends with a mini-batch."""
    saves, clock = Saves(), itertools.count(0, 60).__next__
    fit(saves, EveryStep(), accumulate=accumulate, options={"every_minutes": 1.0}, max_epochs=1, clock=clock)
    ends = [*range(accumulate, 10, accumulate), 10]
    assert saves.steps == [(step, batches) for step, batches in enumerate(ends, start=1)]


def test_without_an_interval_the_clock_makes_no_difference(fit):
    saves, clock = Saves(), itertools.count(0, 3600).__next__
    fit(saves, EveryStep(), options={"every_minutes": None}, max_epochs=2, clock=clock)
    assert saves.steps == [(10, 10), (20, 20)]


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_a_time_out_of_range_is_refused(tmp_path, minutes):
    with pytest.raises(ConfigError, match="every_minutes"):
        BestAndLast(folder=str(tmp_path), every_minutes=minutes)


def test_an_unknown_monitor_is_refused_with_the_known_ones(fit):
    with pytest.raises(ConfigError, match=r"val/lose: is not a metric of this run; choose one of .*val/loss") as caught:
        fit(val_losses=[0.5], options={"monitor": "val/lose"})
    assert caught.value.key == "trainer.callbacks.checkpoints.monitor"


@pytest.mark.parametrize("value", [0, -5])
def test_an_interval_out_of_range_is_refused(tmp_path, value):
    with pytest.raises(ConfigError, match="every_n_steps"):
        BestAndLast(folder=str(tmp_path), every_n_steps=value)
