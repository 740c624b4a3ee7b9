"""What columns are taken for."""

from __future__ import annotations

import datetime
import json
import re
import shlex
from typing import Any

import numpy as np
import polars as pl
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from neurona.errors import ConfigError, DataError
from neurona.tables.inference import infer, order_of
from neurona.tables.matrix import encode
from neurona.tables.schema import Rules, Schema

ROWS = 60
SECOND = datetime.timedelta(seconds=1)


def inferred(values: list[Any], name: str = "x", **settings: Any) -> Schema:
    """The schema of a table of one column, beside one that is in no one's way."""
    table = pl.DataFrame({name: values, "other": [i % 7 + 0.5 for i in range(len(values))]}, strict=False)
    classes = np.random.default_rng(0).integers(0, 2, len(values))
    return infer(table, "y", np.arange(len(values)), classes, **{"rules": Rules()} | settings)


def repeated(*values: Any) -> list[Any]:
    return [values[i % len(values)] for i in range(ROWS)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (repeated("1", "2.5", "-3e2", None), "numeric"),
        (repeated(" 7 ", "?", "8"), "numeric"),
        (repeated(1, 2, 5), "numeric"),
        (repeated("yes", "No", "NA"), "boolean"),
        (repeated(True, False, None), "boolean"),
        (repeated("t", "f"), "boolean"),
        (repeated("m", "f"), "categorical"),
        (repeated("y", "f"), "categorical"),
        (repeated("red", "green", ""), "categorical"),
        (repeated("02139", "10001"), "categorical"),
        (repeated("2020-02-29", "1999-12-31", None), "date"),
        (repeated("2020-02-29T10:00:00Z", "1999-12-31T23:59:59.5+02:00"), "date"),
        (repeated("31.12.1999", "01.02.2000"), "date"),
        (repeated("12/31/1999", "01/02/2000"), "date"),
        (repeated(datetime.date(2020, 2, 29), datetime.date(2021, 1, 1)), "date"),
        (repeated(SECOND, 2 * SECOND, 5 * SECOND), "numeric"),
        ([f"{i}.25" for i in range(ROWS)], "numeric"),  # all different, and no identifier
        ([i * i * 1000 for i in range(ROWS)], "numeric"),
        ([*(f"{i}.25" for i in range(ROWS)), "0000-00-00"], "numeric"),  # no date, and no number with a zero before it
        ([*(f"{i}.25" for i in range(ROWS)), "01/31/2023"], "numeric"),
        ([f"name {i % 50}" for i in range(ROWS)], "categorical"),
    ],
)
def test_kinds(values: list[Any], kind: str) -> None:
    schema = inferred(values)
    assert (schema.columns[0].name, schema.columns[0].kind, schema.warnings) == ("x", kind, ())
    assert Schema.from_dict(json.loads(json.dumps(schema.as_dict()))) == schema


@pytest.mark.parametrize(
    ("values", "name", "reason", "warning"),
    [
        (repeated("a"), "x", "constant", None),
        (repeated(3.0), "x", "constant", None),
        (repeated(None, "NA"), "x", "all missing", "no value in any training row"),
        (list(range(ROWS)), "x", "identifier", r"whole numbers, one for each row.*data\.numeric=\[x\] keeps it"),
        ([str(9_000_000 + i * i) for i in range(ROWS)], "customer_id", "identifier", "whole numbers"),
        (
            [f"N{i:03d}" for i in range(ROWS)],
            "x",
            "identifier",
            r"60 texts in 60 rows.*data\.categorical=\[x\] keeps it",
        ),
        (repeated([1, 2], [3]), "x", "holds List", "instead of single values"),
    ],
)
def test_columns_left_out(values: list[Any], name: str, reason: str, warning: str | None) -> None:
    schema = inferred(values, name)
    assert schema.names == ["other"]
    assert schema.dropped[name].startswith(reason)
    assert bool(schema.warnings) == (warning is not None)
    assert re.search(warning or "", " ".join(schema.warnings)), schema.warnings


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        (
            repeated("1.500", "2.250"),
            "'1.500' may be read as 1.5 or 1500 (with \"data.decimal=','\" \"data.thousands='.'\")",
        ),
        (
            repeated("1,500", "2,250"),
            "'1,500' may be read as 1500 or 1.5 (with \"data.decimal=','\" \"data.thousands=''\")",
        ),
        (
            repeated("01/02/2000", "03/04/2000"),
            "%d/%m/%Y or %m/%d/%Y (with \"data.dates='%m/%d/%Y'\"); the first reading is used",
        ),
        (repeated("01/02/70", "30/04/69", "31/12/69"), "years of two digits are from 1970 to 2069"),
        ([*map(str, range(1, 80, 2)), *["soon", "late"] * 10], "though 67% of its values are numbers; 'data.missing"),
    ],
)
def test_warnings(values: list[Any], warning: str) -> None:
    assert any(warning in text for text in inferred(values).warnings), inferred(values).warnings


