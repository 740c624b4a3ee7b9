"""The Lightning Trainer of a fit, and what is refused before one begins or goes on."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, open_dict

from neurona.callbacks.checkpoints import BestAndLast
from neurona.callbacks.early_stopping import EarlyStopping
from neurona.callbacks.inspection import Inspection
from neurona.classifier import Classifier
from neurona.config.check import FIGURES
from neurona.config.make import instantiate, make
from neurona.data.base import InMemoryData
from neurona.devices import distributed
from neurona.devices.lightning_internals import end_epochs_once, without_signal_handlers
from neurona.errors import ConfigError, check_range
from neurona.runs import jobs
from neurona.runs.checkpoint import AtomicCheckpointIO

LEAST = {"check_val_every_n_epoch": 1, "log_every_n_steps": 0, "min_epochs": 0, "min_steps": 0}


def build(cfg: DictConfig, datamodule: LightningDataModule, classifier: Classifier) -> Trainer:
    """The Trainer that the configuration describes. Raises ConfigError for what would fail, or do nothing, later."""
    node = _without_callbacks(cfg)
    if not getattr(datamodule, "has_validation", True):
        node.limit_val_batches = 0
    _check_limits(node)
    _check_intervals(node, datamodule)
    _check_monitors(node, cfg.trainer.callbacks, classifier)
    callbacks = [*_callbacks(cfg.trainer.callbacks, cfg.folder), *_of_search(Path(cfg.folder))]
    callbacks.append(instantiate(cfg.inspect, Inspection))
    made = _make(cfg, node, callbacks=callbacks, logger=loggers(cfg))
    end_epochs_once(made)
    return made


def loggers(cfg: DictConfig) -> list[Any]:
    """Those that the configuration describes."""
    nodes = [node for node in cfg.logger.values() if node is not None]
    return [instantiate(node, Logger) for node in nodes]  # type: ignore[type-abstract]


def build_for_evaluation(cfg: DictConfig, callbacks: list[Callback]) -> Trainer:
    """The Trainer of the configuration with these callbacks alone, which keeps neither logs nor checkpoints."""
    return _make(cfg, _without_callbacks(cfg), callbacks=callbacks, logger=False, enable_checkpointing=False)


def build_for_range_test(cfg: DictConfig, datamodule: LightningDataModule, listener: Logger) -> Trainer:
    """The Trainer of a configuration that is a range test's already: of its loggers and callbacks, this one alone."""
    node = _without_callbacks(cfg)
    _check_limits(node)
    _check_intervals(node, datamodule)
    return _make(cfg, node, callbacks=[], logger=[listener], enable_checkpointing=False)


def _make(cfg: DictConfig, node: DictConfig, **arguments: Any) -> Trainer:
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if node.accelerator in ("gpu", "cuda", "mps") and not has_gpu:
        problem = "torch finds none here; trainer=auto takes what there is, trainer=cpu the CPU"
        raise ConfigError("trainer.accelerator", node.accelerator, problem)
    distributed.follow_launcher(node)
    plugins = [AtomicCheckpointIO(), distributed.environment()]
    made = instantiate(node, Trainer, plugins=plugins, default_root_dir=cfg.folder, **arguments)
    distributed.check(made, cfg.trainer)
    return without_signal_handlers(made)


def _without_callbacks(cfg: DictConfig) -> DictConfig:
    """A copy of the node ``trainer``, in its place."""
    node = copy.deepcopy(cfg.trainer)
    with open_dict(node):
        del node.callbacks
    return node


