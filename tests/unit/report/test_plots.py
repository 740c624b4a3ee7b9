"""What the pictures show, asked of matplotlib."""

from __future__ import annotations

import pytest

from neurona.report import plots
from neurona.report.statistics import Group, Metric, Section


@pytest.mark.parametrize(
    ("key", "values", "limits", "label"),
    [  # with three values of a spread d the interval reaches 2.48 d to either side of the middle one
        ("test/accuracy", (0.84, 0.85, 0.86), (82, 87.484 + 0.05 * 5.484), "test/accuracy (%), axis from 82"),
        ("test/accuracy", (0.97, 0.99, 1.0), (94, 100.12), "test/accuracy (%), axis from 94"),
        ("val/loss", (0.1, 0.2, 0.3), (-0.04841, 0.44841 + 0.05 * 0.49683), "val/loss (nats)"),
        ("epochs", (8.0, 8.0, 8.0), (0, 8.4), "epochs"),
        ("train/loss", (0.0, 0.0, 0.0), (0, 1.05), "train/loss (nats)"),
    ],
)
def test_an_axis_of_bars_ends_where_the_values_do(
    key: str, values: tuple[float, ...], limits: tuple[float, float], label: str
) -> None:
    group = Group("all", {}, [], {(seed,): value for seed, value in enumerate(values)})
    section = Section("Iris", {}, {}, [group], 0, None, {})
    (axis,) = plots.bars([section], Metric(key), plots.colours([section])).axes
    assert axis.get_xlim() == pytest.approx(limits, abs=1e-3)
    assert axis.get_xlabel() == label


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_a_panel_without_a_data_set_is_empty(number: int) -> None:
    group = Group("all", {}, [], {(0,): 0.9})
    sections = [Section(str(index), {}, {}, [group], 0, None, {}) for index in range(number)]
    axes = plots.bars(sections, Metric("test/accuracy"), plots.colours(sections)).axes
    assert [axis.axison for axis in axes] == [True] * number + [False] * (len(axes) - number)
    assert [axis.get_title() for axis in axes[:number]] == [section.name for section in sections]
