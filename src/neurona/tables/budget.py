"""How much of the columns' importance there is time for, and which columns come first where not all can."""

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
        """In words: what there is less of than in the whole, and of how much."""
        counts = [(name, getattr(self, name), getattr(whole, name)) for name in ("columns", "repeats", "rows")]
        return ", ".join(f"{n:,} {name}" if n == of else f"{n:,} of {of:,} {name}" for name, n, of in counts)


def affordable(seconds: float, whole: Extent, seconds_of: Callable[[int], float]) -> Extent:
    """What of the whole takes no longer than so many seconds: fewer repeats, 2 at least, then fewer rows, 1,000 at
    least, then fewer columns. seconds_of: what one shuffle takes among so many rows.

    Rows and columns are cut to one digit that is not 0, so that times that differ a little make no difference.
    """
    repeats = min(whole.repeats, FEWEST_REPEATS)
    shuffles = SHARE * seconds / seconds_of(whole.rows)
    if shuffles >= repeats * whole.columns:
        return whole._replace(repeats=min(whole.repeats, int(shuffles / whole.columns)))
    rows = max(min(whole.rows, FEWEST_ROWS), _rounded(whole.rows * shuffles / (repeats * whole.columns)))
    shuffles = SHARE * seconds / seconds_of(rows)
    return Extent(repeats, rows, min(whole.columns, max(1, _rounded(shuffles / repeats))))


def seconds_each(items: Iterable[object], *, enough: float, clock: Callable[[], float]) -> float:
    """What an item takes on average, but for the first; looks at four at least, and at no more after ``enough``
    seconds.
    """
    times = []
    for _ in items:
        times.append(clock())
        if len(times) >= 4 and times[-1] - times[0] >= enough:
            break
    return max(1e-9, (times[-1] - times[0]) / (len(times) - 1))


def _rounded(number: float) -> int:
    """Down to one digit that is not 0."""
    unit = 10 ** max(0, floor(log10(max(1.0, number))))
    return int(number / unit) * unit


def promise(classifier: Classifier, features: Tensor, targets: Tensor) -> Tensor:
    """What the loss seems to owe to each column of the raw features, (columns,), from one pass forward and backward.

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
