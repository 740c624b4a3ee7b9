from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import permutation_importance as reference
from torch import nn

from neurona.classifier import Classifier
from neurona.errors import ConfigError
from neurona.tables.encoding import fit
from neurona.tables.importance import MOST_BARS, Importance, bars, permutation_importance
from neurona.tables.schema import Column, Schema
from neurona.tables.spec import TableSpec

COLUMNS = {"a": [0], "b": [1], "date": [2, 3], "noise": [4]}


def problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network that does not look at the last column, and 3,000 rows of which it knows the classes rather well."""
    features = torch.randn(3000, 5)
    network = nn.Linear(5, 3)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 0, 1, -1, 0], [-3, 1, 0, 0, 0], [0, -1, -1, 1, 0]]))
    targets = (2 * network(features)).softmax(1).multinomial(1).flatten()
    return network, features, targets


class Fitted(ClassifierMixin, BaseEstimator):
    """The network as scikit-learn knows classifiers."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.classes_ = np.arange(3)

    def fit(self, features, targets):
        return self

    def predict_proba(self, features):
        with torch.inference_mode():
            return self.network(torch.from_numpy(features)).double().softmax(1).numpy()

    def predict(self, features):
        return self.predict_proba(features).argmax(1)


def test_it_agrees_with_scikit_learn() -> None:
    network, features, targets = problem()
    rises = permutation_importance(
        network, features, targets, {str(i): [i] for i in range(5)}, 10, torch.Generator().manual_seed(0)
    )
    scorings = ["neg_log_loss", "accuracy"]
    importances = reference(
        Fitted(network), features.numpy(), targets.numpy(), scoring=scorings, n_repeats=10, random_state=0
    )
    for place, scoring in enumerate(scorings):
        ours = np.stack([rises[str(i)][:, place] for i in range(5)])
        theirs = importances[scoring].importances_mean
        spread = importances[scoring].importances_std
        assert (abs(ours.mean(1) - theirs) <= 4 * spread / np.sqrt(10) + 1e-6).all()
        assert theirs[0] > 0.1


def test_a_column_that_the_network_ignores_has_none_and_grouped_ones_move_together() -> None:
    network, features, targets = problem()
    features[:, 3] = features[:, 2]  # the network takes their difference: moved together, nothing changes
    rises = permutation_importance(network, features, targets, COLUMNS, 3, torch.Generator().manual_seed(0))
    assert not rises["noise"].any()
    np.testing.assert_allclose(rises["date"], np.zeros((3, 2)), atol=1e-6)
    assert (rises["a"] > rises["b"]).all()
    assert {name: x.shape for name, x in rises.items()} == dict.fromkeys(COLUMNS, (3, 2))


def test_bars_show_the_most_important_at_the_top() -> None:
    ranked = [(f"c${i}", np.full(2, 40.0 - i)) for i in range(40)]
    (axes,) = bars(ranked).axes
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == sorted(widths)
    assert (len(widths), widths[-1]) == (MOST_BARS, 40)
    assert axes.get_yticklabels()[-1].get_text() == r"c\$0"


def test_a_single_repeat_has_no_spread_and_is_shown() -> None:
    (axes,) = bars([("a", np.array([0.5]))]).axes
    (lines,) = axes.collections
    np.testing.assert_array_equal(lines.get_segments()[0][:, 0], [0.5, 0.5])


def test_after_each_column_it_may_be_over() -> None:
    network, features, targets = problem()
    arguments = (network, features, targets, COLUMNS, 2)
    answers = iter([False, True])
    some = permutation_importance(*arguments, torch.Generator().manual_seed(0), answers.__next__)
    every = permutation_importance(*arguments, torch.Generator().manual_seed(0))
    assert list(some) == ["a", "b"]
    for name, rises in some.items():
        np.testing.assert_array_equal(rises, every[name])


class Slow(nn.Linear):
    """Takes 90 µs, on a clock of its own, for every row; from some time on three times as much."""

    time = 0.0
    slow_from = float("inf")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.time += len(features) * 9e-5 * (3 if self.time >= self.slow_from else 1)
        return super().forward(features)


Measure = Callable[..., tuple[list[list[str]], str]]


