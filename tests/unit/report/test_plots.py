"""What the pictures show, asked of matplotlib."""

from __future__ import annotations

import pytest

from neurona.report import plots
from neurona.report.statistics import Group, Metric, Section


def test_a_group_is_its_mean_its_interval_and_its_runs() -> None:
    # With three values of a spread d the interval reaches 2.48 d to either side of the middle one.
    values = {"three": (0.97, 0.99, 1.0), "two": (0.8, 0.9), "one": (0.7,)}
    metric = Metric("test/accuracy")
    groups = [Group(n, {}, [], {(i,): x for i, x in enumerate(v)}, metric.limits) for n, v in values.items()]
    section = Section("Iris", {}, {}, groups, 0, None, {})
    (axis,) = plots.means([section], metric, plots.colours([section])).axes
    lines = [[round(float(x), 2) for x in line.get_xdata()] for line in axis.lines]
    runs, interval, mean, *others = lines
    assert (runs, mean) == ([97, 99, 100], [98.67])
    assert interval == [94.87, 100]  # no accuracy is beyond
    assert others == [[80, 90], [85], [70], [70]]
    assert axis.get_xlabel() == "test/accuracy (%)"
    assert [label.get_text() for label in axis.get_yticklabels()] == list(values)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_a_panel_without_a_data_set_is_empty(number: int) -> None:
    group = Group("all", {}, [], {(0,): 0.9})
    sections = [Section(str(index), {}, {}, [group], 0, None, {}) for index in range(number)]
    axes = plots.means(sections, Metric("test/accuracy"), plots.colours(sections)).axes
    assert [axis.axison for axis in axes] == [True] * number + [False] * (len(axes) - number)
    assert [axis.get_title() for axis in axes[:number]] == [section.name for section in sections]