NUMBERS = [1234.5 * i - 40_000 for i in range(ROWS)]
DAYS = [datetime.datetime(2023, 1, 1, 7, 30) + datetime.timedelta(days=3 * i, hours=i % 24) for i in range(ROWS)]


def swiss(number: float) -> str:
    return f"{number:,.2f}".replace(",", "\u2019")


@pytest.mark.parametrize(
    ("write", "marks"),
    [
        (lambda x: f"{x:,.2f}", (".", ",", "", "")),
        (lambda x: f"{x:,.2f}".translate(str.maketrans(",.", ".,")), (",", ".", "", "")),
        (lambda x: f"{x:.2f}".replace(".", ","), (",", "", "", "")),
        (lambda x: f"{x:,.1f}".replace(",", "\u202f").replace(".", ","), (",", " ", "", "")),
        (lambda x: swiss(x), (".", "'", "", "")),
        (lambda x: f"{'-' * (x < 0)}${abs(x):,.2f}", (".", ",", "$", "")),
        (lambda x: f"(${-x:,.2f})" if x < 0 else f"${x:,.2f}", (".", ",", "$", "")),
        (lambda x: f"CHF {swiss(x)}", (".", "'", "CHF", "")),
        (lambda x: f"{x:.1f} %", (".", "", "", "%")),
        (lambda x: f"{x:.1f}km/h", (".", "", "", "km/h")),
        (lambda x: f"{x:.1f}".replace(".", ",") + "\u00a0€", (",", "", "", "€")),
        (lambda x: f"{x}".replace("-", "\u2212"), (".", "", "", "")),
        (lambda x: f"{abs(x)}" + "-" * (x < 0), (".", "", "", "")),
    ],
)
def test_numbers_with_marks_are_read_as_without(write: Any, marks: tuple[str, ...]) -> None:
    schema = inferred([*map(write, NUMBERS), "n.a.", "-", None])
    assert (schema.columns[0].kind, schema.columns[0].marks, schema.warnings) == ("numeric", marks, ())
    later = pl.DataFrame({"x": [*map(write, NUMBERS)], "other": [0.0] * ROWS})
    np.testing.assert_allclose(encode(later, schema)[:, 0], np.array(NUMBERS) - schema.columns[0].origin, rtol=1e-6)


@pytest.mark.parametrize(
    "written",
    [
        *("%m/%d/%Y %I:%M %p", "%d.%m.%Y %H:%M", "%d %b %Y %H:%M", "%B %d, %Y %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%fZ"),
        *("%Y-%m-%d %H:%M:%S+00:00", "%a, %d %b %Y %H:%M:%S GMT", "%m/%d/%Y %I:%M:%S%p", "%d-%b-%y %H:%M"),
    ],
)
def test_dates_are_read_however_they_are_written(written: str) -> None:
    schema = inferred([day.strftime(written) for day in DAYS] + ["0000-00-00", "unknown"])
    assert schema.columns[0].kind == "date"
    table = pl.DataFrame({"x": [day.strftime(written) for day in DAYS], "other": [0.0] * ROWS})
    days, *_, hours = encode(table, schema)[:, :5].T
    assert ((days - days[0]) * 24 + hours - hours[0]).tolist() == pytest.approx(
        [(d - DAYS[0]).total_seconds() / 3600 for d in DAYS]
    )


