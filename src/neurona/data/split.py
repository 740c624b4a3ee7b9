"""Which rows train, validate and test: stratified by class, and a function of the targets and one seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neurona.config import ConfigError


@dataclass(frozen=True)
class Split:
    """Row indices of the parts, each ascending, (n,) int64: disjoint, and together every row."""

    train: Tensor
    val: Tensor
    test: Tensor


def split(
    targets: Tensor,
    class_names: tuple[str, ...],
    *,
    num_test: int,
    val_fraction: float,
    test_fraction: float,
    folds: int | None,
    fold: int | None,
    seed: int,
) -> Split:
    """Split the rows of targets (N,) int64.

    The last num_test rows are a published test part and stay it; without one, round(test_fraction * N) rows are drawn.
    Of the pool of n rows (N without the published ones), round(val_fraction * n) validate; or, with folds, the fold-th
    of ``folds`` equal parts of what is not test. Every drawn part has the class shares of what it is drawn from, by
    largest remainders; folds differ by at most one row, in total and in each class. The test part depends on neither.
    Raises ConfigError where a part would be empty or training would miss a class.
    """
    pool = len(targets) - num_test
    shuffled = torch.randperm(pool, generator=torch.Generator().manual_seed(seed))
    rows = shuffled[targets[shuffled].argsort(stable=True)]  # class after class, random within a class

    if num_test:
        test = torch.arange(pool, len(targets))
    else:
        test, rows = _draw(rows, targets, round(test_fraction * pool))
        _refuse_empty(test, "data.test_fraction", test_fraction, pool, "test", "use a larger one")
    if folds is not None:
        if folds > len(rows):
            raise ConfigError("data.folds", folds, f"at most {len(rows)}, the number of rows that are not test")
        in_fold = torch.arange(len(rows)) % folds == fold
        val, train = rows[in_fold], rows[~in_fold]
    else:
        val, train = _draw(rows, targets, round(val_fraction * pool))
        if val_fraction:
            remedy = "use a larger one, or 0 for no validation"
            _refuse_empty(val, "data.val_fraction", val_fraction, pool, "validation", remedy)

    missing = targets[train].bincount(minlength=len(class_names)).eq(0).nonzero()
    if len(missing):
        key, value, remedy = "data.val_fraction", val_fraction, "use a smaller one"
        if folds is not None:
            key, value, remedy = "data.folds", folds, "it needs two rows that are not test"
        elif not num_test and test_fraction > val_fraction:
            key, value = "data.test_fraction", test_fraction
        raise ConfigError(key, value, f"leaves no training row of class {class_names[missing[0]]!r}; {remedy}")
    return Split(train.sort().values, val.sort().values, test.sort().values)


def _draw(rows: Tensor, targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Take ``size`` of the rows, which are grouped by class, in proportion to the classes: the rows taken, the rest."""
    counts = targets[rows].bincount()
    take = counts * size // max(1, len(rows))
    remainders = counts * size % max(1, len(rows))
    take[remainders.argsort(descending=True, stable=True)[: size - int(take.sum())]] += 1
    position_in_class = torch.arange(len(rows)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    taken = position_in_class < take.repeat_interleave(counts)
    return rows[taken], rows[~taken]


def _refuse_empty(rows: Tensor, key: str, value: float, pool: int, part: str, remedy: str) -> None:
    if not len(rows):
        raise ConfigError(key, value, f"leaves none of the {pool} rows for {part}; {remedy}")
