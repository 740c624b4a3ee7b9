"""Fitting ends after so many validations without improvement, not sooner, and never where that is asked for."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Trainer

from neurona.callbacks.early_stopping import EarlyStopping
from neurona.errors import ConfigError
from neurona.models.linear import Linear


@pytest.fixture
def epochs(rows, make_trainer, make_classifier, with_val_losses):
    """The number of epochs a fit takes whose validations give these figures for val/loss; ten at most."""

    def run(values: list[float], stopping: EarlyStopping, **trainer_arguments) -> int:
        trainer = make_trainer(stopping, **{"max_epochs": 10, "limit_val_batches": 1.0} | trainer_arguments)
        classifier = make_classifier(Linear(4, 2), 4, 2, kind=with_val_losses(values))
        trainer.fit(classifier, rows(torch.randn(20, 4), torch.arange(20) % 2, 10))
        return trainer.current_epoch

    return run


FALLING_THEN_RISING = [0.9, 0.7, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]


@pytest.mark.parametrize(("patience", "expected"), [(1, 4), (2, 5), (4, 7), (7, 10)])
def test_it_ends_when_patience_is_exhausted(epochs, patience, expected):
    assert epochs(FALLING_THEN_RISING, EarlyStopping(patience=patience)) == expected


def test_an_improvement_begins_the_count_anew(epochs):
    assert epochs([0.9, 1.0, 0.8, 0.9, 0.7, 0.8, 0.9, 0.1, 0.1, 0.1], EarlyStopping(patience=2)) == 7


def test_an_improvement_within_min_delta_is_none(epochs):
    values = [0.9, 0.85, 0.82, 0.81, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert epochs(values, EarlyStopping(patience=3, min_delta=0.1)) == 4


def test_higher_can_be_better(epochs):
    values = [0.1, 0.2, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
    assert epochs(values, EarlyStopping(patience=2, mode="max")) == 5


def test_patience_counts_validations_not_epochs(epochs):
    values = [0.5, 0.6, 0.7, 0.8, 0.9]
    assert epochs(values, EarlyStopping(patience=2), check_val_every_n_epoch=2) == 6


def test_without_patience_it_is_never_active(epochs):
    stopping = EarlyStopping(patience=None)
    assert not stopping.active
    assert epochs(FALLING_THEN_RISING, stopping) == 10
    assert EarlyStopping(patience=1).active


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_out_of_range_is_refused(patience):
    with pytest.raises(ConfigError) as caught:
        EarlyStopping(patience=patience)
    assert caught.value.key == "trainer.callbacks.early_stopping.patience"


@pytest.mark.parametrize("min_delta", [-0.1, math.nan, math.inf])
def test_a_min_delta_out_of_range_is_refused(min_delta):
    with pytest.raises(ConfigError) as caught:
        EarlyStopping(patience=1, min_delta=min_delta)
    assert caught.value.key == "trainer.callbacks.early_stopping.min_delta"


def stopped(epochs, patience: int, values: list[float]) -> dict:
    callback = EarlyStopping(patience=patience)
    epochs(values, callback)
    return callback.state_dict()


@pytest.mark.parametrize(("patience", "goes_on"), [(1, False), (2, False), (3, True), (None, True)])
def test_a_patience_given_anew_holds_and_a_greater_one_lets_a_stopped_fit_go_on(epochs, patience, goes_on):
    state = stopped(epochs, 2, FALLING_THEN_RISING)
    resumed = EarlyStopping(patience=patience)
    patience = resumed.patience
    resumed.load_state_dict(state)
    assert resumed.patience == patience
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    resumed.on_fit_start(trainer, None)
    assert trainer.should_stop is not goes_on


def test_an_improvement_since_does_not_undo_the_end_that_min_epochs_delays(epochs):
    values = [0.5, 0.6, 0.7, 0.1, 0.2]
    callback = EarlyStopping(patience=2)
    assert epochs(values, callback, min_epochs=4) == 4
    resumed = EarlyStopping(patience=2)
    resumed.load_state_dict(callback.state_dict())
    assert resumed.has_stopped
