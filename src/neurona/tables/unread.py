"""The values of a table that do not fit its schema: how many in each column, examples, and the message about them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from neurona.tables.schema import NOUNS, Column, Schema
from neurona.tables.values import all_words, blocks, without_blanks

MOST_EXAMPLES = 3


@dataclass
class Unread:
    """Of one column: rows that hold a value which is not read, and of them those that look like a mistake: all, but for
    categories, which may be new ones; of these, the ones that are known in another spelling. examples: some, the
    latter first.
    """

    column: Column
    rows: int = 0
    mistakes: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, texts: pl.Series) -> None:
        """texts: the values of rows in which they are not read."""
        distinct, known = texts.unique().sort(), dict[str, str]()
        if self.column.kind == "categorical":
            known = {fold(category): category for category in self.column.categories}
            odd = {text: known[fold(text)] for text in distinct if fold(text) in known}
            distinct = pl.Series([*odd, *distinct.filter(~distinct.is_in(list(odd)))], dtype=pl.String)
            self.mistakes += int(texts.is_in(list(odd)).sum())
        else:
            odd, self.mistakes = {}, self.mistakes + len(texts)
        self.rows += len(texts)
        new = [
            f"{text!r} ({odd[text]!r} in training)" if text in odd else repr(text) for text in distinct[:MOST_EXAMPLES]
        ]
        self.examples = [*dict.fromkeys([*self.examples, *new])][:MOST_EXAMPLES]

    def message(self, of: int) -> str:
        """of: rows that were looked at."""
        counts = f"{self.rows:,} of {of:,} values are not {NOUNS[self.column.kind]}"
        consequence = "other" if self.column.kind == "categorical" else "missing"
        return f"column {self.column.name!r}: {counts}, such as {', '.join(self.examples)}; they count as {consequence}"


class Tally:
    """What was not read in all the rows so far, by column."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.rows = 0
        self.columns: dict[str, Unread] = {}

    def add(self, table: pl.DataFrame, matrix: NDArray[np.float32]) -> None:
        """Rows, and the matrix that they became."""
        self.rows += len(matrix)
        start, lost = 0, dict[str, tuple[Column, NDArray[np.bool_]]]()
        for column in self.schema.in_matrix:
            values = matrix[:, start]
            start += column.width
            is_lost = values == 0 if column.kind == "categorical" else np.isnan(values)
            if is_lost.any():
                lost[column.name] = column, is_lost
        for names in blocks(list(lost), len(matrix)):
            texts = all_words(table[names], self.schema.rules)
            for text, known in zip(texts, without_blanks(texts), strict=True):
                column, is_lost = lost[text.name]
                text = text if column.kind == "categorical" else known
                unread = text.filter(pl.Series(is_lost)).drop_nulls()
                if len(unread):
                    self.columns.setdefault(column.name, Unread(column)).add(unread)

    def messages(self) -> Iterator[str]:
        return (unread.message(self.rows) for unread in self.columns.values())


def merge(tallies: Sequence[Tally]) -> Iterator[tuple[Unread, int]]:
    """The sum of several tallies."""
    columns: dict[str, Unread] = {}
    for one in (unread for tally in tallies for unread in tally.columns.values()):
        whole = columns.setdefault(one.column.name, Unread(one.column))
        whole.rows, whole.mistakes = whole.rows + one.rows, whole.mistakes + one.mistakes
        whole.examples = [*dict.fromkeys(whole.examples + one.examples)][:MOST_EXAMPLES]
    return ((unread, sum(tally.rows for tally in tallies)) for unread in columns.values())


def fold(text: str) -> str:
    """A text without what spellings of one category differ in: case, blanks, the code points of a letter, characters
    without width, and the way a number is printed.
    """
    text = re.sub("[\u200b-\u200d\u2060\ufeff\u00ad]", "", unicodedata.normalize("NFKC", text))
    text = re.sub(r"\s+", " ", text).strip().casefold()
    return re.sub(r"^0+(?=\d)|(?<=\d)\.0+$", "", text)
