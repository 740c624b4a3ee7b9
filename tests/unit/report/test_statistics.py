"""Means, intervals and tests against numpy, scipy and worked examples."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from neurona.report import statistics
from neurona.report.runs import Run
from neurona.report.statistics import Metric

Make = Callable[..., Path]
Read = Callable[[], list[Run]]

ACCURACY = Metric("test/accuracy")
RELU, TANH = [0.91, 0.95, 0.93, 0.90, 0.94], [0.90, 0.91, 0.92, 0.88, 0.91]


def by_seed(values: list[float], first: int = 0) -> dict[tuple[int], float]:
    return {(first + index,): value for index, value in enumerate(values)}


@pytest.fixture
def study(make_run: Make) -> None:
    for name, values in (("tanh", TANH), ("relu", RELU)):
        for seed, value in enumerate(values):
            make_run(f"{name}{seed}", seed, value, settings={"model.activation": name})


@pytest.mark.usefixtures("study")
def test_figures_of_a_group(read: Read) -> None:
    (section,) = statistics.sections(read(), ACCURACY, [])
    assert (section.name, section.varying) == ("Iris", {"model.activation": ["relu", "tanh"]})
    assert [group.name for group in section.groups] == ["activation=relu", "activation=tanh"]
    for group, values in zip(section.groups, (RELU, TANH), strict=True):
        assert group.n == 5
        assert group.mean == pytest.approx(np.mean(values), rel=1e-12)
        assert group.median == pytest.approx(sorted(values)[2], rel=1e-12)
        assert group.std == pytest.approx(np.std(values, ddof=1), rel=1e-12)
        interval = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
        assert group.interval == pytest.approx(interval, rel=1e-12)
    assert section.reference is section.groups[0]
    difference = section.differences[section.groups[1]]
    assert difference.is_paired
    assert difference.p == pytest.approx(stats.ttest_rel(TANH, RELU).pvalue, rel=1e-9)


def test_of_many_settings_a_name_has_those_that_most_runs_do_not_have(make_run: Make, read: Read) -> None:
    keys = ("model.activation", "model.dropout", "optimizer.lr", "data.batch_size", "optimizer.clip_norm")
    usual = dict(zip(keys, ("relu", 0.0, 1e-3, 32, 10), strict=True))
    other = dict(zip(keys, ("tanh", 0.5, 1e-2, 64, 20), strict=True))
    changes: list[tuple[str, ...]] = [(), *((key,) for key in keys), ("model.dropout", "optimizer.lr")]
    for index, changed in enumerate(changes):
        make_run(str(index), 0, 0.9 - index / 100, settings=usual | {key: other[key] for key in changed})
    (section,) = statistics.sections(read(), ACCURACY, [])
    assert section.common == usual
    names = ["default settings", "activation=tanh", "dropout=0.5", "lr=0.01", "batch_size=64", "clip_norm=20"]
    assert [group.name for group in section.groups] == [*names, "dropout=0.5, lr=0.01"]
    (section,) = statistics.sections(read(), ACCURACY, keys)
    assert section.groups[0].name == "activation=relu, dropout=0, lr=0.001, batch_size=32, clip_norm=10"
    assert section.common == {}


def test_a_loss_is_better_low(make_run: Make, read: Read) -> None:
    for index, loss in enumerate((0.5, 0.1, 0.3)):
        make_run(str(index), figures={"val/loss": loss}, settings={"optimizer.lr": 10.0**-index})
    (section,) = statistics.sections(read(), Metric("val/loss"), [])
    assert [group.name for group in section.groups] == ["lr=0.1", "lr=0.01", "lr=1"]
    assert (section.reference, section.differences) == (None, {})


def test_paired_by_seed() -> None:
    differences = np.array(TANH) - np.array(RELU)
    error = differences.std(ddof=1) / math.sqrt(5)
    difference = statistics.compare(dict(reversed(by_seed(TANH).items())), by_seed(RELU))
    assert difference is not None
    assert difference.is_paired
    assert difference.mean == pytest.approx(differences.mean(), rel=1e-9)
    assert difference.p == pytest.approx(2 * special.stdtr(4, -abs(differences.mean()) / error), rel=1e-9)
    half_width = special.stdtrit(4, 0.975) * error
    assert difference.interval == pytest.approx(
        (differences.mean() - half_width, differences.mean() + half_width), rel=1e-9
    )


def test_welch_where_seeds_differ() -> None:
    a, b = np.array(TANH[:4]), np.array(RELU)
    parts = a.var(ddof=1) / 4, b.var(ddof=1) / 5
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 4)
    mean, error = a.mean() - b.mean(), math.sqrt(sum(parts))
    difference = statistics.compare(by_seed(TANH[:4]), by_seed(RELU))
    assert difference is not None
    assert not difference.is_paired
    assert difference.p == pytest.approx(2 * special.stdtr(freedom, -abs(mean) / error), rel=1e-9)
    half_width = special.stdtrit(freedom, 0.975) * error
    assert difference.interval == pytest.approx((mean - half_width, mean + half_width), rel=1e-9)
    other_seeds = statistics.compare(by_seed(TANH, first=5), by_seed(RELU))
    assert other_seeds is not None
    assert not other_seeds.is_paired


def test_no_test_without_a_spread() -> None:
    assert statistics.compare(by_seed([0.9]), by_seed(RELU)) is None
    assert statistics.compare(by_seed([0.8, 0.8]), by_seed([0.9, 0.9])) is None
    assert statistics.compare(by_seed([0.8, 0.7]), by_seed([0.9, 0.8])) is None
    # One row of 359 less, in figures of float32.
    one_less = [float(np.float32(right / 359)) for right in (351, 350)]
    assert statistics.compare(by_seed(one_less), by_seed([float(np.float32(n / 359)) for n in (352, 351)])) is None
    same = statistics.compare(by_seed(RELU), by_seed(RELU))
    assert same is not None
    assert (same.mean, same.p) == (0, 1)


def test_holm() -> None:
    # 0.005 · 4, 0.01 · 3, 0.03 · 2, and 0.04 · 1 raised to the one before.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_p_values_are_corrected_for_the_number_of_tests(make_run: Make, read: Read) -> None:
    values = {"relu": RELU, "tanh": TANH, "gelu": [0.92, 0.93, 0.93, 0.89, 0.93]}
    for name, those in values.items():
        for seed, value in enumerate(those):
            make_run(f"{name}{seed}", seed, value, settings={"model.activation": name})
    (section,) = statistics.sections(read(), ACCURACY, [])
    corrected = {group.name: difference.p for group, difference in section.differences.items()}
    raw = {name: stats.ttest_rel(values[name], RELU).pvalue for name in ("tanh", "gelu")}
    smaller, larger = sorted(raw, key=raw.__getitem__)
    assert corrected[f"activation={smaller}"] == pytest.approx(2 * raw[smaller])
    assert corrected[f"activation={larger}"] == pytest.approx(max(raw[larger], 2 * raw[smaller]))


def test_only_finished_runs_count_and_one_of_each_seed(make_run: Make, read: Read) -> None:
    make_run("a", 0, 0.9)
    make_run("b", 1, 0.8)
    make_run("failed", 2, 0.1, status="failed")
    make_run("without", 3)
    again = make_run("again", 0, 0.7)
    later = (again / "metrics.json").stat().st_mtime + 10
    os.utime(again / "metrics.json", (later, later))
    (section,) = statistics.sections(read(), ACCURACY, [])
    (group,) = section.groups
    assert (group.name, len(group.runs), section.repeats) == ("default settings", 5, 1)
    assert group.values == {(0,): 0.7, (1,): 0.8}


def test_data_sets_are_compared_apart(make_run: Make, read: Read) -> None:
    make_run("a", 0, 0.9)
    make_run("b", 0, 0.8, settings={"data": {"_target_": "neurona.data.wine.Wine", "batch_size": 32}})
    iris, wine = statistics.sections(read(), ACCURACY, [])
    assert (iris.name, wine.name) == ("Iris", "Wine")
    assert iris.varying == wine.varying == {}


def test_settings_of_another_component_do_not_vary(make_run: Make, read: Read) -> None:
    make_run("a", 0, 0.9)
    make_run("b", 0, 0.8, settings={"model": {"_target_": "neurona.models.linear.Linear"}})
    (section,) = statistics.sections(read(), ACCURACY, [])
    assert [group.name for group in section.groups] == ["model=MLP", "model=Linear"]
    make_run("c", 0, 0.7, settings={"model.hidden": [9, 9]})
    (section,) = statistics.sections(read(), ACCURACY, [])
    assert [group.name for group in section.groups] == [
        "model=MLP, hidden=[8]",
        "model=Linear, hidden=–",
        "model=MLP, hidden=[9, 9]",
    ]


def test_groups_by_given_settings_pair_by_all_others(make_run: Make, read: Read) -> None:
    for index, (activation, lr, seed) in enumerate(
        (activation, lr, seed) for activation in ("relu", "tanh") for lr in (0.1, 0.2) for seed in (0, 1)
    ):
        settings = {"model.activation": activation, "optimizer.lr": lr}
        make_run(f"{index}", seed, 0.5 + 0.01 * index**1.5, settings=settings)
    (section,) = statistics.sections(read(), ACCURACY, ["model.activation"])
    assert [(group.name, group.n) for group in section.groups] == [("activation=tanh", 4), ("activation=relu", 4)]
    assert section.repeats == 0
    assert section.differences[section.groups[1]].is_paired


def test_names_stay_apart() -> None:
    names = statistics.short_names(["model.dropout", "data.dropout", "optimizer.lr"])
    assert list(names.values()) == ["model.dropout", "data.dropout", "lr"]
