"""Continues an existing run: from which checkpoint, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf

from neurona.callbacks.early_stopping import EarlyStopping
from neurona.classifier import Classifier
from neurona.config.overrides import in_shell
from neurona.errors import ConfigError
from neurona.runs import checkpoint
from neurona.runs.files import link
from neurona.runs.folder import PREVIOUS, RunFolder
from neurona.steps.training import RULES

log = logging.getLogger(__name__)

LIMITS = ("max_epochs", "max_steps", "max_time")
PATIENCE = "callbacks.early_stopping.patience"
FIXED = (
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
    *(f"callbacks.{name}.{key}" for name in ("checkpoints", "early_stopping") for key in ("monitor", "mode")),
)
"""Settings of the trainer that decide what a run's figures mean, or which of its states is the best."""


def last_checkpoint(folder: RunFolder) -> Path | None:
    """The checkpoint from which a run continues; None if there is none yet. Raises ConfigError if it is lost."""
    last, best = folder.last_checkpoint, folder.path / "checkpoints" / "best.ckpt"
    if last.is_file() or last.with_name(PREVIOUS).is_file():
        return last
    # A best one of the first epoch can be older than the first last one.
    if folder.metrics().get("status") == "finished" or (best.is_file() and checkpoint.read(best)["epoch"] > 0):
        problem = (
            "has no checkpoints/last.ckpt (a finished job of a sweep keeps its best only, unless"
            " trainer.callbacks.checkpoints.keep_last=true); bring it back, or start a new run with"
            f" {in_shell('init_from', folder.path)}"
        )
        raise ConfigError("run", folder.path, problem)
    return None


def changes(now: DictConfig, folder: RunFolder) -> list[str] | None:
    """The limits of the fit that are other than the run had before; None if it is finished, and stays so.

    now: the node ``trainer``. Raises ConfigError where a setting that is fixed has changed.
    """
    before, figures = folder.settings().trainer, folder.metrics()
    instead = f"give {in_shell('init_from', folder.path)} instead of run="
    for key in FIXED:
        value, former = OmegaConf.select(now, key), OmegaConf.select(before, key)
        if value != former or (value and type(value) is not type(former)):  # 1 is a mini-batch, 1.0 all of them
            problem = f"was {former} when the run began and stays so; for a new run from its weights {instead}"
            raise ConfigError(f"trainer.{key}", value, problem)
    limits = [key for key in (*LIMITS, PATIENCE) if OmegaConf.select(before, key) != OmegaConf.select(now, key)]
    if figures.get("status") == "finished" and not limits:
        more = PATIENCE if figures.get("stopped_by") == "early_stopping" else "max_epochs"
        log.info("%s is finished; to train on, give it more: trainer.%s=…", folder.path, more)
        return None
    return limits


def start(
    last: Path,
    limits: Sequence[str],
    folder: RunFolder,
    trainer: Trainer,
    classifier: Classifier,
    datamodule: LightningDataModule,
) -> int:
    """The optimiser steps that the checkpoint to go on from has made, once it is seen to fit the run.

    last: as ``last_checkpoint`` names it; the one before takes its place where it is damaged. limits: as ``changes``
    tells. Raises ConfigError for a limit that has been reached, or that the learning-rate schedule depends on, for
    other data or another network, and where both checkpoints are damaged.
    """
    lengths = [name for name in limits if name in LIMITS]
    if lengths and classifier.optimization.schedule.needs_length:
        problem = "the run's learning-rate schedule was laid out for its length; start a new run with"
        raise ConfigError(
            f"trainer.{lengths[0]}", getattr(trainer, lengths[0], ""), f"{problem} {in_shell('init_from', folder.path)}"
        )
    path, contents = require_same(last, classifier, datamodule)
    if limits:
        _check_room(trainer, contents, lengths)
    _warn(contents, folder, trainer)
    try:
        if not is_overridden("on_load_checkpoint", classifier):  # which may change what is loaded
            classifier.load_state_dict(contents["state_dict"], strict=classifier.strict_loading)
    except Exception:
        raise ConfigError("checkpoint", path, "its weights do not fit the run's network; it is damaged") from None
    log.info("going on after %d epochs, %d steps", checkpoint.epochs(contents), contents["global_step"])
    if folder.is_written:
        link(path, last)  # a damaged one is not to become the previous
    return contents["global_step"]


def require_same(last: Path, classifier: Classifier, datamodule: LightningDataModule) -> tuple[Path, dict[str, Any]]:
    """The checkpoint to go on from: which, and its contents. Raises ConfigError for other data or another network."""
    path, contents = checkpoint.read_last(last)
    fingerprint = getattr(datamodule, "fingerprint", None)
    checkpoint.check_same(contents, last.parents[1], classifier.model_config, classifier.embedding_config, fingerprint)
    return path, contents


def _warn(contents: Mapping[str, Any], folder: RunFolder, trainer: Trainer) -> None:
    """Tells of what gives other bits than the run would have had, and is nobody's mistake."""
    now = {"torch": torch.__version__, "devices": trainer.world_size, "rules of steps": RULES}
    before = {
        "torch": folder.begun_with("versions", "torch") or now["torch"],
        "devices": len(contents["neurona"]["rng"]),
        "rules of steps": contents["neurona"].get("rules", 0),
    }
    for name, value in now.items():
        if before[name] != value:
            log.warning(
                "%s: %s when the run began or was last stopped, %s now; bits may differ", name, before[name], value
            )


def _check_room(trainer: Trainer, contents: Mapping[str, Any], lengths: Sequence[str]) -> None:
    """Refuses a limit that the run has reached already, first one of ``lengths``."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            state = contents["callbacks"].get(callback.state_key, {})
            if state.get("stopping_reason") and state["wait_count"] >= callback.patience:
                problem = f"ended the run after {state['wait_count']} validations without improvement; give it more"
                raise ConfigError(f"trainer.{PATIENCE}", callback.patience, problem)
    seconds = contents["callbacks"].get("Timer", {}).get("time_elapsed", {}).get("train", 0.0)
    timer = next((callback for callback in callbacks if isinstance(callback, Timer)), None)
    limits = {
        "max_epochs": (trainer.max_epochs, checkpoint.epochs(contents)),
        "max_steps": (trainer.max_steps, contents["global_step"]),
        "max_time": (timer and timer.time_remaining(), seconds),
    }
    for name in [*lengths, *limits]:
        limit, reached = limits[name]
        if limit not in (None, -1) and limit <= reached:
            unit, none = ("seconds", "null") if name == "max_time" else (name.removeprefix("max_"), -1)
            problem = f"the run has made {reached:.10g} {unit} already; give it more, or {none} for no limit"
            raise ConfigError(f"trainer.{name}", limit, problem)