def test_the_setting_that_decides_is_what_the_command_line_takes() -> None:
    warning = next(text for text in inferred(repeated("01/02/2000", "03/04/2000")).warnings if "may be read" in text)
    override = OverridesParser.create().parse_override(shlex.split(warning.split("with ")[1].split(")")[0])[0])
    assert (override.key_or_group, override.value()) == ("data.dates", "%m/%d/%Y")


def test_a_pattern_may_be_given() -> None:
    schema = inferred(repeated("24-01-05", "23-02-03"), rules=Rules(dates="%y-%m-%d"))
    assert schema.columns[0].format == "%y-%m-%d"
    assert inferred(repeated("01/02/2000", "03/04/2000"), rules=Rules(dates="%m/%d/%Y")).warnings == ()


@pytest.mark.parametrize("odd", ["twelve", "1,5", "3 kg", "2020-01-01", "inf"])
def test_one_odd_value_does_not_make_numbers_categories(odd: str) -> None:
    schema = inferred([*(f"{x:.1f}" for x in NUMBERS), odd])
    assert (schema.columns[0].kind, schema.columns[0].marks) == ("numeric", ())
    assert inferred([*(str(day) for day in DAYS), odd]).columns[0].kind == "date"


@pytest.mark.parametrize("values", [("2", "4", "more"), (">20", "<1", *map(str, range(1, 21))), ("none", "unknown")])
def test_a_few_values_that_repeat_are_categories(values: tuple[str, ...]) -> None:
    assert inferred(repeated(*values)).columns[0].kind == "categorical"


@pytest.mark.parametrize("kind", [str, int])
def test_whole_numbers_beyond_float64_keep_their_identity(kind: type) -> None:
    ids = [kind(1582218195625938000 + i) for i in range(ROWS)]
    assert inferred(repeated(*ids[:6])).columns[0].categories == tuple(map(str, ids[:6]))
    assert inferred(ids).dropped == {"x": "identifier"}
    assert inferred([kind(10**i * 7) for i in range(19)] * 4).columns[0].kind == "numeric"  # told apart as float64


def test_the_smallest_numbers_are_scaled() -> None:
    values = [i % 13 * 1e-40 for i in range(ROWS)]
    schema = inferred(values)
    encoded = encode(pl.DataFrame({"x": values, "other": [0.0] * ROWS}), schema)[:, 0]
    np.testing.assert_allclose(
        encoded * 12, [i % 13 - np.median([j % 13 for j in range(ROWS)]) for i in range(ROWS)], rtol=1e-5
    )


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_an_index_is_left_out(name: str) -> None:
    rows = np.random.default_rng(0).choice(4000, 25, replace=False)
    assert inferred([str(row) for row in rows], name).dropped == {name: "identifier"}
    assert inferred(repeated(*range(7)), name).names == [name, "other"]


def test_a_column_that_gives_the_target_away_is_named() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 300)
    noise = np.where(np.arange(300) % 100 == 0, 1, 0)
    table = pl.DataFrame(
        {
            "coded": np.array(["low", "mid", "top"])[(classes + noise) % 3],  # but for 3 rows of 300
            "score": classes + rng.random(300) * 0.99,
            "good": np.array(["low", "mid", "top"])[np.where(rng.random(300) < 0.9, classes, 0)],
            "close": classes + rng.normal(0, 0.3, 300),
            "name": [f"row {i // 2}" for i in range(300)],
        }
    )
    schema = infer(table, "y", np.arange(300), classes, rules=Rules())
    assert [warning.split("'")[1] for warning in schema.warnings] == ["coded", "score"]
    assert all(
        "nearly determines the target, which may be a leak; data.drop=[" in warning for warning in schema.warnings
    )


@pytest.mark.parametrize("name", ["a.b-c", "2020", "income, in €", "it's", 'the "x"', "a=b", "null", ""])
def test_advice_names_a_column_as_the_command_line_does(name: str) -> None:
    (warning,) = inferred(list(range(ROWS)), name).warnings
    override = OverridesParser.create().parse_override(shlex.split(warning.split("; ")[1].removesuffix(" keeps it"))[0])
    assert (override.key_or_group, [str(value) for value in override.value()]) == ("data.numeric", [name])


def test_many_categories_are_named() -> None:
    schema = inferred([f"c{i % 10_000}" for i in range(25_000)])
    assert len(schema.columns[0].categories) == 10_000
    assert schema.warnings == (
        "column 'x' has 10,000 categories in 25,000 rows; data.drop=[x] leaves it out, if it only identifies rows",
    )


