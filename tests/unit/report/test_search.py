"""A search as Optuna's study, its importances and its picture."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot
from optuna.distributions import CategoricalDistribution, FloatDistribution

from neurona.report import search
from neurona.report.statistics import Group, Metric


@pytest.fixture
def groups() -> list[Group]:
    """Whose figure hangs on the rate alone, best in the middle; every fourth has no width."""
    rng = np.random.default_rng(0)
    rates, widths = 10 ** rng.uniform(-4, -1, 40), rng.integers(1, 5, 40)
    means = 0.9 - 0.1 * (np.log10(rates) + 2.5) ** 2
    return [
        Group(
            str(index),
            {
                "lr": rate,
                "width": width if index % 4 else None,
                "bias": rate > 0.01,
                "clip": 3 if index % 2 else "none",
            },
            [],
            {(0,): mean},
        )
        for index, (rate, width, mean) in enumerate(zip(rates.tolist(), widths.tolist(), means.tolist(), strict=True))
    ]


def test_a_study_holds_the_groups_as_they_are(groups: list[Group]) -> None:
    study = search.study_of(groups, ["lr", "width", "bias"], Metric("test/accuracy"))
    assert study.direction.name == "MAXIMIZE"
    assert study.best_value == pytest.approx(100 * max(group.mean for group in groups))
    assert [trial.params.get("width") for trial in study.trials] == [group.settings["width"] for group in groups]
    assert study.trials[1].params["bias"] in ("true", "false")
    rates = [trial.params["lr"] for trial in study.trials]
    assert study.trials[1].distributions == {
        "lr": FloatDistribution(min(rates), max(rates), log=True),
        "width": FloatDistribution(1, 4),
        "bias": CategoricalDistribution(["false", "true"]),
    }
    assert search.study_of(groups, ["lr"], Metric("val/loss")).direction.name == "MINIMIZE"


def test_what_decides_is_the_most_important(groups: list[Group]) -> None:
    shares = search.importances(search.study_of(groups, ["width", "lr"], Metric("test/accuracy")))
    assert list(shares) == ["lr", "width"]
    assert shares["lr"] > 0.7
    assert sum(shares.values()) == pytest.approx(1)
    alike = [Group(group.name, group.settings, [], {(0,): 0.5}) for group in groups]
    assert search.importances(search.study_of(alike, ["width", "lr"], Metric("test/accuracy"))) == {}


def test_a_figure_that_is_no_number_is_left_out(groups: list[Group]) -> None:
    broken = [Group("nan", {"lr": 0.1}, [], {(0,): float("nan")}), Group("inf", {"lr": 0.1}, [], {(0,): float("inf")})]
    assert len(search.study_of([*broken, *groups], ["lr"], Metric("val/loss")).trials) == len(groups)
    study = search.study_of(broken, ["lr"], Metric("val/loss"))
    assert search.importances(study) == {}
    search.parallel_coordinates(study, Metric("val/loss"))


def test_the_picture_leaves_nothing_behind(groups: list[Group]) -> None:
    """Optuna draws with pyplot, which keeps figures and a style that other pictures are not to have."""
    before = dict(pyplot.rcParams)
    study = search.study_of(groups, ["lr", "width", "bias", "clip"], Metric("val/loss"))
    lines = search.parallel_coordinates(study, Metric("val/loss")).axes[0]
    assert [label.get_text() for label in lines.get_xticklabels()] == ["val/loss (nats)", "bias", "clip", "lr", "width"]
    assert len(lines.collections[0].get_segments()) == len(groups)
    assert pyplot.get_fignums() == []
    assert dict(pyplot.rcParams) == before
