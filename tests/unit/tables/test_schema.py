from __future__ import annotations

import json

import pytest

from neurona.tables.schema import Column, Rules, Schema, layout

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
