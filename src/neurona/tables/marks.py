"""How the numbers of a column are written: decimal mark, mark between thousands, what stands around each of them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import polars as pl

from neurona.tables.schema import Column, Rules, Schema

SPELLINGS = (("[\u00a0\u2009\u202f]", " "), ("[\u2019\u02bc]", "'"), ("\u2212", "-"))
"""Blanks, apostrophes and minus signs that typesetters have several of."""
BEFORE = "(?:[A-Z]{0,3}[$€£¥₹₽₩₺₴₫₱₪฿]|USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|BRL|MXN|ZAR|Rs\\.?|kr\\.?)"
AFTER = r"[^\W\d_](?:[^\d()]{0,11}[^\d()\s])?(?:\^?[23])?|[%‰°$€£¥₹₽₩₺₴₫₱₪฿″\"][^\d()]{0,4}"
AFFIXES = re.compile(
    rf"\(?\s*[+-]?\s*({BEFORE}|)\s*[+-]?\s*(?:\d[\d., ']*?|[.,]\d+)(?:[eE][+-]?\d+)?\s*({AFTER}|)\s*-?\)?"
)
WAYS = ((".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'"), (",", "'"))
"""Marks of decimals and of thousands, the likelier first."""
SAMPLE = 200


class Marks(NamedTuple):
    """before, after: a currency, a percent sign or another unit that every number has; empty for none."""

    decimal: str = "."
    thousands: str = ""
    before: str = ""
    after: str = ""

    @property
    def pattern(self) -> str:
        """The regular expression of such numbers; brackets around one, or a minus after it, make it negative."""
        decimal, thousands, before, after = map(re.escape, self)
        whole = rf"\d+|[1-9]\d{{0,2}}(?:{thousands}\d{{2,3}})*{thousands}\d{{3}}" if thousands else r"\d+"
        number = rf"(?:(?:{whole})(?:{decimal}\d*)?|{decimal}\d+)(?:[eE][+-]?\d+)?"
        return rf"^(\(?)\s*([+-]?)\s*{before}\s*([+-]?)\s*({number})\s*{after}\s*(-?)\)?$"

    def plain(self, text: pl.Series) -> pl.Series:
        """The texts in the form that polars reads as numbers; null for texts that do not fit the pattern."""
        text = _respell(text)
        number = text.str.replace(self.pattern, "$1$2$3$5$4").str.replace("(", "-", literal=True)
        number = number.str.replace_all(self.thousands, "", literal=True) if self.thousands else number
        number = number.str.replace(self.decimal, ".", literal=True)
        return pl.select(pl.when(text.str.contains(self.pattern)).then(number).alias(text.name)).to_series()

    def values(self, text: pl.Series) -> pl.Series:
        return self.plain(text).cast(pl.Float64, strict=False)

    def __str__(self) -> str:
        """In words, such as ``decimal mark ',', thousands mark '.', '€' after each``."""
        names = ("decimal mark {!r}", "thousands mark {!r}", "{!r} before each", "{!r} after each")
        pairs = zip(names, self, PLAIN, strict=True)
        return ", ".join(name.format(mark) for name, mark, usual in pairs if mark != usual)

    def settings(self, other: Marks) -> str:
        """The settings that choose these marks instead of others, as typed into a shell."""
        pairs = zip(("decimal", "thousands"), self, other, strict=False)
        marks = [(key, mark.replace("'", r"\'")) for key, mark, now in pairs if mark != now]
        return " ".join(f"\"data.{key}='{mark}'\"" for key, mark in marks)


PLAIN = Marks()


def read_by(schema: Schema, rules: Rules) -> Schema:
    """The schema for a file that is read by these rules, whose marks go before those found in training where they are
    others than the training's rules had.
    """

    def reread(column: Column) -> Column:
        marks = Marks(*column.marks)
        decimal = rules.decimal or marks.decimal
        thousands = marks.thousands if rules.thousands is None else rules.thousands
        marks = marks._replace(decimal=decimal, thousands="" if thousands == decimal else thousands)
        return replace(column, marks=tuple(marks)) if column.marks else column

    is_same = (rules.decimal, rules.thousands) == (schema.rules.decimal, schema.rules.thousands)
    return replace(schema, rules=rules, columns=schema.columns if is_same else tuple(map(reread, schema.columns)))


def readings(texts: pl.Series, rules: Rules) -> list[Marks]:
    """The ways of writing numbers that fit at least half of a sample of these distinct texts, the likeliest first."""
    sample = _respell(texts.gather_every(max(1, len(texts) // SAMPLE))).to_list()
    matches = [match for text in sample if (match := AFFIXES.fullmatch(text))]
    if 2 * len(matches) < len(sample):
        return []
    affixes = dict.fromkeys([("", ""), *(pair for pair, _ in Counter(m.groups() for m in matches).most_common(1))])
    default_marks = rules.decimal or ".", rules.thousands or ""
    usual = [(d, t) for d, t in WAYS if rules.decimal in ("", d) and rules.thousands in (None, t)] or [default_marks]
    for marks in (usual, WAYS):  # those of the rules, where they fit
        patterns = {
            way: re.compile(way.pattern) for way in (Marks(*way, *pair) for pair, way in product(affixes, marks))
        }
        if fitting := [
            way for way, found in patterns.items() if 2 * sum(map(bool, map(found.match, sample))) >= len(sample)
        ]:
            return fitting
    return []


def _respell(text: pl.Series) -> pl.Series:
    for old, new in SPELLINGS:
        text = text.str.replace_all(old, new) if text.str.contains(old).any() else text
    return text
