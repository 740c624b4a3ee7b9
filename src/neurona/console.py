"""What people see of a run: the opening lines, the closing table, and ``train.log`` with both."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from neurona.classifier import Classifier
from neurona.run_folder import RunFolder

log = logging.getLogger("neurona")

FIGURES = ("loss", "accuracy", "balanced_accuracy", "macro_f1", "auroc", "calibration_error")


def quieten(quiet: bool) -> None:
    """Console output of this project; of the libraries, warnings that call for action only."""
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stdout))
        log.propagate = False
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for message in (
        "The number of training batches",  # short epochs log once an epoch as well
        "Using ModelCheckpoint with manual optimization",  # the state after the step is the one that is wanted
        "It is recommended to use `self.log",  # with sync_dist: every process has the figures of all already
        "GPU available but not used",  # trainer=cpu asked for it
        "Be aware that when using `ckpt_path`, callbacks used",  # early stopping can be taken out of a run that goes on
        "`isinstance(treespec, LeafSpec)` is deprecated",  # Lightning's own use of torch
    ):
        warnings.filterwarnings("ignore", re.escape(message))


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


def introduce(cfg: DictConfig, classifier: Classifier, trainer: Trainer, folder: Path) -> None:
    """What the run is: data, network layer by layer, device, folder."""
    spec = classifier.spec
    log.info("data     %s: %d features, %d classes", cfg.data._target_, spec.num_features, spec.num_classes)
    log.info("network  %s: %s parameters", cfg.model._target_, f"{classifier.num_parameters:,}")
    for name, module in classifier.network.named_modules():
        if not any(module.children()):
            count = sum(parameter.numel() for parameter in module.parameters())
            log.info("         %-14s %-48s %s", name, str(module)[:48], f"{count:>9,}" if count else "")
    log.info("device   %s, %d threads", trainer.strategy.root_device, torch.get_num_threads())
    log.info("folder   %s", folder)


def conclude(figures: Mapping[str, Any], folder: Path) -> None:
    """The closing table."""
    parts = [part for part in ("train", "val", "test") if f"{part}/loss" in figures]
    if parts:
        log.info("\n%-20s%s", "", "".join(f"{part:>12}" for part in parts))
        for name in FIGURES:
            values = [figures.get(f"{part}/{name}") for part in parts]
            log.info("%-20s%s", name, "".join(f"{'':>12}" if value is None else f"{value:>12.4f}" for value in values))
    if "samples_per_second" in figures:
        log.info("\n%.1f s, %s samples/s", figures["seconds"], f"{figures['samples_per_second']:,}")
    log.info("%s", folder)
    if figures["stage"] == "predict":
        log.info("predictions: %s", folder / "predictions.csv")
    if figures["stage"] == "fit":
        log.info("tensorboard --logdir %s", folder.parent)
        log.info("test accuracy %.2f %%", 100 * figures["test/accuracy"])
