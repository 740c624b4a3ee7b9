"""Properties of any table: it reads as it was written, and whatever it holds becomes finite numbers or a UserError."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from neurona.errors import DataError, UserError
from neurona.tables import data_card, reading
from neurona.tables.inference import infer
from neurona.tables.matrix import encode
from neurona.tables.schema import Rules, Schema, layout
from neurona.tables.table import TableData


def always(*strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes tests of a property: one of few examples, a long one of many. Their first argument is a folder."""

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("count", [25, pytest.param(1000, marks=pytest.mark.long)])
        def test(folder: Path, count: int) -> None:
            checks = list(HealthCheck)
            usual = settings(derandomize=True, database=None, deadline=None, suppress_health_check=checks)
            settings(usual, max_examples=count)(given(*strategies)(check))(folder)

        return test

    return decorate


MARKS = ' ",;|\t\n'
TEXTS = st.text(string.printable + "äß€\u200b\U0001f600\x00", max_size=6)
EXTREMES = st.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan, 2**53 + 1.0])
MOMENTS = st.datetimes()
SORTS: list[st.SearchStrategy[Any]] = [
    TEXTS,
    EXTREMES,
    EXTREMES.map(str),
    st.floats(-1e5, 1e5),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.sampled_from(["yes", "no", "NA"]),
    st.sampled_from(["1,5", "1.234,5", "1,234", "007", "1e5", "3.0"]),
    MOMENTS,
    MOMENTS.map(lambda moment: moment.date()),
    MOMENTS.map(lambda moment: moment.time()),
    MOMENTS.map(lambda moment: moment.isoformat(" ")),
    st.integers(0, 10**6).map(lambda seconds: datetime.timedelta(seconds=seconds)),
    st.lists(st.just(1), max_size=2),
    TEXTS.map(lambda text: {"a": text}),
    TEXTS.map(str.encode),
    st.none(),
]


@st.composite
def columns(draw: st.DrawFn, rows: int) -> list[Any]:
    """Values of one sort, some of them missing or of another; all different in places."""
    pool = draw(st.lists(draw(st.sampled_from(SORTS)), min_size=1, max_size=8))
    odd = draw(st.lists(st.one_of(SORTS), max_size=2))
    generator = random.Random(draw(st.integers(0, 99)))
    values = generator.choices([*pool * 8, *odd], k=rows)
    return [f"{value}{i}" for i, value in enumerate(values)] if draw(st.integers(0, 9)) == 0 else values


