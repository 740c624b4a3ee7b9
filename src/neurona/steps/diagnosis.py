"""Why a loss is NaN or infinite: first the data are examined, then the precision; else the learning rate is named."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from neurona.data.batches import BatchLoader
from neurona.errors import HopelessRun

REMEDIES = "a lower optimizer.lr, optimizer.clip_norm=1 or data on another scale are the usual remedies"

ROWS = 2**16
"""Of a data set that are looked at together."""

SECONDS = 10.0
"""How long loaders of one's own are asked for mini-batches to look at."""

Numbered = Iterable[tuple[int, Any]]
"""Mini-batches with their numbers in the epoch."""


class NonFiniteLoss(HopelessRun):
    """The training loss, or that of a validation or test, became NaN or infinite."""


class NonFiniteData(NonFiniteLoss):
    """The loss is not finite because a feature is not."""


def require_finite(loss: float, step: int, classifier: Any, seen: Numbered = ()) -> None:
    """Raises NonFiniteLoss if the loss of a training step is not finite. seen: the mini-batches that may be the cause,
    if the loader is the user's own.
    """
    if not math.isfinite(loss):
        trainer = classifier.trainer
        what = f"the training loss became {loss} at optimiser step {step} (epoch {trainer.current_epoch})"
        loader = trainer.train_dataloader
        raise _failure(what, classifier, _in_data(classifier, loader if isinstance(loader, BatchLoader) else seen))


def require_finite_evaluation(loss: float, part: str, classifier: Any) -> None:
    """Raises NonFiniteLoss if the loss of a validation or a test is not finite. part: val or test."""
    if not math.isfinite(loss):
        loaders = getattr(classifier.trainer, f"{part}_dataloaders")
        place = ""
        for loader in loaders if isinstance(loaders, list | tuple) else [loaders]:
            place = place or _in_data(classifier, loader if isinstance(loader, BatchLoader) else _numbered(loader))
        raise _failure(f"{part}/loss is {loss}", classifier, place)


def _failure(what: str, classifier: Any, place: str) -> NonFiniteLoss:
    """place: where in the data the cause is, in words, if it is there."""
    if place:
        return NonFiniteData(f"{what}; {place}")
    return NonFiniteLoss(f"{what}; {of_precision(str(classifier.trainer.precision), classifier.trainer.optimizers)}")


def of_precision(precision: str, optimizers: Iterable[torch.optim.Optimizer]) -> str:
    """How half precision may be the cause, and the remedies."""
    if not precision.startswith("16-"):
        return REMEDIES
    wider = f"trainer.precision=bf16-{precision.removeprefix('16-')}"
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            epsilon = group.get("eps")
            if precision == "16-true" and isinstance(epsilon, float) and epsilon and not torch.tensor(epsilon).half():
                name = type(optimizer).__name__
                return (
                    "in half precision (trainer.precision=16-true) the squares of small gradients are 0, and"
                    f" optimizer.eps={epsilon:g}, all that {name} then divides by, is too small: use {wider} or"
                    " bf16-mixed, or optimizer.eps=1e-4"
                )
    return f"half precision (trainer.precision={precision}) ends at 65504, {wider} does not; else {REMEDIES}"


def _in_data(classifier: Any, loader: BatchLoader | Numbered) -> str:
    """The place of a NaN or an infinity in the data, in words; nothing if there is none or it cannot be found."""
    try:
        if isinstance(loader, BatchLoader):
            for rows in loader.rows.split(ROWS):
                if place := _first(classifier, loader.features[rows.to(loader.features.device)]):
                    return _words(f"row {int(rows[place[0]])} of the data set", *place[1:])
            return ""
        for number, batch in loader:
            features = batch[0] if isinstance(batch, list | tuple) and batch else batch
            if isinstance(features, Tensor) and (place := _first(classifier, features)):
                return _words(f"row {place[0]} of mini-batch {number}", *place[1:])
    except Exception:  # a loader or a preprocessing of one's own has trouble of its own
        return ""
    return ""


def _numbered(loader: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    deadline = time.monotonic() + SECONDS
    for number, batch in enumerate(loader):
        yield number, batch
        if time.monotonic() > deadline:
            return


def _first(classifier: Any, features: Tensor) -> tuple[int, int, float] | None:
    """Row, column and value of the first number that is not finite and that the preprocessing does not replace."""
    if not features.is_floating_point():
        return None
    is_bad = ~features.isfinite().flatten(1)
    rows = is_bad.any(dim=1).nonzero().flatten()
    with torch.inference_mode():
        prepared = classifier.preprocessing(features[rows].to(classifier.device))
    rows = rows[(~prepared.isfinite()).flatten(1).any(dim=1).to(rows.device)]
    if not len(rows):
        return None
    row = int(rows[0])
    column = int(is_bad[row].nonzero()[0])
    return row, column, features[row].flatten()[column].item()


def _words(where: str, column: int, value: float) -> str:
    return f"{where} has {value} in column {column} (both counted from 0): leave the row out, or fill the value in"
