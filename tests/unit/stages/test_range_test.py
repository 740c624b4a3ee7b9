"""The range test's rates, and the rate it reads from curves that are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neurona.classifier import NonFiniteLoss
from neurona.errors import ConfigError, RunError
from neurona.stages.range_test import RangeTest
from neurona.steps.diagnosis import NonFiniteData


def listen(test: RangeTest, losses: np.ndarray) -> RangeTest:
    """The test after a fit with these losses."""

    def fit(*_: Any) -> None:
        for loss in losses:
            test.log_metrics({"train/step_loss": float(loss), "train/lr": 0.0})
            if trainer.should_stop:
                return

    trainer: Any = SimpleNamespace(should_stop=False, fit=fit)
    test.fit(trainer, None, None)  # type: ignore[arg-type]
    return test


def slope(centre: float, rates: np.ndarray) -> np.ndarray:
    """From 2.3 to 0.3 around a rate, steepest there."""
    return 2.3 - 2 / (1 + np.exp(-4 * np.log10(rates / centre)))


RATES = np.geomspace(1e-6, 10, 200)
RATIO = RATES[1] / RATES[0]


def test_every_rate_is_the_same_multiple_of_the_one_before() -> None:
    np.testing.assert_allclose(listen(RangeTest(), np.ones(200)).rates, RATES, rtol=1e-12)
    short = listen(RangeTest(lowest=1e-3, highest=1.0, steps=31), np.ones(11))
    np.testing.assert_allclose(short.rates, 10 ** np.linspace(-3, -2, 11), rtol=1e-12)


def test_the_average_is_adams() -> None:
    losses = np.random.default_rng(0).random(30)
    weights = np.array([[0.7 ** (t - i) if i <= t else 0.0 for i in range(30)] for t in range(30)])
    expected = weights @ losses / weights.sum(axis=1)
    np.testing.assert_allclose(listen(RangeTest(smoothing=0.7, stop_at=1e9), losses).smoothed, expected)


@pytest.mark.parametrize("centre", [1e-4, 1e-3, 3e-2])
def test_the_suggestion_is_where_the_curve_is_steepest(centre: float) -> None:
    exact = listen(RangeTest(smoothing=0.0), slope(centre, RATES)).suggestion()
    assert exact is not None
    assert centre * 0.95 <= exact <= centre * RATIO * 1.05  # two digits
    noise = 0.1 * np.random.default_rng(0).standard_normal(200)
    found = listen(RangeTest(), slope(centre, RATES) + noise).suggestion()
    assert found is not None
    assert centre / 1.5 < found < centre * RATIO**10 * 1.5  # an average with weight 0.9 lags by nine steps


def test_it_does_not_depend_on_what_follows_the_fall() -> None:
    losses = slope(1e-3, RATES)
    diverging = np.where(RATES > 0.5, 50.0, losses)
    calm, stopped = listen(RangeTest(), losses), listen(RangeTest(), diverging)
    assert (calm.has_diverged, stopped.has_diverged) == (False, True)
    assert len(stopped.losses) < 200
    assert calm.suggestion() == stopped.suggestion()


@pytest.mark.parametrize(
    ("losses", "remedy"),
    [
        (1 + 0.1 * np.random.default_rng(1).standard_normal(200), "higher lr_find.highest"),
        (slope(1e3, RATES) + 0.1 * np.random.default_rng(1).standard_normal(200), "higher lr_find.highest"),
        (np.geomspace(1, 1e9, 200), "begin lower"),
        (np.linspace(2, 1, 5), "higher lr_find.highest"),
    ],
)
def test_a_curve_without_a_fall_suggests_nothing(losses: np.ndarray, remedy: str) -> None:
    test = listen(RangeTest(), losses)
    assert test.suggestion() is None
    assert remedy in test.why_none()


def test_a_loss_that_is_not_finite_at_once_is_no_matter_of_rates() -> None:
    def fit(*_: Any) -> None:
        raise NonFiniteLoss("nan")

    with pytest.raises(RunError, match="before anything is learned"):
        RangeTest().fit(SimpleNamespace(fit=fit), None, None)  # type: ignore[arg-type]


def test_nor_is_a_nan_in_the_data() -> None:
    test = listen(RangeTest(), np.ones(50))

    def fit(*_: Any) -> None:
        raise NonFiniteData("row 3")

    with pytest.raises(NonFiniteData, match="row 3"):
        test.fit(SimpleNamespace(fit=fit), None, None)  # type: ignore[arg-type]
    assert not test.has_diverged


@pytest.mark.parametrize(
    "wrong", [{"lowest": 0}, {"highest": 1e-6}, {"steps": 5}, {"smoothing": 1}, {"stop_at": 1}, {"highest": np.inf}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"lr_find.{next(iter(wrong))}"):
        RangeTest(**wrong)
