"""How numbers are written, found from texts."""

from __future__ import annotations

import shlex
from dataclasses import replace

import polars as pl
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from neurona.tables.marks import PLAIN, Marks, read_by, readings
from neurona.tables.schema import Column, Rules, Schema


@pytest.mark.parametrize(
    ("texts", "rules", "likeliest"),
    [
        (["1.5", "2"], Rules(), PLAIN),
        (["1,234", "5,678", "5"], Rules(), Marks(".", ",")),
        (["1,234", "5,678", "5"], Rules(decimal=","), Marks(",")),
        (["1,234", "5,678", "5"], Rules(thousands=""), Marks(",")),
        (["1·5", "2"], Rules(decimal="·", thousands="_"), Marks("·", "_")),
        (["12,34,567 Rs", "1,00,000 Rs", "1 Rs"], Rules(), Marks(".", ",", "", "Rs")),
        (["5 m²", "6.5 m²"], Rules(), Marks(after="m²")),
    ],
)
def test_the_likeliest_reading_is_first(texts: list[str], rules: Rules, likeliest: Marks) -> None:
    assert readings(pl.Series(texts), rules)[0] == likeliest


@pytest.mark.parametrize(
    "texts", [["N001", "N002"], ["a 1", "b 2"], ["2020-01-02"], ["1-2", "3-4"], ["1.2.3"], ["555 1234"]]
)
def test_what_is_no_number_has_no_reading(texts: list[str]) -> None:
    assert readings(pl.Series(texts), Rules()) == []


def test_values_are_read_strictly() -> None:
    texts = pl.Series(["1,234.5", "(2)", "-3", "4-", "12,34", "0,123", "5 kg", "1e3", None])
    assert Marks(".", ",").values(texts).to_list() == [1234.5, -2, -3, -4, None, None, None, 1000, None]


@pytest.mark.parametrize("marks", [Marks(",", "."), Marks(".", "'"), Marks(".", " "), Marks(",", "")])
def test_settings_are_what_the_command_line_takes(marks: Marks) -> None:
    overrides = [OverridesParser.create().parse_override(word) for word in shlex.split(marks.settings(Marks(";", ";")))]
    assert [(each.key_or_group, str(each.value())) for each in overrides] == [
        ("data.decimal", marks.decimal),
        ("data.thousands", marks.thousands),
    ]


def test_marks_in_words() -> None:
    assert str(Marks(",", ".", "", "€")) == "decimal mark ',', thousands mark '.', '€' after each"


@pytest.mark.parametrize(
    ("decimal", "thousands", "marks"),
    [
        (".", ",", (".", ",", "", "€")),
        (".", None, (".", "", "", "€")),
        ("", "'", (",", "'", "", "€")),
        ("", "", (",", "", "", "€")),
        ("", None, (",", ".", "", "€")),
    ],
)
def test_marks_given_for_new_rows_replace_those_that_were_found(
    decimal: str, thousands: str | None, marks: tuple[str, ...]
) -> None:
    found = Column("price", "numeric", marks=(",", ".", "", "€"))
    schema = Schema((found, Column("age", "numeric")), "label")
    rules = Rules(decimal=decimal, thousands=thousands)
    assert [column.marks for column in read_by(schema, rules).columns] == [marks, ()]
    assert read_by(replace(schema, rules=rules), rules).columns == schema.columns
