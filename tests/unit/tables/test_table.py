"""The data module of a table: labels, parts, and every mistake answered in one paragraph."""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from neurona.config.overrides import parse
from neurona.errors import ConfigError, DataError, UserError
from neurona.tables.table import TableData

ROWS = 60


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., TableData]:
    """The data module of a table of two numbers and a target "y", unless columns are given; nothing is read yet."""

    def make(*, settings: dict[str, Any] | None = None, name: str = "t.csv", **columns: Any) -> TableData:
        content = {"a": [i % 7 * 1.5 for i in range(ROWS)], "b": [i % 11 for i in range(ROWS)]} | columns
        labels = {} if "y" in columns else {"y": ["no", "yes", "no"] * (ROWS // 3)}
        pl.DataFrame(content | labels).write_csv(tmp_path / name)
        return TableData(**{"path": str(tmp_path / name), "target": "y"} | (settings or {}))

    return make


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a"], ("a", "b")),
        ([10, 9], ("9", "10")),
        ([True, False], ("false", "true")),
        (["ja, sehr", "\U0001f600"], ("ja, sehr", "\U0001f600")),
        ([0.5, 1.5, 2.0], ("0.5", "1.5", "2")),
        (["2.5", "text"], ("2.5", "text")),
    ],
)
def test_any_labels(table: Callable[..., TableData], labels: list[Any], names: tuple[str, ...]) -> None:
    values = pl.Series([labels[i % len(labels)] for i in range(ROWS)], strict=False)
    data = table(y=values)
    assert data.spec.class_names == names
    expected = [str(labels[i % len(labels)]).lower().removesuffix(".0") for i in range(ROWS)]
    assert [names[target].lower() for target in data.targets] == expected


def test_rows_without_a_label_are_in_no_part(table: Callable[..., TableData]) -> None:
    data = table(y=[None if i % 10 == 0 else "no" if i % 3 else "yes" for i in range(ROWS)])
    data.setup()
    used = sorted([*data.train_rows.tolist(), *data.val_rows.tolist(), *data.test_rows.tolist()])
    assert used == [i for i in range(ROWS) if i % 10]
    assert data.card is not None
    assert data.card["rows"]["without_label"] == 6


