"""What a run tells its search, and when the search ends it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from neurona.sweep import pruning
from neurona.sweep.pruning import Pruning


class Reports:
    """A search that gives up runs whose objective is above 1."""

    metric = "val/loss"

    def __init__(self) -> None:
        self.values: list[tuple[float, int]] = []

    def is_hopeless(self, value: float, epoch: int) -> bool:
        self.values.append((value, epoch))
        return value > 1


@pytest.fixture
def trainer() -> Any:
    return SimpleNamespace(
        is_global_zero=True,
        sanity_checking=False,
        should_stop=False,
        current_epoch=0,
        callback_metrics={"val/loss": torch.tensor(0.5)},
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch, trainer: Any) -> Any:
    def begin(search: Reports | None) -> Any:
        monkeypatch.setattr(pruning, "reporter", lambda folder: search)
        callback: Any = Pruning(Path("run"))
        callback.on_fit_start(trainer, None)
        return callback

    return begin


def test_an_epoch_with_a_validation_is_told_and_a_hopeless_one_is_the_last(begin: Any, trainer: Any) -> None:
    search = Reports()
    callback = begin(search)
    callback.on_train_epoch_end(trainer, None)  # not validated
    callback.on_validation_end(trainer, None)
    callback.on_validation_end(trainer, None)  # twice in an epoch
    callback.on_train_epoch_end(trainer, None)
    assert (search.values, trainer.should_stop, callback.ended_fit) == ([(0.5, 0)], False, None)
    trainer.current_epoch, trainer.callback_metrics = 1, {"val/loss": torch.tensor(2.0)}
    callback.on_validation_end(trainer, None)
    callback.on_train_epoch_end(trainer, None)
    assert (search.values[1:], trainer.should_stop) == ([(2.0, 1)], True)
    assert callback.ended_fit == ("pruning", "pruned")


def test_the_check_before_training_does_not_count(begin: Any, trainer: Any) -> None:
    search = Reports()
    callback = begin(search)
    trainer.sanity_checking = True
    callback.on_validation_end(trainer, None)
    callback.on_train_epoch_end(trainer, None)
    assert search.values == []


def test_the_first_process_decides_for_all(begin: Any, trainer: Any) -> None:
    trainer.is_global_zero = False
    trainer.strategy.broadcast = lambda value: True
    search = Reports()
    callback = begin(search)
    callback.on_validation_end(trainer, None)
    callback.on_train_epoch_end(trainer, None)
    assert (search.values, trainer.should_stop, callback.has_pruned) == ([], True, True)


def test_a_run_that_no_search_waits_for_is_left_alone(begin: Any, trainer: Any) -> None:
    trainer.callback_metrics = {}
    callback = begin(None)
    callback.on_validation_end(trainer, None)
    callback.on_train_epoch_end(trainer, None)
    assert (trainer.should_stop, callback.ended_fit) == (False, None)