@pytest.fixture
def measure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Measure:
    """What ``importance.csv`` holds after the test of a table of 2,000 rows and 40 columns, and what was said."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2000, 40, generator=generator)
    encoding = fit(features, torch.arange(2000), [], numeric="standard")
    network = Slow(40, 2)
    with torch.no_grad():
        network.weight.copy_(torch.stack([torch.arange(40) % 7 / 4.0, torch.zeros(40)]))
    targets = (network(features) * 2).softmax(1).multinomial(1, generator=generator).flatten()
    schema = Schema(tuple(Column(f"x{i}", "numeric") for i in range(40)), "y")
    classifier = Classifier(encoding, network, TableSpec(40, 2, ("no", "yes"), schema=schema.as_dict()))
    data = SimpleNamespace(val_rows=torch.arange(2000), features=features, targets=targets)
    trainer: Any = SimpleNamespace(datamodule=data, is_global_zero=True, default_root_dir=tmp_path, loggers=[])

    def run(fit_seconds: float = 0.0, slow_from: float = float("inf"), **settings: Any) -> tuple[list[list[str]], str]:
        caplog.clear()
        network.time, network.slow_from = 0.0, float("inf")
        importance = Importance(**settings)
        importance.clock = lambda: network.time
        importance.on_fit_start(trainer, classifier)
        network.time += fit_seconds
        importance.on_fit_end(trainer, classifier)
        network.slow_from = network.time + slow_from
        with caplog.at_level(logging.INFO, "neurona.tables.importance"), torch.inference_mode():
            importance.on_test_end(trainer, classifier)
        if settings.get("seconds", "fit") == "fit":
            slowest_column = 3 * 2 * 0.09
            assert network.time <= fit_seconds + max(fit_seconds, 5.0) + slowest_column
        lines = [record.getMessage() for record in caplog.records]
        text = (tmp_path / "importance.csv").read_text()
        return list(csv.reader(text.splitlines()))[1:], "\n".join(lines)

    return run


REMEDY = "trainer.callbacks.importance.seconds=null measures all"


def test_where_there_is_time_for_all_the_budget_makes_no_difference(measure: Measure) -> None:
    rows, line = measure(seconds=None)
    assert (len(rows), line) == (40, "")
    assert measure(fit_seconds=60.0) == (rows, "")
    assert measure(seconds=60) == (rows, "")


@pytest.mark.parametrize(
    ("fit_seconds", "words", "same"),
    [
        (30.0, "40 columns, 3 of 5 repeats, 2,000 rows, to take no longer than the fit took", {"repeats": 3}),
        (15.0, "40 columns, 2 of 5 repeats, 1,600 of 2,000 rows, to take no longer than the fit took", {"repeats": 2}),
        (
            8.0,
            "39 of 40 columns, 2 of 5 repeats, 1,000 of 2,000 rows, to take no longer than the fit took",
            {"repeats": 2},
        ),
        (0.0, "22 of 40 columns, 2 of 5 repeats, 1,000 of 2,000 rows, to take no longer than 5 s", {"repeats": 2}),
    ],
)
def test_it_takes_no_longer_than_the_fit_and_can_be_had_again(
    measure: Measure, fit_seconds: float, words: str, same: dict[str, int]
) -> None:
    rows, line = measure(fit_seconds=fit_seconds)
    assert line == f"importance is measured on {words}; {REMEDY}"
    max_rows = int(words.split(", ")[2].split()[0].replace(",", ""))
    again, line = measure(seconds=None, max_columns=len(rows), max_rows=max_rows, **same)
    assert again == rows
    assert len(rows) == int(words.split()[0])


def test_those_of_most_promise_come_first(measure: Measure) -> None:
    rows, _ = measure(fit_seconds=0.0)
    every, _ = measure(seconds=None)
    most = {name for name, *_ in every[:10]}
    assert most <= {name for name, *_ in rows}


def test_it_ends_where_columns_take_longer_than_was_measured(measure: Measure) -> None:
    rows, line = measure(fit_seconds=8.0, slow_from=3.0)
    assert 10 < len(rows) < 30
    assert line.startswith(f"importance is measured on {len(rows)} of 40 columns, 2 of 5 repeats")


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_time_that_is_none(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.callbacks\.importance\.seconds"):
        Importance(seconds=seconds)


@pytest.mark.parametrize("name", ["repeats", "max_rows", "max_columns"])
def test_mistakes(name: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 or more") as error:
        Importance(**{name: 0})
    assert error.value.key == f"trainer.callbacks.importance.{name}"
