"""The data card: rows, columns, missing values and class balance of a table, as plain data and as text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from neurona.tables.marks import Marks
from neurona.tables.schema import Rules, Schema
from neurona.tables.unread import MOST_EXAMPLES, Tally, fold
from neurona.tables.values import all_numbers, all_words, blocks, words

MOST_CATEGORIES = 20
MOST_NUMBERS = 20


def card(
    table: pl.DataFrame,
    schema: Schema,
    class_names: Sequence[str],
    targets: NDArray[np.int64],
    parts: Mapping[str, NDArray[np.int64]],
    tallies: Mapping[str, Tally] | None = None,
) -> dict[str, Any]:
    """What ``data_card.json`` says. Everything about the columns is counted on the training rows, ``parts["train"]``;
    targets: (rows,), negative where there is no label. tallies: what is not read in each part.
    """
    counts = {part: np.bincount(targets[rows], minlength=len(class_names)).tolist() for part, rows in parts.items()}
    columns = _describe(table, schema, parts["train"])
    unread = [
        f"in the {part} part, {unknown.message(tally.rows)}"
        for part, tally in (tallies or {}).items()
        for unknown in tally.columns.values()
        if unknown.mistakes
    ]
    return {
        "rows": {**{part: len(rows) for part, rows in parts.items()}, "without_label": int((targets < 0).sum())},
        "target": schema.target,
        "classes": {name: {part: counts[part][i] for part in parts} for i, name in enumerate(class_names)},
        "columns": [{**column, **_unread(column["name"], tallies or {})} for column in columns],
        "left_out": schema.dropped,
        "warnings": [*_about_labels(table[schema.target], targets, class_names, counts), *schema.warnings, *unread],
    }


def _about_labels(
    labels: pl.Series, targets: NDArray[np.int64], names: Sequence[str], counts: Mapping[str, list[int]]
) -> Iterator[str]:
    """Warnings of labels that count as none, of many numbers as classes, and of classes not in every part."""
    if len(names) > MOST_NUMBERS and pl.Series(names).cast(pl.Float64, strict=False).is_not_null().all():
        problem = "if they are amounts, this is regression, which neurona does not do"
        yield f"the {len(names)} classes are all numbers; {problem}"
    figures = [figure + 0.0 for figure in pl.Series(names).cast(pl.Float64, strict=False).fill_null(math.nan)]
    same = [fold(name) if math.isnan(figure) else figure for name, figure in zip(names, figures, strict=True)]
    alike = Counter(same)
    if spellings := [repr(name) for name, key in zip(names, same, strict=True) if alike[key] > 1]:
        classes = _list(spellings, len(spellings))
        yield f"the classes {classes} differ only in the way they are written; data.labels can unite them"
    unknown = words(labels, Rules(missing=())).filter(pl.Series(targets < 0)).drop_nulls()
    if len(unknown):
        texts = ", ".join(map(repr, unknown.unique().sort()))
        yield f"rows without a label, which are left out: {len(unknown)} (data.missing has {texts})"
    for part, count in counts.items():
        absent = [repr(name) for name, number in zip(names, count, strict=True) if not number]
        if 0 < len(absent) < len(names):
            yield f"the {part} part has no row of class {_list(absent, len(absent))}"


def text(card: Mapping[str, Any], most_columns: int | None = None) -> str:
    """The card as a table to read; most_columns: how many of the columns to show."""
    shown = card["columns"][:most_columns]
    width = min(32, max(len("column"), *(len(column["name"]) for column in card["columns"])))
    lines = [f"{'column':<{width}}  {'kind':<11}  {'missing':>7}  values in training"]
    for column in shown:
        share = column["missing"] / max(1, card["rows"]["train"])
        missing = f"{share:.1%}" if column["missing"] else "-"
        lines.append(f"{_cut(column['name'], width):<{width}}  {column['kind']:<11}  {missing:>7}  {_values(column)}")
    if len(shown) < len(card["columns"]):
        lines.append(f"… and {len(card['columns']) - len(shown)} more in data_card.txt")
    for name, reason in card["left_out"].items():
        lines.append(f"{_cut(name, width):<{width}}  left out: {reason}")
    rows = card["rows"]
    total = max(1, rows["train"])
    balance = [f"{name} {counts['train'] / total:.1%}" for name, counts in card["classes"].items()]
    lines.append(f"target {card['target']!r}: {_list(balance, len(balance))} of the training rows")
    lines.append("rows: " + ", ".join(f"{count:,} {part}" for part, count in rows.items() if count).replace("_", " "))
    return "\n".join(lines)


def _describe(table: pl.DataFrame, schema: Schema, rows: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Each column, of these rows."""
    for columns in blocks(schema.columns, len(rows)):
        training = table[[column.name for column in columns]][rows]
        numeric = [column.name for column in columns if column.kind == "numeric"]
        others = [column.name for column in columns if column.kind != "numeric"]
        marks = {column.name: column.marks for column in columns if column.marks}
        figures = all_numbers(training[numeric], schema.rules, marks)
        texts = all_words(training[others], schema.rules)
        for column in columns:
            is_numeric = column.kind == "numeric"
            facts = _amounts(figures[column.name]) if is_numeric else _frequencies(texts[column.name])
            reads = {"reads": str(Marks(*column.marks)) or "brackets as minus"} if column.marks else {}
            reads |= {"reads": column.format} if column.format else {}
            yield {"name": column.name, "kind": column.kind, **facts, **reads}


def _unread(name: str, tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """How many values of a column are not read in each part, and some of them, where there are any."""
    unknown = {part: tally.columns[name] for part, tally in tallies.items() if name in tally.columns}
    examples = dict.fromkeys(text for unread in unknown.values() for text in unread.examples)
    return (
        {"unread": {p: u.rows for p, u in unknown.items()}, "examples": [*examples][:MOST_EXAMPLES]} if unknown else {}
    )


def _amounts(figures: pl.Series) -> dict[str, Any]:
    facts = {"min": figures.min(), "median": figures.median(), "max": figures.max()}
    return {"missing": figures.null_count(), **facts}


def _frequencies(texts: pl.Series) -> dict[str, Any]:
    counts = texts.drop_nulls().value_counts(sort=True, name="count")
    top = sorted(counts.iter_rows(), key=lambda row: (-row[1], row[0]))[:MOST_CATEGORIES]
    return {"missing": texts.null_count(), "distinct": len(counts), "most_frequent": dict(top)}


def _values(column: Mapping[str, Any]) -> str:
    words = f"{column.get('distinct')}: {_list(list(column.get('most_frequent', ())), column.get('distinct', 0))}"
    if column["kind"] == "numeric":
        words = f"{column['min']:.6g} to {column['max']:.6g}, median {column['median']:.6g}"
    words += f" ({column['reads']})" if "reads" in column else ""
    if "unread" in column:
        counts = ", ".join(f"{count:,} {part}" for part, count in column["unread"].items())
        words += f"; not read: {counts}, such as {', '.join(column['examples'])}"
    return words


def _list(words: Sequence[str], count: int, most: int = 6) -> str:
    return ", ".join(_cut(word, 32) for word in words[:most]) + " …" * (count > most)


def _cut(word: str, width: int) -> str:
    word = " ".join(word.split())
    return word if len(word) <= width else word[: width - 1] + "…"
