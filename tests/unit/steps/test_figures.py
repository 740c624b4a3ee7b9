"""Figures of training steps are means over samples, of the epoch and since they were logged."""

from __future__ import annotations

import math

import pytest

from neurona.steps.figures import StepFigures


def test_means_are_over_samples_not_over_mini_batches() -> None:
    figures = StepFigures()
    figures.add([1.0, 4.0], [30, 10], correct=20)
    assert figures.epoch_means() == (pytest.approx((30 * 1 + 10 * 4) / 40), 0.5)
    figures.add([2.0], [40], correct=40)
    assert figures.epoch_means() == (pytest.approx((30 + 40 + 80) / 80), 60 / 80)
    assert figures.samples == 80


def test_the_next_epoch_and_the_next_logged_step_begin_anew() -> None:
    figures = StepFigures()
    figures.add([1.0], [10], correct=5)
    assert figures.logged_loss() == 1
    figures.begin_epoch()
    figures.add([3.0], [10], correct=10)
    assert (figures.epoch_means(), figures.logged_loss()) == ((3, 1), 3)
    assert math.isnan(figures.logged_loss())


def test_what_is_stored_goes_on() -> None:
    figures, resumed = StepFigures(), StepFigures()
    figures.add([1.0], [10], correct=5)
    resumed.restore(figures.state())
    resumed.add([3.0], [10], correct=5)
    assert resumed.epoch_means() == (2, 0.5)
