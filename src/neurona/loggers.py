"""Loggers that write into the run folder itself, so that a resumed run goes on in the same files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

from neurona.run_folder import write_atomically


class TensorBoard(TensorBoardLogger):
    """Event files directly in ``save_dir``: no version folders, no ``hparams.yaml`` (``config.yaml`` holds
    everything).
    """

    def __init__(self, *, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)
        self._test: tuple[Mapping[str, float], int | None] = {}, None

    def forget_after(self, step: int) -> None:
        """Hides what a session that was interrupted wrote beyond the checkpoint from which this one goes on."""
        self._kwargs["purge_step"] = step + 1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """All figures of a step in one event, which takes a fifth of the time of one event each.

        Those of the test wait for the end of the run: one that is interrupted in its test makes them again.
        """
        if any(name.startswith("test/") for name in metrics):
            self._test = metrics, step
        else:
            self._write(metrics, step)

    def _write(self, metrics: Mapping[str, float], step: int | None) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self.experiment._get_file_writer().add_summary(Summary(value=values), step)

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
            self._write(*self._test)
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

    def forget_after(self, step: int) -> None:
        """Drops what a session that was interrupted wrote beyond the checkpoint from which this one goes on."""
        if self.path.exists():
            header, *lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            earlier = [line for line in lines if int(line.partition(",")[0]) <= step]
            kept = [line for line in earlier if not line.startswith(f"{step},test/")]  # the test is made again
            write_atomically(self.path, "".join([header, *kept]))

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


def log_configuration(loggers: Iterable[Logger], folder: Path) -> None:
    """The resolved configuration as text."""
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.experiment.add_text("config", f"```yaml\n{text}\n```")


def log_hyperparameters(
    loggers: Iterable[Logger], cfg: DictConfig, choices: Mapping[str, str], figures: Mapping[str, Any]
) -> None:
    """One row per run, the same columns for all runs of a configuration, with the final figures."""
    params: dict[str, Any] = {name: choices.get(name) for name in ("data", "model", "optimizer", "optimizer/schedule")}
    params |= {"seed": cfg.seed, "max_epochs": cfg.trainer.max_epochs, "precision": cfg.trainer.precision}
    for group in ("data", "model", "optimizer", "classifier"):
        params |= _flat(OmegaConf.to_container(cfg[group], resolve=True), group)
    final = {
        f"hparams/{name}": value
        for name, value in figures.items()
        if name.startswith(("val/", "test/")) and "/accuracy_of/" not in name
    }
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.log_hyperparams(params, final, figures["steps"])
        else:
            logger.log_hyperparams(params)
        logger.finalize("success")


def _flat(node: Any, prefix: str) -> dict[str, Any]:
    """A nested mapping as one of dotted keys, lists as strings: what the HPARAMS tab can show."""
    if not isinstance(node, dict):
        return {prefix: node if isinstance(node, int | float | str) else str(node)}
    flat: dict[str, Any] = {}
    for name, child in node.items():
        if name != "_target_":
            flat |= _flat(child, f"{prefix}.{name}")
    return flat
