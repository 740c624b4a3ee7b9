"""The project's own callbacks come first, and their figures are there for whoever comes after them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from neurona.classifier import Classifier
from neurona.evaluation import Evaluation
from neurona.optimizer import Optimization
from neurona.steps.training import Training, scalars


class History(Callback):
    """Reads an epoch's figures as it ends."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.order: list[type] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.order = [type(callback) for callback in trainer.callbacks]


class EveryStep(History):
    def on_train_batch_end(self, *_: Any) -> None: ...


class Returns(Classifier):
    """A training_step of one's own: what it returns is the loss, and no accuracy is known."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        features, targets = batch
        return 2 * torch.nn.functional.cross_entropy(self(features), targets)


class Validates(Classifier):
    """A validation_step of one's own that leaves the metrics alone."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", 7.0, batch_size=len(batch[1]))


def sgd(rate: float = 1e-30) -> Optimization:
    return Optimization.of(torch.optim.SGD, lr=rate)  # a rate that moves no weight


@pytest.mark.parametrize("kind", [History, EveryStep])
def test_the_figures_of_an_epoch_are_there_as_it_ends(fit_noise: Any, kind: type[History]) -> None:
    history = kind()
    classifier = fit_noise(sgd(), history, max_epochs=3)
    assert history.order[:2] == [Training, Evaluation]
    assert len(set(history.losses)) == 1
    assert history.losses[0] == pytest.approx(classifier.epoch_means()[0])


def test_a_validation_step_of_ones_own_reports_what_it_likes(fit_noise: Any) -> None:
    classifier = fit_noise(sgd(), kind=Validates, limit_val_batches=1.0)
    figures = classifier.trainer.callback_metrics
    assert (figures["val/loss"], "val/accuracy" in figures) == (7, False)


def test_of_a_training_step_of_ones_own_the_loss_is_what_it_returns(fit_noise: Any) -> None:
    usual, own = History(), History()
    fit_noise(sgd(), usual, max_epochs=1)
    classifier = fit_noise(sgd(), own, kind=Returns, max_epochs=1)
    assert own.losses[0] == pytest.approx(2 * usual.losses[0])
    assert "train/accuracy" not in classifier.trainer.callback_metrics


def test_only_figures_of_one_number_are_scalars() -> None:
    """What a callback has put there: an array of one element counts, one of several, or of none, does not."""
    figures = {"loss": torch.tensor(0.5), "one": torch.ones(1), "two": torch.ones(2), "none": torch.ones(0), "int": 3}
    assert scalars(SimpleNamespace(callback_metrics=figures)) == {"loss": 0.5, "one": 1.0, "int": 3}
