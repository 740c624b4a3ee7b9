"""How much of the columns' importance can be measured in a given time, and which columns come first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import floor, log10
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from neurona.classifier import Classifier
from neurona.tables.encoding import Encoding

FEWEST_REPEATS = 2  # which still have a spread
FEWEST_ROWS = 1000
SHARE = 0.8
"""Of the time, what is planned for: a few shuffles are measured, and the others take more or less."""


class Extent(NamedTuple):
    """How many shuffles of each column, among how many rows, of how many columns."""

    repeats: int
    rows: int
    columns: int

    def beside(self, whole: Extent) -> str:
        """In words, such as "2 of 5 repeats": what there is less of than in the whole."""
        counts = [(name, getattr(self, name), getattr(whole, name)) for name in ("columns", "repeats", "rows")]
        return ", ".join(f"{n:,} {name}" if n == of else f"{n:,} of {of:,} {name}" for name, n, of in counts)


def affordable(seconds: float, whole: Extent, each: float) -> Extent:
    """The part of the whole that takes no longer than so many seconds: fewer repeats, but at least 2, then fewer rows,
    but at least 1,000, then fewer columns. each: seconds of one shuffle of all rows.

    The number of rows is rounded down to two digits, so that it does not depend on small differences in time.
    """
    repeats = min(whole.repeats, FEWEST_REPEATS)
    shuffles = SHARE * seconds / each
    if shuffles >= repeats * whole.columns:
        return whole._replace(repeats=min(whole.repeats, int(shuffles / whole.columns)))
    rows = whole.rows * shuffles / (repeats * whole.columns)
    unit = 10 ** max(0, floor(log10(max(1.0, rows))) - 1)
    return whole._replace(repeats=repeats, rows=max(min(whole.rows, FEWEST_ROWS), int(rows / unit) * unit))


def seconds_each(items: Iterable[object], *, enough: float, clock: Callable[[], float]) -> float:
    """The mean time of an item without the first. Takes at least four items, and no more after ``enough`` seconds."""
    times = []
    for _ in items:
        times.append(clock())
        if len(times) >= 4 and times[-1] - times[0] >= enough:
            break
    return max(1e-9, (times[-1] - times[0]) / (len(times) - 1))


def promise(classifier: Classifier, features: Tensor, targets: Tensor) -> Tensor:
    """An estimate of how much the loss depends on each raw column, (columns,), from one forward and backward pass.

    The mean over the rows of |∂loss/∂e (e - mean e)|, summed over the numbers e that the encoding makes of the column;
    infinite for ids that are embedded, which have no gradient. Source: gradient times input (Shrikumar et al. 2016,
    arXiv:1605.01713), here with the mean as the input that says nothing.
    """
    encoding = classifier.preprocessing
    assert isinstance(encoding, Encoding)
    with torch.inference_mode(False), torch.enable_grad():
        encoded = encoding(features.clone()).detach().requires_grad_()
        loss = cross_entropy(classifier.network(encoded), targets.clone(), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, encoded)
    owed = (gradient * (encoded - encoded.mean(0))).abs().mean(0).detach()
    promises = owed.new_zeros(features.shape[1]).index_add(0, encoding.sources, owed)
    return promises.index_fill(0, encoding.id_columns, torch.inf)


def by_promise(
    classifier: Classifier, features: Tensor, targets: Tensor, columns: Mapping[str, Sequence[int]]
) -> list[str]:
    """The names of columns, those of most promise first; columns: their places in the features."""
    promises = promise(classifier, features, targets).tolist()
    return sorted(columns, key=lambda name: -sum(promises[place] for place in columns[name]))