def why_ended(trainer: Trainer) -> tuple[str, str]:
    """What ended a fit, as ``stopped_by`` in ``metrics.json``, and in words if it was not its length."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    made = f"{progress.processed} epochs, {trainer.global_step} steps"
    if -1 != trainer.max_steps <= trainer.global_step:
        return "max_steps", ""
    if trainer.max_epochs is not None and -1 != trainer.max_epochs <= progress.processed:
        return "max_epochs", ""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0:
            return "max_time", f"max_time: the time is up after {made}"
        if isinstance(callback, EarlyStopping) and callback.has_stopped:
            best = getattr(trainer.checkpoint_callback, "best", {})
            reason = f"{callback.monitor} has not improved for {callback.wait_count} validations"
            return "early_stopping", f"early stopping: {reason}; best_epoch {best.get('epoch')}"
        if end := getattr(callback, "ended_fit", None):
            stopped_by, word = end
            return stopped_by, f"{word} after {made}"
    return "callback", f"a callback has ended the fit after {made}"


def _callbacks(nodes: DictConfig, folder: str) -> list[Callback]:
    made: list[Callback] = []
    if nodes.get("checkpoints") is None:
        problem = "cannot be left out: a run is tested, and continued, from its checkpoints"
        raise ConfigError("trainer.callbacks.checkpoints", "null", problem)
    for name, node in nodes.items():
        if name == "checkpoints":
            made.append(instantiate(node, BestAndLast, folder=str(Path(folder) / "checkpoints")))
        elif node is not None:
            made.append(instantiate(node, Callback))
    return [callback for callback in made if getattr(callback, "active", True)]


def _of_search(folder: Path) -> list[Callback]:
    """What a search adds to the callbacks of its trials."""
    nodes = jobs.callbacks(folder)
    return [make(f"callbacks.{name}", node, Callback, folder=folder) for name, node in nodes.items()]


def _check_limits(node: DictConfig) -> None:
    for name, ours in (("gradient_clip_val", "clip_norm or clip_value"), ("accumulate_grad_batches", "accumulate")):
        if name in node:
            raise ConfigError(f"trainer.{name}", node[name], f"belongs to the optimiser: optimizer.{ours}")
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if node[name] == 0:
            raise ConfigError(f"trainer.{name}", 0, "leaves nothing to train; to evaluate a run use stage=test run=…")
    if node.max_time is not None and not set(str(node.max_time)) & set("123456789"):
        raise ConfigError("trainer.max_time", node.max_time, "leaves nothing to train; null for no limit")
    if node.max_epochs is None and node.max_steps == -1 and node.max_time is None:
        problem = "needs a number where max_steps and max_time set no limit; -1 trains until it is stopped"
        raise ConfigError("trainer.max_epochs", "null", problem)
    if node.limit_test_batches == 0:
        raise ConfigError("trainer.limit_test_batches", 0, "must be above 0: a fit ends with a test")
    for name, least in LEAST.items():
        check_range(f"trainer.{name}", node.get(name), least=least)


def _check_intervals(node: DictConfig, data: LightningDataModule) -> None:
    """Compares counts of mini-batches with those there are, where the data tell."""
    interval = node.val_check_interval
    if interval == 0:
        raise ConfigError("trainer.val_check_interval", 0, "must be above 0; for no validation, data.val_fraction=0")
    if not isinstance(data, InMemoryData):
        return
    batches = math.ceil(len(data.train_rows) / data.batch_size)
    of_val, of_test = (math.ceil(len(rows) / data.eval_batch_size) for rows in (data.val_rows, data.test_rows))
    for key, part, total in (
        ("limit_train_batches", "training", batches),
        ("limit_val_batches", "validation", of_val),
        ("limit_test_batches", "test", of_test),
        ("overfit_batches", "training", batches),
        ("overfit_batches", "validation", of_val if node.limit_val_batches else 0),
    ):
        if node[key] and total and not _limited(total, node[key]):
            problem = f"leaves none of the {total} mini-batches of the {part} part; give a larger share, or a number"
            raise ConfigError(f"trainer.{key}", node[key], problem)
    batches = _limited(batches, node.overfit_batches or node.limit_train_batches)
    if isinstance(interval, int) and node.check_val_every_n_epoch is not None and interval > batches:
        problem = f"an epoch has {batches} mini-batches; check_val_every_n_epoch=null counts across epochs"
        raise ConfigError("trainer.val_check_interval", interval, problem)


def _limited(total: int, limit: int | float) -> int:
    """Mini-batches that a limit leaves: a number of them, or a share, rounded down as Lightning does."""
    return min(total, limit) if isinstance(limit, int) else int(total * limit)


def _check_monitors(node: DictConfig, callbacks: DictConfig, classifier: Classifier) -> None:
    stopping = callbacks.get("early_stopping")
    if node.limit_val_batches == 0 and stopping and stopping.get("patience"):
        key = "trainer.callbacks.early_stopping.patience"
        problem = "needs a validation part; set data.val_fraction above 0, or patience=null"
        raise ConfigError(key, stopping.patience, problem)
    if type(classifier) is not Classifier:  # one's own may report figures of its own
        return
    known = [f"val/{figure}" for figure in FIGURES]
    for name in ("checkpoints", "early_stopping"):
        child = callbacks.get(name)
        if child and child._target_.startswith("neurona."):
            monitor = child.get("monitor", "val/loss")
            if monitor not in known and monitor.removeprefix("val/accuracy_of/") not in classifier.spec.class_names:
                problem = f"must be one of {', '.join(known)}, or val/accuracy_of/<class>"
                raise ConfigError(f"trainer.callbacks.{name}.monitor", monitor, problem)