def frame(content: dict[str, list[Any]]) -> pl.DataFrame:
    """polars' own frame where it can make one, else of texts."""
    try:
        return pl.DataFrame(content, strict=False)
    except pl.exceptions.PolarsError:
        return pl.DataFrame({name: [None if v is None else str(v) for v in column] for name, column in content.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


@always(
    st.lists(st.lists(st.text("ab1é'" + MARKS, max_size=5), min_size=2, max_size=2), min_size=1, max_size=6),
    st.sampled_from([{}, {"lineterminator": "\r\n"}, {"quoting": csv.QUOTE_ALL}]),
    st.sampled_from(reading.SEPARATORS),
    st.integers(1, 4),
)
def test_what_was_written_is_read(
    folder: Path, rows: list[list[str]], dialect: dict[str, Any], separator: str, size: int
) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, **{"delimiter": separator, "lineterminator": "\n"} | dialect)
    writer.writerows([[f"a{separator}{separator}", "b"], *rows])
    (folder / "t.csv").write_text(written.getvalue(), encoding="utf-8", newline="")
    expected = [row for row in rows if any(row)]  # rows without any value may be left out
    assume(expected)
    for parts in ([reading.read(f"{folder}/t.csv")], list(reading.batches(f"{folder}/t.csv", None, size))):
        values = [[value or "" for value in row] for part in parts for row in part.rows()]
        assert [row for row in values if any(row)] == expected


@always(st.text('ab"1é' + MARKS, max_size=60), st.sampled_from([",", ";"]), st.sampled_from(["utf-8", "latin1"]))
def test_any_text_is_a_table_or_a_mistake_named(folder: Path, text: str, separator: str, encoding: str) -> None:
    text = f"x{separator}y\n{text}"
    (folder / "t.csv").write_bytes(text.encode(encoding))
    try:
        table = reading.read(f"{folder}/t.csv", separator)
    except DataError:
        return
    # Python's reader finds as many rows, those without any value and, as in pandas, lines of blanks aside.
    _, *records = csv.reader(io.StringIO(text), delimiter=separator)
    expected = [record for record in records if any(record) and (len(record) > 1 or record[0].strip(" \t"))]
    assert sum(map(any, table.rows())) == len(expected)


@always(st.data(), st.sampled_from([1, 2, 5, 40, 200]), st.integers(1, 5))
def test_any_columns_are_typed_and_encoded(folder: Path, data: st.DataObject, rows: int, width: int) -> None:
    table = frame({f"c{i}": data.draw(columns(rows)) for i in range(width)})
    generator = random.Random(rows)
    training = np.array(sorted(generator.sample(range(rows), max(1, rows * 2 // 3))))
    rules = data.draw(st.sampled_from([Rules(), Rules(decimal=",", thousands="."), Rules(missing=())]))
    kind, named = data.draw(st.sampled_from(["numeric", "categorical"])), data.draw(st.integers(0, 3 * width))
    overrides: dict[str, Any] = {kind: [f"c{named}"]} if named < width else {}
    try:
        schema = infer(table, "y", training, training % 2, rules=rules, **overrides)
    except UserError:
        return
    matrix = encode(table, schema)
    numeric, cardinalities, names = layout(schema)
    assert matrix.shape == (rows, numeric + len(cardinalities)) == (rows, len(names))
    assert not np.isinf(matrix).any()
    ids = matrix[:, numeric:]
    assert ((ids >= 0) & (ids < np.array(cardinalities, dtype=float)) & (ids % 1 == 0)).all()
    np.testing.assert_array_equal(encode(table.select(reversed(table.columns)), schema), matrix)
    stored = Schema.from_dict(json.loads(json.dumps(schema.as_dict())))
    np.testing.assert_array_equal(encode(table, stored), matrix)
    labelled = table.with_columns(y=pl.lit("a"))
    card = data_card.card(labelled, schema, ["a", "b"], np.zeros(rows, dtype=np.int64), {"train": training})
    assert data_card.text(json.loads(json.dumps(card))).startswith("column")
    # Whatever the columns hold later, they are encoded.
    later = frame({name: data.draw(columns(30)) for name in table.columns})
    assert not np.isinf(encode(later, stored)).any()


@always(st.data(), st.sampled_from([2, 5, 40, 200]))
def test_any_file_is_split_and_encoded_or_a_mistake_named(folder: Path, data: st.DataObject, rows: int) -> None:
    table = frame({name: data.draw(columns(rows)) for name in ("y", "a", "b", "c.d")})
    texts = {column.name: [None if v is None else str(v) for v in column.to_list()] for column in table}
    pl.DataFrame(texts, dict.fromkeys(texts, pl.String)).write_csv(folder / "t.csv")
    encoding = data.draw(st.sampled_from(["standard", "robust", "quantile", "piecewise", "standard_piecewise"]))
    module = TableData(path=f"{folder}/t.csv", target="y", numeric_encoding=encoding)
    try:
        module.setup()
        mistake = None
    except UserError as error:
        mistake = str(error)
    if mistake:
        assert "\n" not in mistake
        return
    encoded = module.preprocessing(module.features)
    assert encoded.shape == (rows, module.spec.num_features)
    assert encoded.isfinite().all()
    assert 2 <= module.spec.num_classes <= rows // 2


GERMAN = str.maketrans(",.", ".,")
WRITTEN: dict[str, list[Callable[[float], str]]] = {
    "numeric": [
        lambda x: f"{x:.2f}",
        lambda x: f"{x:,.2f}",
        lambda x: f"{x:,.2f}".translate(GERMAN),
        lambda x: f"{x:.1f}".translate(GERMAN) + " €",
        lambda x: f"{x:.1f} kg",
        lambda x: f"({-x:.2f})" if x < 0 else f"{x:.2f}",
        lambda x: f"{'-' * (x < 0)}$ {abs(x):,.2f}",
        lambda x: f"{x:.2f}%",
    ],
    "date": [
        lambda x: f"{moment(x):%Y-%m-%d}",
        lambda x: f"{moment(x):%d.%m.%Y %H:%M}",
        lambda x: f"{moment(x):%m/%d/%Y %I:%M %p}",
        lambda x: f"{moment(x):%B %d, %Y}",
        lambda x: f"{moment(x):%d/%m/%y}",
    ],
    "categorical": [lambda x: ["red", "dark  green", "Blue"][int(x * 100) % 3]],
    "boolean": [lambda x: ["yes", "no"][int(x * 100) % 2]],
}
DAMAGES: list[Callable[[str], str]] = [
    lambda text: "-",
    lambda text: "unknown",
    lambda text: "see notes",
    lambda text: "",
    lambda text: text + " mg",
    lambda text: text.upper(),
    lambda text: f" {text} ",
    lambda text: text.translate(GERMAN),
    lambda text: "31/31/2023",
    lambda text: "0000-00-00",
]


def moment(x: float) -> datetime.datetime:
    return datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=round(x * 5))


@always(
    st.sampled_from(sorted(WRITTEN)), st.data(), st.sampled_from([0.0, 0.01, 0.04, 0.15, 0.4, 0.7]), st.integers(0, 99)
)
def test_damage_is_read_as_the_clean_table_or_told_of(
    folder: Path, kind: str, data: st.DataObject, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    write, spoil = data.draw(st.sampled_from(WRITTEN[kind])), data.draw(st.sampled_from(DAMAGES))
    clean = [write(x) for x in rng.normal(0, 2000, 240).tolist()]
    spoilt = [spoil(text) if bad else text for text, bad in zip(clean, rng.random(240) < share, strict=True)]

    def setup(values: list[str], name: str) -> TableData:
        columns = {"x": values, "o": [i % 7 + 0.5 for i in range(240)], "y": [["no", "yes"][i % 2] for i in range(240)]}
        pl.DataFrame(columns).write_csv(folder / f"{name}.csv")
        lines = (folder / f"{name}.csv").read_text().splitlines()
        (folder / f"{name}.csv").write_text("\n".join([*lines[:9], *["", "  "] * (seed % 2), *lines[9:]]))
        module = TableData(path=f"{folder}/{name}.csv", target="y")
        module.setup()
        return module

    right = setup(clean, "clean")
    problem = ""
    try:
        module = setup(spoilt, "spoilt")
    except DataError as error:
        problem = str(error)
    if problem:
        assert "column 'x'" in problem
        return
    assert module.card is not None
    assert module.schema is not None
    assert right.schema is not None
    told = [warning for warning in module.card["warnings"] if "column 'x'" in warning]
    if "x" in module.schema.dropped:
        assert told
        return
    expected, column = right.schema.columns[0], module.schema.columns[0]
    assert (expected.name, expected.kind, column.name) == ("x", kind, "x")
    if column.kind != expected.kind:
        no_less_is_known = kind == "boolean" and set(column.categories) <= {text.strip() for text in spoilt}
        assert told or (column.kind == "categorical" and no_less_is_known)
        return
    if kind == "categorical":
        spellings = {" ".join(category.casefold().split()) for category in column.categories}
        assert told or len(spellings) == len(column.categories)
        return
    values, truth = (
        (m.features[:, 0].double().numpy() / c.scale + c.origin) for m, c in ((module, column), (right, expected))
    )
    is_lost = np.isnan(values)
    np.testing.assert_allclose(values[~is_lost], truth[~is_lost], rtol=1e-4, atol=1e-4)
    unread = sum(module.card["columns"][0].get("unread", {}).values())
    known = sum(text.strip().lower() in ("", "-", "unknown", "0000-00-00") for text in spoilt)
    assert is_lost.sum() == unread + known
    assert told or not unread