def test_what_is_odd_about_the_labels_is_named(table: Callable[..., TableData]) -> None:
    data = table(y=["rare", "rare", *["NA", "no", "yes"] * 19, None])
    data.setup()
    assert data.card is not None
    assert data.card["warnings"] == [
        "rows without a label, which are left out: 19 (data.missing has 'NA')",
        "the val part has no row of class 'rare'",
        "the test part has no row of class 'rare'",
    ]
    data = table(y=[i // 2 for i in range(ROWS)], settings={"test_fraction": 0.1, "val_fraction": 0.1})
    data.setup()
    assert data.card is not None
    assert (
        data.card["warnings"][0]
        == "the 30 classes are all numbers; if they are amounts, this is regression, which neurona does not do"
    )


def test_groups_and_order(table: Callable[..., TableData]) -> None:
    patients = [f"p{i % 12}" for i in range(ROWS)]
    data = table(p=patients, settings={"group": "p"})
    data.setup()
    assert data.schema is not None
    assert (data.schema.names, data.schema.dropped) == (["a", "b"], {"p": "the group"})
    seen = [{patients[row] for row in rows.tolist()} for rows in (data.train_rows, data.val_rows, data.test_rows)]
    assert sum(map(len, seen)) == 12 == len(set.union(*seen))

    days = [f"2020-{1 + i * 7 % 60 // 28:02d}-{1 + i * 7 % 60 % 28:02d}" for i in range(ROWS)]
    data = table(day=days, settings={"order": "day"})
    data.setup()
    parts = [[days[row] for row in rows.tolist()] for rows in (data.train_rows, data.val_rows, data.test_rows)]
    assert max(parts[0]) < min(parts[1]) <= max(parts[1]) < min(parts[2])
    assert [len(part) for part in parts] == [39, 9, 12]


def test_a_column_of_weights(table: Callable[..., TableData], tmp_path: Path) -> None:
    weights = [i % 3 * 0.5 for i in range(ROWS)]
    table(name="test.csv")  # without weights
    data = table(w=weights, settings={"weight": "w", "test_path": str(tmp_path / "test.csv")})
    data.setup()
    assert data.schema is not None
    assert (data.schema.names, data.schema.dropped) == (["a", "b"], {"w": "the weight"})
    assert data.row_weights is not None
    expected = np.array([*weights, *[1.0] * ROWS]) / np.array(weights)[data.train_rows].mean()
    np.testing.assert_allclose(data.row_weights.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("columns", "settings", "problem"),
    [
        ({"label": ["u", "v"] * 30}, {"target": "Lable"}, "data.target=Lable: no such column; did you mean label"),
        ({}, {"target": "nothing"}, "data.target=nothing: no such column; there are a, b, y"),
        ({}, {"separator": ";"}, "no such column.*only one column: is data.separator right"),
        ({}, {"drop": ["c"]}, "data.drop=c: no such column"),
        ({}, {"drop": ["y"]}, "data.target=y: cannot be left out"),
        ({}, {"group": "c"}, "data.group=c: no such column"),
        ({}, {"order": "c"}, "data.order=c: no such column"),
        ({}, {"categorical": ["c"]}, "data.categorical=c: no such column"),
        ({}, {"group": "a", "order": "b"}, "data.order=b: cannot be used together with data.group"),
        ({}, {"order": "a", "folds": 3, "fold": 0}, "data.folds=3: cannot be used together with data.order"),
        ({}, {"separator": "ab"}, "data.separator=ab: must be one character"),
        ({}, {"decimal": ",", "thousands": ","}, "data.decimal=,: must be one character"),
        ({}, {"weight": "c"}, "data.weight=c: no such column"),
        ({"w": [1, None] * 30}, {"weight": "w"}, "data.weight=w: needs a number of 0 or more in every row, .* None"),
        ({"w": [1, -1] * 30}, {"weight": "w"}, "but holds '-1'"),
        ({"w": [0] * 60}, {"weight": "w"}, "not all 0"),
        ({}, {"weight": "y"}, "data.target=y: cannot be left out"),
        ({"g": ["x", None] * 30}, {"group": "g"}, "data.group=g: has no value in 30 rows"),
        ({"y": ["yes"] * ROWS}, {}, "column 'y' has only one class, 'yes'"),
        ({"y": [None] * ROWS}, {}, "column 'y' has no label"),
        (
            {"y": ["None", "mild"] * 30},
            {},
            r"only one class, 'mild' \(rows whose label is missing, by data.missing: 30\)",
        ),
        ({"y": [i + 0.5 for i in range(ROWS)]}, {}, "60 values such as .*probably regression"),
        ({"y": range(ROWS)}, {}, "60 classes in 60 rows: probably regression"),
        ({"y": range(300), "a": range(300), "b": range(300)}, {}, "300 classes in 300 rows: probably regression"),
        ({"y": [f"t{i}" for i in range(300)], "a": range(300), "b": range(300)}, {}, "is it the column to predict"),
        ({"y": ["a"] * 59 + ["b"]}, {"test_fraction": 0.5, "val_fraction": 0.45}, "no training row of class 'b'"),
        ({"a": ["x"] * ROWS, "b": [None] * ROWS}, {}, "no column is left .*'a': constant; 'b': all missing"),
        ({"a": ["inf", "-inf"] * 30, "b": ["1"] * ROWS}, {}, "no column is left .*'a': all missing"),
        ({}, {"thousands": "."}, "data.thousands=.: .* a dot, data.decimal must be set"),
        (
            {"k0": [0, 1] * 30, "k1": [1, 0] * 30},
            {"target": "k"},
            r"array of several columns, k0, k1 …; .* k\.argmax\(1\)",
        ),
    ],
)
def test_mistakes(
    table: Callable[..., TableData], columns: dict[str, Any], settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError, match=problem) as raised:
        table(settings=settings, **columns).setup()
    assert isinstance(raised.value, ConfigError | DataError)
    assert "\n" not in str(raised.value)


def spoilt(share: float, word: str) -> list[str]:
    """Numbers, of which this share is a word."""
    return [word if (i * 37) % ROWS < share * ROWS else f"{i * 37 % 101 / 4:.2f}" for i in range(ROWS)]


def test_what_is_not_read_is_counted_by_part_and_shown(table: Callable[..., TableData]) -> None:
    data = table(a=spoilt(0.05, "soon"))
    data.setup()
    assert data.card is not None
    counts = data.card["columns"][0]["unread"]
    assert (sum(counts.values()), data.card["columns"][0]["examples"]) == (3, ["'soon'"])
    assert "not read: " in data.card_text()
    told = [warning for warning in data.card["warnings"] if "'a'" in warning]
    assert len(told) == len(counts)
    assert "values are not numbers, such as 'soon'; they count as missing" in told[0]


@pytest.mark.parametrize("word", ["-", "--", "unknown", "Missing", "n.a.", "#DIV/0!", "?"])
def test_words_for_no_value_are_missing_among_numbers(table: Callable[..., TableData], word: str) -> None:
    data = table(a=spoilt(0.15, word))
    data.setup()
    assert data.schema is not None
    assert data.card is not None
    assert (data.schema.columns[0].kind, data.card["warnings"], data.features[:, 0].isnan().sum()) == ("numeric", [], 9)


def test_much_that_is_not_read_stops_the_run_and_every_remedy_works(table: Callable[..., TableData]) -> None:
    values = spoilt(0.15, "soon")
    with pytest.raises(DataError) as raised:
        table(a=values).setup()
    message = str(raised.value)
    assert re.search(r"column 'a': 9 of 60 values are not numbers, such as 'soon'", message)
    remedies = re.findall(r"data\.(\w+)=(\S+) ", message)
    assert [key for key, _ in remedies] == ["numeric", "categorical", "max_unread"]
    for key, value in remedies:
        settings = {key: float(value) if key == "max_unread" else [value.strip("[]")]}
        table(a=values, settings=settings).setup()
    table(a=values, settings={"missing": ["soon"]}).setup()


def test_a_published_part_in_another_spelling_stops_the_run(table: Callable[..., TableData], tmp_path: Path) -> None:
    colours = [["red", "green", "blue"][i % 3] for i in range(ROWS)]
    for test, problem in (
        ([colour.title() for colour in colours], r"not known from training, such as 'Blue' \('blue' in training\)"),
        (["violet"] * ROWS, ""),
    ):
        table(name="test.csv", c=test)
        data = table(c=colours, settings={"test_path": str(tmp_path / "test.csv")})
        if problem:
            with pytest.raises(DataError, match=rf"test\.csv: column 'c': 60 of 60 values are {problem}"):
                data.setup()
        else:  # new categories are no mistake
            data.setup()
            assert data.card is not None
            assert data.card["columns"][-1]["unread"] == {"test": 60}
    table(name="test.csv", a=[f"{i},5" for i in range(ROWS)])
    with pytest.raises(DataError, match=r"test\.csv: column 'a': 60 of 60 values are not numbers, such as '0,5'"):
        table(settings={"test_path": str(tmp_path / "test.csv")}).setup()


@pytest.mark.parametrize("written", ["%m/%d/%Y %I:%M %p", "%d/%m/%y", "%d.%m.%Y", "%Y-%m-%dT%H:%M:%SZ", "%B %d, %Y"])
def test_no_row_that_tests_is_older_than_one_of_training(table: Callable[..., TableData], written: str) -> None:
    start = datetime.datetime(2022, 11, 3, 5)
    times = [start + datetime.timedelta(days=i * 37 % ROWS * 5, hours=i * 37 % ROWS) for i in range(ROWS)]
    data = table(t=[time.strftime(written) for time in times], settings={"order": "t"})
    data.setup()
    train, val, test = ([times[i] for i in rows] for rows in (data.train_rows, data.val_rows, data.test_rows))
    assert max(train) < min(val) <= max(val) < min(test)


@pytest.mark.parametrize(
    ("values", "others"),
    [
        ([f"{i % 9 + 1}.{100 + i * 7}" for i in range(ROWS)], [f"0.{i % 10}{i % 7}" for i in range(ROWS)]),
        (
            [f"{1 + i % 12:02}/{1 + i * 5 % 12:02}/2021" for i in range(ROWS)],
            [f"{1 + i % 28:02}.{1 + i % 12:02}.2021" for i in range(ROWS)],
        ),
        ([*["soon"] * 20, *map(str, range(1, 2 * ROWS - 40, 2))], [None, *range(ROWS - 1)]),
    ],
)
def test_the_setting_that_a_warning_prints_for_one_column_leaves_the_others_as_they_are(
    table: Callable[..., TableData], values: list[str], others: list[Any]
) -> None:
    labels = [("NA", "no", "yes")[i % 3] for i in range(ROWS)]
    data = table(a=values, b=others, y=labels)
    data.setup()
    assert data.schema is not None
    *_, warning = (one for one in data.schema.warnings if "column 'a'" in one)
    printed = [parse(shlex.split(line))[0] for line in re.findall(r"\"data[^\"]*\"|'data.*\]'", warning)]
    settings = {one.key_or_group.removeprefix("data."): one.value() for one in printed}
    assert settings
    again = table(a=values, b=others, y=labels, settings=settings)
    again.setup()
    assert again.schema is not None
    (first, one), (second, other) = data.schema.columns, again.schema.columns
    assert (first, data.schema.rules) != (second, again.schema.rules)
    assert (one.name, one.kind, one.format, one.origin) == (other.name, other.kind, other.format, other.origin)
    assert data.spec.class_names == again.spec.class_names == ("no", "yes")


@pytest.mark.parametrize("classes", [("1", "+1", "-1"), (".5", "0.50", "1"), ("01", "1", "2")])
def test_classes_that_are_one_number_are_named(table: Callable[..., TableData], classes: tuple[str, ...]) -> None:
    data = table(y=[*classes] * (ROWS // 3))
    data.setup()
    assert data.card is not None
    assert "differ only in the way they are written; data.labels can unite" in data.card["warnings"][0]


def test_dates_of_digits_are_dates_where_their_pattern_is_given(table: Callable[..., TableData]) -> None:
    data = table(a=[20210101 + i % 20 for i in range(ROWS)], settings={"dates": "%Y%m%d"})
    data.setup()
    assert data.schema is not None
    assert [(column.kind, column.format) for column in data.schema.columns] == [("date", "%Y%m%d"), ("numeric", "")]


def test_weights_are_read_however_they_are_written(table: Callable[..., TableData]) -> None:
    data = table(w=[f"{i % 3},5" for i in range(ROWS)], settings={"weight": "w"})
    data.setup()
    assert data.row_weights is not None
    assert data.row_weights[1] == 3 * data.row_weights[0]


def test_what_the_labels_and_the_header_look_like_is_said_first(
    table: Callable[..., TableData], tmp_path: Path
) -> None:
    data = table(y=["yes", "Yes", "no", "no"] * 15, a=spoilt(0.04, "soon"))
    data.setup()
    assert data.card is not None
    assert (
        data.card["warnings"][0]
        == "the classes 'Yes', 'yes' differ only in the way they are written; data.labels can unite them"
    )
    pl.DataFrame({"3.5": [2.5, 3.5] * 30, "1.25": [1.0, 2.0] * 30, "no": ["yes", "no", "no"] * 20}).write_csv(
        tmp_path / "rows.csv"
    )
    data = TableData(path=str(tmp_path / "rows.csv"), target="no")
    data.setup()
    assert data.card is not None
    assert "its first line, 3.5, 1.25, no …, looks like a row" in data.card["warnings"][0]


def test_many_classes_that_are_text_are_trained_on(table: Callable[..., TableData]) -> None:
    rows = {name: [i % k for i in range(900)] for name, k in (("a", 7), ("b", 11))}
    data = table(y=[f"t{i % 300}" for i in range(900)], **rows)
    assert data.spec.num_classes == 300
    with pytest.raises(
        DataError, match=r"300 classes in 900 rows: probably regression.*; where they are names, write them as text"
    ):
        table(y=[i % 300 for i in range(900)], **rows).setup()


def test_labels_of_the_test_file_that_training_does_not_have(table: Callable[..., TableData], tmp_path: Path) -> None:
    table(name="test.csv", y=["maybe", "no"] * 30)
    with pytest.raises(
        DataError, match=r"test\.csv: labels 'maybe' in column 'y', where training has 'no', 'yes'; data\.labels"
    ):
        table(settings={"test_path": str(tmp_path / "test.csv")}).setup()
    table(name="test.csv", y=["maybe", "no"] * 30)
    settings = {"test_path": str(tmp_path / "test.csv"), "labels": {"maybe": "yes"}}
    assert len(table(settings=settings).setup() or table(settings=settings).spec.class_names) == 2


def test_a_test_file_that_lacks_a_column(table: Callable[..., TableData], tmp_path: Path) -> None:
    table(name="test.csv")
    pl.read_csv(tmp_path / "test.csv").drop("b").write_csv(tmp_path / "test.csv")
    with pytest.raises(DataError, match=r"test\.csv: has no column 'b'"):
        table(settings={"test_path": str(tmp_path / "test.csv")}).setup()
    assert table(settings={"test_path": str(tmp_path / "test.csv"), "drop": ["b"]}).spec.num_classes == 2


def test_of_many_columns_polars_is_not_called_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def calls(columns: int) -> int:
        numbers = {f"x{i}": [(7 * i + row) % 13 / 10 for row in range(60)] for i in range(columns)}
        pl.DataFrame(numbers | {"y": ["no", "yes"] * 30}).write_csv(tmp_path / "wide.csv")
        count.clear()
        TableData(path=str(tmp_path / "wide.csv"), target="y").setup()
        return len(count)

    count: list[None] = []
    lazy = pl.DataFrame.lazy
    monkeypatch.setattr(pl.DataFrame, "lazy", lambda frame: (count.append(None), lazy(frame))[1])
    assert 10 < calls(300) == calls(10) < 150
