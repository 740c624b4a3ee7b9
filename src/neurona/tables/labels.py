"""The column to predict: its values as class names, and the reasons to refuse it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from neurona.config.overrides import in_shell
from neurona.errors import ConfigError, DataError, did_you_mean
from neurona.tables.schema import Rules
from neurona.tables.values import WHOLE, words

MOST_FRACTIONS = 20
MOST_CLASSES = 100
REGRESSION = ": probably regression, and this is for classes; make bins of them, such as low and high"
OR_NAMES = "; where they are names, write them as text, such as c17"


@dataclass(frozen=True)
class Labels:
    """How class labels are read from the column ``target``. respelling: signs to strip off their ends, or a mapping of
    labels to class names. Raises ConfigError for letters and digits to strip, which would make other words of labels.
    """

    target: str
    rules: Rules
    respelling: str | dict[str, str | int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.respelling, str) and any(map(str.isalnum, self.respelling)):
            problem = "would strip these letters or digits off the ends of labels; give signs alone, as data.labels=."
            raise ConfigError("data.labels", self.respelling, f'{problem}, or names, as "data.labels={{old: new}}"')

    def read(self, table: pl.DataFrame) -> pl.Series:
        """The labels as text, null where missing."""
        labels = words(table[self.target], self.rules)
        if isinstance(self.respelling, str):
            return labels.str.strip_chars(self.respelling)
        if self.respelling is not None:
            return labels.replace({label: _text(self.respelling[key]) for key, label in self._meant(labels)})
        return labels

    def _meant(self, labels: pl.Series) -> list[tuple[Any, str]]:
        """The keys of the mapping, each beside every label that it means: true and false those in any case, as Hydra
        makes the same of ``True`` and ``true``.
        """
        known = labels.drop_nulls().unique().sort().to_list()
        pairs = [(key, label) for key in self.respelling or () for label in known]
        return [
            (key, label)
            for key, label in pairs
            if (label.lower() if isinstance(key, bool) else label) == re.sub(WHOLE, r"\1", _text(key))
        ]

    def require_used(self, table: pl.DataFrame) -> None:
        """Raises ConfigError for a key of the mapping that means no label."""
        if not isinstance(self.respelling, dict):
            return
        labels = words(table[self.target], self.rules)
        for key in self.respelling.keys() - {key for key, _ in self._meant(labels)}:
            known = labels.drop_nulls().unique().sort().to_list()
            hint = did_you_mean(_text(key), known) or f"; there are {', '.join(known[:10])}"
            raise ConfigError("data.labels", _text(key), f"is no label in column {self.target!r}{hint}")

    def class_names(self, labels: pl.Series, path: str) -> tuple[str, ...]:
        """The classes, sorted, as numbers if all are numbers. Raises DataError if there are fewer than two."""
        names = labels.drop_nulls().unique().sort().to_list()
        if len(names) < 2:
            content = f"only one class, {names[0]!r}" if names else "no label"
            if num_missing := labels.null_count():
                content += f" (rows whose label is missing, by data.missing: {num_missing})"
            raise DataError(path, f"column {self.target!r} has {content}; data.target names the one to predict")
        figures = pl.Series(names).cast(pl.Float64, strict=False)
        is_text = figures.is_nan().any() or figures.is_null().any()
        if not is_text and (figures % 1 != 0).any() and len(names) > MOST_FRACTIONS:
            problem = f"column {self.target!r} has {len(names)} values such as {names[len(names) // 2]}"
            raise DataError(path, problem + REGRESSION)
        most = len(labels) // 2 if is_text else min(max(MOST_CLASSES, len(labels) // 10), len(labels) // 2)
        if len(names) > most:
            problem = f"column {self.target!r} has {len(names)} classes in {len(labels)} rows"
            raise DataError(path, problem + ("; is it the column to predict?" if is_text else REGRESSION + OR_NAMES))
        return tuple(names if is_text else (name for _, name in sorted(zip(figures, names, strict=True))))

    def check(self, labels: pl.Series, class_names: tuple[str, ...], path: str) -> None:
        """Raises DataError naming the labels that are not among the classes."""
        unknown = labels.filter(labels.is_not_null() & ~labels.is_in(list(class_names))).unique().sort().to_list()
        if not unknown:
            return
        remedy = "data.labels maps labels to the names of classes"
        for mark in {word[-1] for word in unknown} - {name[-1] for name in class_names}:
            if not mark.isalnum() and {word.strip(mark) for word in unknown} <= set(class_names):
                remedy = f"{in_shell('data.labels', mark)} strips what makes the difference"
        others = ", ".join(map(repr, unknown[:5])) + " …" * (len(unknown) > 5)
        classes = ", ".join(map(repr, class_names[:10])) + " …" * (len(class_names) > 10)
        raise DataError(path, f"labels {others} in column {self.target!r}, where training has {classes}; {remedy}")


def _text(value: object) -> str:
    """As it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def codes(labels: pl.Series, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    """The index of each label in class_names, -1 where there is no label."""
    indices = labels.cast(pl.Enum(class_names), strict=False).to_physical().cast(pl.Int64)
    return indices.fill_null(-1).to_numpy(writable=True)
