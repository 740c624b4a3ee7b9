from __future__ import annotations

import json
import shlex

import polars as pl
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from neurona.tables.matrix import encode
from neurona.tables.schema import Column, Rules, Schema, layout, setting

SCHEMA = Schema(
    (
        Column("c", "categorical", ("a", "b")),
        Column("d", "date", origin=18000.0, format="%Y-%m-%d"),
        Column("n", "numeric"),
    ),
    "y",
    {"id": "identifier"},
    Rules(("-",), decimal=",", thousands="."),
    ("column 'd' is odd",),
)


def test_it_is_the_same_from_json() -> None:
    assert Schema.from_dict(json.loads(json.dumps(SCHEMA.as_dict()))) == SCHEMA


@pytest.mark.parametrize("key", ["columns", "rules", "target"])
def test_a_damaged_one_raises(key: str) -> None:
    stored = {name: value for name, value in SCHEMA.as_dict().items() if name != key}
    with pytest.raises((KeyError, TypeError)):
        Schema.from_dict(stored)


def test_the_layout_has_the_numbers_first_five_for_a_date() -> None:
    assert SCHEMA.names == ["c", "d", "n"]
    assert layout(SCHEMA) == (6, (3,), ("d", "d", "d", "d", "d", "n", "c"))
    assert layout(Schema((), "y")) == (0, (), ())


def test_one_of_an_earlier_version_is_read_as_it_was() -> None:
    column = {"name": "n", "kind": "numeric", "categories": [], "origin": 0.0, "format": ""}
    rules = {"missing": ["", "NA"], "decimal": ".", "thousands": ""}
    stored = {"columns": [column], "target": "y", "dropped": {}, "rules": rules, "warnings": []}
    schema = Schema.from_dict(json.loads(json.dumps(stored)))
    assert (schema.columns[0].marks, schema.columns[0].scale, schema.features) == ((), 1.0, ())
    assert encode(pl.DataFrame({"n": ["1.5", "1,5"]}), schema)[0].tolist() == [1.5]


@pytest.mark.parametrize("name", ["a.b-c", "income, in €", "it's", "null", "a\\"])
def test_a_setting_is_what_the_command_line_takes(name: str) -> None:
    override = OverridesParser.create().parse_override(shlex.split(setting("drop", name))[0])
    assert (override.key_or_group, [str(value) for value in override.value()]) == ("data.drop", [name])
