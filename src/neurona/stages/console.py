"""What people see of a run: the opening lines, the closing table, and ``train.log`` with both."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from neurona.classifier import Classifier
from neurona.config.nodes import path_of
from neurona.runs.folder import RunFolder
from neurona.stages import limits

log = logging.getLogger("neurona")

CARD_COLUMNS = 60
"""Columns of a table that its card shows on the console."""


class _Console(logging.StreamHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):  # whoever was reading, such as head, has gone
            super().handleError(record)


def quieten(quiet: bool) -> None:
    """Console output of this project; of the libraries, warnings that call for action only."""
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    if not log.handlers:
        log.addHandler(_Console(sys.stdout))
        log.propagate = False
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.callbacks.model_summary").setLevel(logging.INFO)  # speaks where it is asked to
    for message in (
        "The number of training batches",  # short epochs log once an epoch as well
        "Using ModelCheckpoint with manual optimization",  # the state after the step is the one that is wanted
        "You're resuming from a checkpoint that ended before the epoch ended",  # its loader is begun again
        "It is recommended to use `self.log",  # with sync_dist: every process has the figures of all already
        "The `srun` command is available",  # asked of every run wherever Slurm is installed
        "GPU available but not used",  # trainer=cpu asked for it
        "Be aware that when using `ckpt_path`, callbacks used",  # early stopping can be taken out of a run that goes on
        "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled",  # float32_matmul
        "\nOnline softmax is disabled",  # a remark to the compiler's makers
        "`isinstance(treespec, LeafSpec)` is deprecated",  # Lightning's own use of torch
    ):
        warnings.filterwarnings("ignore", re.escape(message))


@contextlib.contextmanager
def quiet_writers() -> Iterator[None]:
    """Leaves a disk's refusal in TensorBoard's thread to the next event, which raises it where it is explained."""
    before = threading.excepthook
    threading.excepthook = lambda hook: None if isinstance(hook.exc_value, OSError) else before(hook)
    try:
        yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def train_log(folder: RunFolder) -> Iterator[None]:
    """Copies this project's and Lightning's messages into ``train.log``."""
    if not folder.is_written:
        yield
        return
    handler = logging.FileHandler(folder.path / "train.log", encoding="utf-8")
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk stops the run elsewhere
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [log, logging.getLogger("lightning.pytorch")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


def summary(cfg: DictConfig, classifier: Classifier, trainer: Trainer) -> str:
    """What the run is: data, network layer by layer, device."""
    spec = classifier.spec
    lines = [
        f"data     {cfg.data['_target_']}: {spec.num_features} features, {spec.num_classes} classes",
        f"network  {cfg.model['_target_']}: {classifier.num_parameters:,} parameters",
    ]
    for name, module in classifier.network.named_modules():
        if not any(module.children()):
            count = sum(parameter.numel() for parameter in module.parameters())
            layer = str(module).replace(", bias=True", "")[:48]
            lines.append(f"         {name:<14} {layer:<48} {f'{count:>9,}' if count else ''}".rstrip())
    return "\n".join([*lines, f"device   {device(trainer)}"])


def device(trainer: Trainer) -> str:
    """Where a run computes."""
    threads, processes = torch.get_num_threads(), trainer.world_size
    others = f", {processes} processes" * (processes > 1)
    return f"{trainer.strategy.root_device}{others}, {threads} thread{'s' * (threads > 1)}"


def way(classifier: Classifier, trainer: Trainer, datamodule: Any) -> str:
    """Which way steps are taken, and who asked for Lightning's own."""
    if not classifier.automatic_optimization and not classifier.is_fast:
        return f"by hand, in {path_of(type(classifier))}.training_step"
    asked_by = classifier.who_asks(trainer, datamodule)
    return f"one mini-batch at a time: {', '.join(asked_by)}" if asked_by else "in chunks of mini-batches"


def introduce(cfg: DictConfig, classifier: Classifier, trainer: Trainer, datamodule: Any, folder: Path) -> str:
    """The opening lines: what the run is, how its steps are taken, and where. Returns the ``summary``."""
    text = f"{summary(cfg, classifier, trainer)}\nsteps    {way(classifier, trainer, datamodule)}"
    if epoch := limits.shortened(cfg.trainer, datamodule):
        key = "overfit_batches" if cfg.trainer.overfit_batches else "limit_train_batches"
        text += f"\nepochs   each takes {epoch} (trainer.{key})"
    log.info("%s\nfolder   %s", text, folder)
    return text


def show_card(datamodule: Any, folder: RunFolder) -> str:
    """The table that the run learns from, and what seems wrong with it; as ``data_card.*`` in the run's folder too.

    datamodule: with a ``card``, as plain data, and a ``card_text``. Returns what ``data_card.txt`` says.
    """
    warnings = datamodule.card["warnings"]
    log.info("\n%s\n", datamodule.card_text(CARD_COLUMNS))
    for warning in warnings:
        log.warning("%s", warning)
    text = "\n".join([datamodule.card_text(), *warnings])
    folder.write_card(datamodule.card, text)
    return text


def conclude(figures: Mapping[str, Any], folder: Path, ending: str = "", epoch: str = "") -> None:
    """The closing table and lines. ending: why a fit ended, and where it was made. epoch: what one took, if not all."""
    parts = [part for part in ("train", "val", "test") if any(name.startswith(f"{part}/") for name in figures)]
    if parts:
        log.info("\n%-20s%s", "", "".join(f"{part:>12}" for part in parts))
        names = (name.split("/", 1)[1] for name in figures if name.startswith(("train/", "val/", "test/")))
        for name in dict.fromkeys(name for name in names if name != "lr" and not name.startswith("accuracy_of/")):
            values = [figures.get(f"{part}/{name}") for part in parts]
            log.info("%-20s%s", name, "".join(f"{'' if value is None else _short(value):>12}" for value in values))
    for name, value in figures.items():
        if isinstance(value, float) and "/" not in name and name != "seconds":  # of one's own
            log.info("%-20s%12s", name, _short(value))
    if "samples_per_second" in figures:
        made, steps = (
            f"{figures[name]:,} {name[: -1 if figures[name] == 1 else None]}" for name in ("epochs", "steps")
        )
        made += f" of {epoch} each" * bool(epoch) + f", {steps} in {figures['seconds']:.1f} s"
        log.info("\n%s (%s samples/s)%s", made, f"{figures['samples_per_second']:,}", ending)
    log.info("%s", folder)
    if figures["stage"] == "predict":
        log.info("predictions: %s", folder / "predictions.csv")
    if figures["stage"] == "fit":
        if any(folder.glob("events.out.tfevents.*")):
            log.info("tensorboard --logdir %s", folder.parent)
        if problem := _unlearned(figures):
            log.info("%s", problem)
        if "test/accuracy" in figures:
            log.info("test accuracy %.2f %%", 100 * figures["test/accuracy"])


def _unlearned(figures: Mapping[str, Any]) -> str:
    """What to try where the network is no better than one that knows nothing."""
    num_classes = sum(name.startswith("val/accuracy_of/") for name in figures)
    if not num_classes or figures.get("val/loss", 0.0) <= (guessing := math.log(num_classes)):
        return ""
    problem = f"val/loss is above {guessing:.2f}, the loss of equal probabilities for all {num_classes} classes"
    return f"{problem}: little has been learned; try another optimizer.lr (stage=lr_find suggests one)"


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e5 else f"{value:.4g}"
