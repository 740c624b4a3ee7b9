"""Which columns of a table the fitted network needs: permutation importance on the validation part."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from neurona.devices.lightning_internals import logged_step
from neurona.errors import ConfigError
from neurona.inspection.loggers import TensorBoard
from neurona.runs.files import replacing, write_atomically
from neurona.tables.schema import Schema, layout

BLOCK_ROWS = 4096
MOST_BARS = 30


class Importance(Callback):
    """Writes ``importance.csv`` and ``importance.png`` for a run on a table, once its best network has been tested.

    repeats: shuffles of each column. max_rows: of the validation part, drawn at random. Raises ConfigError.
    """

    def __init__(self, *, repeats: int = 5, max_rows: int = 10_000) -> None:
        for name, value in (("repeats", repeats), ("max_rows", max_rows)):
            if value < 1:
                problem = "must be 1 or more; trainer.callbacks.importance=null leaves it out"
                raise ConfigError(f"trainer.callbacks.importance.{name}", value, problem)
        self.repeats, self.max_rows = repeats, max_rows

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        schema = getattr(pl_module.spec, "schema", None)
        rows = getattr(data, "val_rows", ())
        if schema is None or not len(rows) or not trainer.is_global_zero:
            return
        names = layout(Schema.from_dict(schema)).names
        columns = {name: [i for i, other in enumerate(names) if other == name] for name in names}
        generator = torch.Generator().manual_seed(0)
        rows = rows[torch.randperm(len(rows), generator=generator)[: self.max_rows]].to(data.features.device)
        features, targets = (whole[rows].to(pl_module.device) for whole in (data.features, data.targets))
        rises = permutation_importance(pl_module.eval(), features, targets, columns, self.repeats, generator)
        ranked = sorted(rises.items(), key=lambda item: -item[1][:, 0].mean())
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["column", "loss", "loss_std", "accuracy", "accuracy_std"])
        for name, losses in ranked:
            pairs = zip(losses.mean(0), losses.std(0), strict=True)
            writer.writerow([name, *(f"{x:.6f}" for pair in pairs for x in pair)])
        folder = Path(trainer.default_root_dir)
        write_atomically(folder / "importance.csv", text.getvalue())
        figure = bars([(name, losses[:, 0]) for name, losses in ranked])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks shows as boxes
            with replacing(folder / "importance.png") as file:
                figure.savefig(file, format="png", dpi=120)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoard):
                    logger.experiment.add_figure("importance", figure, logged_step(trainer))


@torch.inference_mode()
def permutation_importance(
    classifier: nn.Module,
    features: Tensor,
    targets: Tensor,
    columns: Mapping[str, Sequence[int]],
    repeats: int,
    generator: torch.Generator,
) -> dict[str, NDArray[np.float64]]:
    """By how much the loss rises and the accuracy falls when a column's values are shuffled among the rows, for each
    name of columns (positions in the features that are shuffled together): (repeats, 2).

    Source: Breiman 2001, "Random Forests", section 10; as scikit-learn's permutation_importance with the scorings
    neg_log_loss and accuracy.
    """

    def figures() -> NDArray[np.float64]:
        logits = torch.cat([classifier(block) for block in shuffled.split(BLOCK_ROWS)]).double()
        correct = (logits.argmax(1) == targets).double().mean()
        return np.array([cross_entropy(logits, targets).item(), -correct.item()])

    shuffled = features.clone()
    before = figures()
    rises = {}
    for name, places in columns.items():
        differences = []
        for _ in range(repeats):
            order = torch.randperm(len(features), generator=generator).to(features.device)
            for place in places:
                shuffled[:, place] = features[order, place]
            differences.append(figures() - before)
        for place in places:
            shuffled[:, place] = features[:, place]
        rises[name] = np.stack(differences)
    return rises


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
