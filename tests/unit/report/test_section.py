"""The words and the table of groups that are given, not computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurona.report import plots
from neurona.report.page import Heading, Paragraph, Table
from neurona.report.section import describe, results_table, searched_settings
from neurona.report.statistics import Difference, Group, Metric, Section

ACCURACY = Metric("test/accuracy")


@pytest.fixture
def compared() -> Section:
    names = {"a": (0.9, 0.92), "b": (0.8, 0.84), "c": (0.5, 0.52), "d": (0.4,), "e": ()}
    groups = [Group(n, {}, [], {(seed,): v for seed, v in enumerate(values)}) for n, values in names.items()]
    differences = {
        groups[1]: Difference(-0.09, (-0.2, 0.02), 0.05, True),
        groups[2]: Difference(-0.4, (-0.5, -0.3), 0.0001, False),
    }
    return Section("Iris", {"lr": [0.1, 0.2]}, {}, groups, 2, groups[0], differences)


def test_groups_are_sorted_by_what_the_tests_say(compared: Section, tmp_path: Path) -> None:
    heading, settings, verdict, table = describe(compared, ACCURACY, tmp_path, "", plots.colours([compared]))
    assert (heading, settings) == (Heading("Iris"), Paragraph("What varies: lr (0.1, 0.2)."))
    assert verdict == Paragraph(
        "Not counted, because another run has the same settings and seed: 2 runs. Among groups of at least two"
        " runs, the best mean is that of a. Not significantly different from it (p ≥ 0.05): b. Significantly worse"
        " (p < 0.05): c. Not tested, because there is only one run or the runs do not differ: d. Two runs have a"
        " range only; three or more have a confidence interval."
    )
    assert isinstance(table, Table)
    rows = {row[0]: row for row in table.rows}
    assert rows["a"][5:7] == ["best", "–"]
    assert rows["b"] == [
        "b",
        "2",
        "82.00 ± 2.83",
        "82.00",
        "range 80.00 to 84.00",
        "-9.00 (-20.00 to +2.00)",
        "0.050 paired",
        "",
    ]
    assert rows["c"][6] == "<0.001 Welch"
    assert rows["d"] == ["d", "1", "40.00", "40.00", "–", "–", "–", ""]
    assert rows["e"] == ["e", "0", *["–"] * 5, ""]


def test_single_runs_have_a_figure_and_no_statistics() -> None:
    groups = [Group("a", {}, [], {(0,): 0.9}), Group("b", {}, [], {})]
    table = results_table(Section("Iris", {}, {}, groups, 0, None, {}), ACCURACY)
    assert table.header == ["group", "test/accuracy (%)", "not counted"]
    assert table.rows == [["a", "90.00", ""], ["b", "–", ""]]


@pytest.mark.parametrize(
    ("number", "seeds", "values", "is_search"), [(8, 1, 3, True), (7, 1, 3, False), (8, 2, 3, False), (8, 1, 2, False)]
)
def test_a_search_is_many_single_runs_over_several_numbers(
    number: int, seeds: int, values: int, is_search: bool
) -> None:
    groups = [Group(str(index), {}, [], {(seed,): 0.5 for seed in range(seeds)}) for index in range(number)]
    settings = {"lr": [0.1, 0.2, 0.3], "width": list(range(values)), "activation": ["relu", "tanh"]}
    part = Section("Iris", settings, {}, groups, 0, None, {})
    assert searched_settings(part) == (list(settings) if is_search else [])
