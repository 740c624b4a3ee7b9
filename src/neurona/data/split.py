"""Which rows train, validate and test: stratified by class (or whole groups, or by time), decided by one seed alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from neurona.errors import ConfigError


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
    num_val: int = 0,
    groups: Tensor | None = None,
    order: Tensor | None = None,
) -> Split:
    """Split the rows of targets (N,) int64.

    The last num_test rows are a published test part and stay it; without one, round(test_fraction * N) rows are drawn.
    Likewise the num_val rows before them are a published validation part. Of the pool of n rows (N without the
    published ones), round(val_fraction * n) validate; or, with folds, the fold-th of ``folds`` equal parts of what is
    not test. Every drawn part has the class shares of what it is drawn from, by largest remainders; folds differ by at
    most one row, in total and in each class. The test part depends on neither.

    groups: (N,) int64, the group of each row. Drawn parts are then whole groups, in random order, as many as come
    nearest to the size, and folds differ by a group's size. order: (N,) float64, such as a time. Drawn parts are then
    the last rows in this order, the test part after the validation part. Neither is stratified.

    Raises ConfigError where a part would be empty though its fraction is not 0, or training would miss a class.
    """
    pool = len(targets) - num_test - num_val
    rows, draw = _in_order(targets, pool, seed, groups, order)
    if num_test:
        test = torch.arange(pool + num_val, len(targets))
    else:
        test, rows = draw(rows, size=round(test_fraction * pool))
        _refuse_empty(test, "data.test_fraction", test_fraction, pool, "test", "use a larger one, or 0 for no test")
    if num_val:
        val, train = torch.arange(pool, pool + num_val), rows
    elif folds is not None and fold is not None:
        val, train = _draw_fold(rows, folds, fold, groups)
        _refuse_empty(val, "data.folds", folds, pool, f"fold {fold}", "use fewer")
    else:
        val, train = draw(rows, size=round(val_fraction * pool))
        remedy = "use a larger one, or 0 for no validation"
        _refuse_empty(val, "data.val_fraction", val_fraction, pool, "validation", remedy)

    blamed = _cause_of_missing(folds, val_fraction, test_fraction, draws_val=not num_val, draws_test=not num_test)
    if len(train) < len(targets):  # else it is the data that miss it
        _refuse_missing_class(targets[train], class_names, *blamed)
    return Split(train.sort().values, val.sort().values, test.sort().values)


def _in_order(
    targets: Tensor, pool: int, seed: int, groups: Tensor | None, order: Tensor | None
) -> tuple[Tensor, Callable[..., tuple[Tensor, Tensor]]]:
    """The rows of the pool in the order in which parts are drawn, and what draws one: (rows, size) → the part, the
    rest.
    """
    shuffled = torch.randperm(pool, generator=torch.Generator().manual_seed(seed))
    if groups is not None:
        return _by_group(shuffled, groups), partial(_draw_groups, groups=groups)
    if order is not None:
        return order[:pool].argsort(stable=True), _draw_last
    # class after class, random within a class
    return shuffled[targets[shuffled].argsort(stable=True)], partial(_draw, targets=targets)


def _draw_fold(rows: Tensor, folds: int, fold: int, groups: Tensor | None) -> tuple[Tensor, Tensor]:
    if folds > len(rows):
        raise ConfigError("data.folds", folds, f"at most {len(rows)}, the number of rows that are not test")
    if groups is None:
        in_fold = torch.arange(len(rows)) % folds == fold
    else:
        in_fold = _middles(rows, groups) * folds // len(rows) == fold
    return rows[in_fold], rows[~in_fold]


def _draw_last(rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return rows[len(rows) - size :], rows[: len(rows) - size]


def _by_group(shuffled: Tensor, groups: Tensor) -> Tensor:
    """The rows group after group, the groups in the order in which the shuffled rows first meet them."""
    _, ids = groups[shuffled].unique(return_inverse=True)
    first = torch.full((int(ids.max()) + 1,), len(ids)).scatter_reduce(0, ids, torch.arange(len(ids)), "amin")
    return shuffled[first[ids].argsort(stable=True)]


def _draw_groups(rows: Tensor, groups: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Take the first groups of the rows, which are grouped, until their number is as near to ``size`` as can be."""
    _, counts = groups[rows].unique_consecutive(return_counts=True)
    ends = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    count = int(ends[(ends - size).abs().argmin()])
    return rows[:count], rows[count:]


def _middles(rows: Tensor, groups: Tensor) -> Tensor:
    """For each of the rows, which are grouped, the position of the middle of its group."""
    _, counts = groups[rows].unique_consecutive(return_counts=True)
    return (counts.cumsum(0) - (counts + 1) // 2).repeat_interleave(counts)


def _draw(rows: Tensor, targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Take ``size`` of the rows, which are grouped by class, in proportion to the classes: the rows taken, the rest."""
    counts = targets[rows].bincount()
    take = counts * size // max(1, len(rows))
    remainders = counts * size % max(1, len(rows))
    take[remainders.argsort(descending=True, stable=True)[: size - int(take.sum())]] += 1
    position_in_class = torch.arange(len(rows)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    is_drawn = position_in_class < take.repeat_interleave(counts)
    return rows[is_drawn], rows[~is_drawn]


def _refuse_empty(rows: Tensor, key: str, value: float, pool: int, part: str, remedy: str) -> None:
    if value and not len(rows):
        raise ConfigError(key, value, f"leaves none of the {pool} rows for {part}; {remedy}")


def _refuse_missing_class(targets: Tensor, class_names: tuple[str, ...], key: str, value: float, remedy: str) -> None:
    """targets: of the training rows."""
    missing = targets.bincount(minlength=len(class_names)).eq(0).nonzero()
    if len(missing):
        raise ConfigError(key, value, f"leaves no training row of class {class_names[missing[0]]!r}; {remedy}")


def _cause_of_missing(
    folds: int | None, val_fraction: float, test_fraction: float, *, draws_val: bool, draws_test: bool
) -> tuple[str, float, str]:
    """Where training misses a class: the key and the value that have taken its rows, and the remedy."""
    if folds is not None:
        return "data.folds", folds, "it needs two rows that are not test"
    if draws_test and (not draws_val or test_fraction > val_fraction):
        return "data.test_fraction", test_fraction, "use a smaller one"
    return "data.val_fraction", val_fraction, "use a smaller one"
