"""Loggers that write into the run folder itself, so that a resumed run goes on in the same files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class TensorBoard(TensorBoardLogger):
    """Event files directly in ``save_dir``: no version folders, no ``hparams.yaml`` (``config.yaml`` holds
    everything).
    """

    def __init__(self, *, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def forget_after(self, step: int) -> None:
        """Hides what a session that was interrupted wrote beyond the checkpoint from which this one goes on."""
        self._kwargs["purge_step"] = step + 1

    @rank_zero_only
    def save(self) -> None:
        """Writes the events gathered so far."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keeps the file open: the test and the HPARAMS row follow the fit in the same one."""
        self.save()

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: dict[str, Any] | None = None, step: int | None = None) -> None:
        """The run's row in the HPARAMS tab: only together with its metrics, as a row without figures says nothing."""
        if metrics:
            super().log_hyperparams(params, metrics, step)


class Csv(Logger):
    """``metrics.csv`` in ``save_dir``: one line ``step,metric,value`` per figure, appended."""

    def __init__(self, *, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._lines: list[tuple[Any, ...]] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keeps the figures until the next ``save``."""
        self._lines += [(step, name, value) for name, value in metrics.items()]

    @rank_zero_only
    def save(self) -> None:
        """Appends what was gathered."""
        header = [] if self.path.exists() else [("step", "metric", "value")]
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([*header, *self._lines])
        self._lines = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