def test_overrides() -> None:
    assert inferred(list(range(ROWS)), numeric=["x"]).columns[0].kind == "numeric"
    assert inferred(repeated("1", "twelve"), numeric=["x"]).columns[0].kind == "numeric"
    column = inferred(repeated(1.0, 2.0, 10.0), categorical=["x"]).columns[0]
    assert (column.kind, column.categories) == ("categorical", ("1", "10", "2"))
    assert inferred(repeated(1, 2), dropped={"x": "as asked"}).names == ["other"]
    for settings, problem in (
        ({"categorical": ["z"]}, "data.categorical=z: no such column"),
        ({"numeric": ["othr"]}, "did you mean other"),
        ({"numeric": ["x"], "categorical": ["x"]}, "data.categorical=x"),
        ({"numeric": ["x"], "dropped": {"x": "as asked"}}, "data.numeric=x"),
        ({"numeric": ["y"]}, "data.numeric=y"),
    ):
        with pytest.raises(ConfigError, match=problem):
            inferred(repeated(1, 2), **settings)
    with pytest.raises(DataError, match=r"no column is left to predict 'y' from .*'x': constant"):
        inferred(repeated(1), dropped={"other": "as asked"})


def test_only_the_given_rows_count() -> None:
    table = pl.DataFrame({"x": ["a", "b"] * 10 + ["c", "d"], "z": ["1"] * 11 + ["2"] * 9 + ["huge", "5"]})
    schema = infer(table, "y", np.arange(20), np.arange(20) // 4 % 2, rules=Rules())
    assert [(column.kind, column.categories) for column in schema.columns] == [
        ("categorical", ("a", "b")),
        ("numeric", ()),
    ]
    np.testing.assert_array_equal(encode(table, schema)[-2:], [[np.nan, 0], [5, 0]])


def test_large_numbers_keep_their_digits() -> None:
    values = [1_700_000_000 + i / 4 for i in range(ROWS)]
    table = pl.DataFrame({"x": values})
    schema = infer(table, "y", np.arange(ROWS), np.arange(ROWS) % 2, rules=Rules())
    assert np.diff(encode(table, schema)[:, 0]).tolist() == [0.25] * (ROWS - 1)


def test_separators_of_numbers() -> None:
    rules = Rules(missing=("-",), decimal=",", thousands=".")
    schema = inferred(repeated("1.234,5", "-", "-2,25", "10.000.000"), rules=rules)
    table = pl.DataFrame({"x": ["1.234,5", "-", "-2,25", "10.000.000", "1.23"], "other": [0.0] * 5})
    np.testing.assert_array_equal(encode(table, schema)[:, 0], [1234.5, np.nan, -2.25, 1e7, np.nan])


@pytest.mark.parametrize(
    ("values", "ranks"),
    [
        (["10", "9", None, "9"], [2, 1, None, 1]),
        (["01.02.2020", "31.01.2020", "15.12.2019"], [3, 2, 1]),
        (["01/31/2023 12:59 AM", "01/31/2023 01:00 AM", "12/31/2022 11:00 PM"], [2, 3, 1]),
        ([2**60 + 1, 2**60, 2**60 + 2], [2, 1, 3]),
        (["1,5", "0,75"], [2, 1]),
        ([datetime.date(2020, 1, 2), datetime.date(2019, 1, 2), None], [2, 1, None]),
    ],
)
def test_order(values: list[Any], ranks: list[int | None]) -> None:
    assert order_of(pl.Series("t", values), Rules()).to_list() == ranks


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (["b", "a", "c"], "needs whole numbers, or dates of one pattern, but holds 'a', 'b', 'c'"),
        (["2023-01-01", "15/01/2023"] * 20, "holds '15/01/2023'|holds '2023-01-01'"),
        ([*map(str, range(50)), "soon"], "holds 'soon'"),
        (["01/02/2023", "03/04/2023"], "may be read as %d/%m/%Y or %m/%d/%Y"),
    ],
)
def test_what_has_no_order(values: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"data.order=t: .*{problem}"):
        order_of(pl.Series("t", values), Rules())
