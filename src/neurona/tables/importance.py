"""Which columns of a table the fitted network needs: permutation importance on the validation part."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from neurona.callbacks.progress import followed
from neurona.devices.lightning_internals import logged_step
from neurona.errors import ConfigError, check_range
from neurona.inspection.loggers import boards
from neurona.runs.files import as_csv, replacing, write_atomically
from neurona.tables.budget import Extent, affordable, by_promise, seconds_each
from neurona.tables.schema import Schema, layout

log = logging.getLogger(__name__)

FEWEST_SECONDS = 5.0
MOST_TIMED = 50
"""Shuffles that are timed to tell how long all take."""
BLOCK_ROWS = 4096
MOST_BARS = 30


class Importance(Callback):
    """Writes ``importance.csv`` and ``importance.png`` for a run on a table, once its best network has been tested.

    repeats: shuffles of each column. max_rows: of the validation part, drawn at random. max_columns: those of most
    promise, see ``neurona.tables.budget.promise``; None measures all. seconds: how long it may take, see
    ``neurona.tables.budget.affordable``; "fit": as long as the fit took, 5 at least; None: as long as it takes.
    Raises ConfigError.
    """

    def __init__(
        self,
        *,
        repeats: int = 5,
        max_rows: int = 10_000,
        max_columns: int | None = None,
        seconds: float | Literal["fit"] | None = "fit",
    ) -> None:
        for name, value in (("repeats", repeats), ("max_rows", max_rows), ("max_columns", max_columns)):
            if value is not None and value < 1:
                problem = "must be 1 or more; trainer.callbacks.importance=null leaves it out"
                raise ConfigError(f"trainer.callbacks.importance.{name}", value, problem)
        if seconds != "fit":
            check_range("trainer.callbacks.importance.seconds", seconds, above=0)
        self.repeats, self.max_rows, self.max_columns, self.seconds = repeats, max_rows, max_columns, seconds
        self.clock: Callable[[], float] = time.perf_counter
        self._fit_seconds = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit_seconds = -self.clock()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit_seconds += self.clock()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        schema = getattr(pl_module.spec, "schema", None)
        rows = getattr(data, "val_rows", ())
        if schema is None or not len(rows) or not trainer.is_global_zero:
            return
        columns: dict[str, list[int]] = {}
        for place, name in enumerate(layout(Schema.from_dict(schema)).names):
            columns.setdefault(name, []).append(place)
        generator = torch.Generator().manual_seed(0)
        rows = rows[torch.randperm(len(rows), generator=generator)[: self.max_rows]].to(data.features.device)
        features, targets = (whole[rows].to(pl_module.device) for whole in (data.features, data.targets))
        rises = self._measure(pl_module.eval(), features, targets, columns, generator)
        _write(sorted(rises.items(), key=lambda item: -item[1][:, 0].mean()), trainer)

    def _measure(
        self,
        classifier: Any,
        features: Tensor,
        targets: Tensor,
        columns: Mapping[str, Sequence[int]],
        generator: torch.Generator,
    ) -> Mapping[str, NDArray[np.float64]]:
        """The importance of all columns; where there is not the time for all, of those of most promise, until it is up.
        Tells what was left out.
        """
        started = self.clock()
        whole = Extent(self.repeats, len(features), len(columns))
        request = extent = whole._replace(columns=min(self.max_columns or len(columns), len(columns)))
        seconds = max(self._fit_seconds, FEWEST_SECONDS) if self.seconds == "fit" else self.seconds or math.inf
        if math.isfinite(seconds):
            some = islice(cycle(columns.values()), MOST_TIMED)
            rises = shuffled_rises(classifier, features, targets, some, 1, torch.Generator())
            extent = affordable(seconds, request, seconds_each(rises, enough=seconds / 20, clock=self.clock))
        features, targets = features[: extent.rows], targets[: extent.rows]
        end = math.inf
        if extent != request or self.max_columns is not None:
            names = by_promise(classifier, features[:BLOCK_ROWS], targets[:BLOCK_ROWS], columns)
            columns, end = {name: columns[name] for name in names[: extent.columns]}, started + seconds
        importances = permutation_importance(
            classifier, features, targets, columns, extent.repeats, generator, lambda: self.clock() >= end
        )
        actual = extent._replace(columns=len(importances))
        if actual != request:
            is_fit = self.seconds == "fit" and seconds > FEWEST_SECONDS
            limit = "the fit took" if is_fit else f"{seconds:g} s"
            remedy = "trainer.callbacks.importance.seconds=null measures all"
            log.info("importance is measured on %s, to take no longer than %s; %s", actual.beside(whole), limit, remedy)
        return importances


def permutation_importance(
    classifier: nn.Module,
    features: Tensor,
    targets: Tensor,
    columns: Mapping[str, Sequence[int]],
    repeats: int,
    generator: torch.Generator,
    is_over: Callable[[], bool] = lambda: False,
) -> dict[str, NDArray[np.float64]]:
    """How much the loss rises and the accuracy falls when a column's values are shuffled: (repeats, 2) for each name.

    columns: positions in the features, shuffled together, by name. is_over: asked after each column whether to stop.

    Source: Breiman 2001, "Random Forests", section 10; as scikit-learn's permutation_importance with the scorings
    neg_log_loss and accuracy.
    """
    rises = np.empty((len(columns), repeats, 2))  # small pieces among freed blocks would keep memory from the system
    one_by_one = shuffled_rises(classifier, features, targets, columns.values(), repeats, generator)
    count = 0
    for of_column in followed(one_by_one, len(columns), "importance", "column"):
        rises[count] = of_column
        count += 1
        if is_over():
            break
    return dict(zip(columns, rises[:count], strict=False))


@torch.inference_mode()
def shuffled_rises(
    classifier: nn.Module,
    features: Tensor,
    targets: Tensor,
    columns: Iterable[Sequence[int]],
    repeats: int,
    generator: torch.Generator,
) -> Iterator[NDArray[np.float64]]:
    """The figures of ``permutation_importance``, column by column."""

    def figures() -> NDArray[np.float64]:
        logits = torch.cat([classifier(block) for block in shuffled.split(BLOCK_ROWS)]).double()
        correct = (logits.argmax(1) == targets).double().mean()
        return np.array([cross_entropy(logits, targets).item(), -correct.item()])

    shuffled = features.clone()
    before = figures()
    for places in columns:
        differences = []
        for _ in range(repeats):
            order = torch.randperm(len(features), generator=generator).to(features.device)
            for place in places:
                shuffled[:, place] = features[order, place]
            differences.append(figures() - before)
        for place in places:
            shuffled[:, place] = features[:, place]
        yield np.stack(differences)


def _write(ranked: Sequence[tuple[str, NDArray[np.float64]]], trainer: Trainer) -> None:
    """Files and picture. ranked: the columns, the most important first, with their figures, (repeats, 2)."""
    rows = [["column", "loss", "loss_std", "accuracy", "accuracy_std"]]
    for name, losses in ranked:
        pairs = zip(losses.mean(0), losses.std(0), strict=True)
        rows.append([name, *(f"{x:.6f}" for pair in pairs for x in pair)])
    folder = Path(trainer.default_root_dir)
    write_atomically(folder / "importance.csv", as_csv(rows))
    figure = bars([(name, losses[:, 0]) for name, losses in ranked])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks shows as boxes
        with replacing(folder / "importance.png") as file:
            figure.savefig(file, format="png", dpi=120)
        for board in boards(trainer.loggers):
            board.experiment.add_figure("importance", figure, logged_step(trainer))


def bars(ranked: Sequence[tuple[str, NDArray[np.float64]]]) -> Any:
    """The figure: a bar for each column, the most important at the top, with the standard deviation of the repeats."""
    from matplotlib.figure import Figure

    shown = ranked[:MOST_BARS][::-1]
    figure = Figure(figsize=(8, 1.2 + 0.28 * len(shown)), layout="constrained")
    axes = figure.subplots()
    means, stds = [x.mean() for _, x in shown], [x.std() for _, x in shown]
    axes.barh([name.replace("$", r"\$") for name, _ in shown], means, xerr=stds)
    axes.set_xlabel("rise of the validation loss when the column is shuffled")
    return figure
