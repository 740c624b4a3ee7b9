"""What the schema of a table does not read."""

from __future__ import annotations

import polars as pl

from neurona.tables.matrix import encode
from neurona.tables.schema import Column, Schema
from neurona.tables.unread import Tally, fold

SCHEMA = Schema(
    (
        Column("zip", "categorical", ("01234", "02139", "red  wine")),
        Column("when", "date", format="%d.%m.%Y"),
        Column("size", "numeric"),
        Column("flag", "boolean"),
    ),
    "y",
)
ROWS = pl.DataFrame(
    {
        "zip": ["1234.0", "02139", "99999", None, "Red wine"],
        "when": ["01.02.2020", "unknown", "2020-02-01", "31.02.2020", ""],
        "size": ["1", "-", "inf", "NA", "1,5"],
        "flag": ["yes", "no", "?", "perhaps", "none"],
    }
)


def test_values_that_are_missing_are_told_from_those_that_are_not_read() -> None:
    tally = Tally(SCHEMA)
    for part in ROWS.iter_slices(2):
        tally.add(part, encode(part, SCHEMA))
    counts = {name: (unread.rows, unread.mistakes) for name, unread in tally.columns.items()}
    assert counts == {"when": (2, 2), "size": (2, 2), "flag": (1, 1), "zip": (3, 2)}
    assert sorted(tally.messages()) == [
        "column 'flag': 1 of 5 values are not yes or no, such as 'perhaps'; they count as missing",
        "column 'size': 2 of 5 values are not numbers, such as 'inf', '1,5'; they count as missing",
        "column 'when': 2 of 5 values are not dates, such as '2020-02-01', '31.02.2020'; they count as missing",
        "column 'zip': 3 of 5 values are not known from training, such as '1234' ('01234' in training), '99999', "
        "'Red wine' ('red  wine' in training); they count as other",
    ]


def test_spellings_of_one_text() -> None:
    assert fold("s\u00ed") == fold("si\u0301") == fold(" S\u00cd\u200b ")
    assert fold("007") == fold("7.0") != fold("70")
