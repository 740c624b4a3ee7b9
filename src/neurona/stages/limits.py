"""Settings of the Trainer that would leave a fit nothing to do, or fail later, refused by their keys."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    DeviceStatsMonitor,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)
from omegaconf import DictConfig

from neurona.classifier import Classifier
from neurona.config import hints
from neurona.config import overrides as written
from neurona.config.check import FIGURES
from neurona.config.nodes import path_of
from neurona.data.base import InMemoryData
from neurona.errors import ConfigError, check_range
from neurona.steps import randomness

log = logging.getLogger(__name__)

REPLACED: dict[type[Callback], str] = {
    StochasticWeightAveraging: "it averages after the last validation, so that the average is never validated:"
    " lightning.pytorch.callbacks.EMAWeightAveraging is validated, kept as the best and tested",
    LearningRateFinder: "python train.py stage=lr_find suggests a learning rate",
    BatchSizeFinder: "data are in memory: give data.batch_size",
}
"""Callbacks of Lightning's that would do nothing, or harm, and what does it instead."""

RESERVED = {"best", "last", "previous"}
"""Names of the run's own checkpoints."""

STILL_USED = ("optimizer.clip_norm", "optimizer.clip_value", "optimizer.accumulate")
"""Settings of the optimiser that are used even if the user's own code makes it."""

FOLLOWED = ("train/loss", "train/accuracy", "train/lr", "epoch", "step")
"""What callbacks of Lightning's may follow besides validation's figures."""

LEAST = {"check_val_every_n_epoch": 1, "log_every_n_steps": 0, "min_epochs": 0, "min_steps": 0}


def check(node: DictConfig, datamodule: LightningDataModule) -> None:
    """Raises ConfigError where a fit with the node ``trainer`` would have no end, or a part without mini-batches."""
    _check_length(node)
    for name, least in LEAST.items():
        check_range(f"trainer.{name}", node.get(name), least=least)
    interval = node.val_check_interval
    if interval == 0:
        raise ConfigError("trainer.val_check_interval", 0, "must be above 0; for no validation set data.val_fraction=0")
    if not isinstance(datamodule, InMemoryData):  # others do not tell how many mini-batches they have
        return
    batches = _check_shares(node, datamodule)
    if isinstance(interval, int) and node.check_val_every_n_epoch is not None and interval > batches:
        problem = f"an epoch has {batches} mini-batches; trainer.check_val_every_n_epoch=null counts across epochs"
        raise ConfigError("trainer.val_check_interval", interval, problem)


def check_callbacks(callbacks: Sequence[Callback], folder: Path, classifier: Classifier) -> None:
    """Raises ConfigError for a callback that this project has something else for, that writes its checkpoints, or that
    lacks what it needs.
    """
    for callback in callbacks:
        if isinstance(callback, BackboneFinetuning) and not hasattr(classifier, "backbone"):
            problem = "needs a classifier of your own with an attribute backbone, the part that it freezes"
            raise ConfigError("trainer.callbacks", "BackboneFinetuning", problem)
        if isinstance(callback, DeviceStatsMonitor) and find_spec("psutil") is None:
            raise ConfigError("trainer.callbacks", "DeviceStatsMonitor", "needs psutil: pip install psutil")
        if isinstance(callback, GradientAccumulationScheduler):
            _check_accumulation(classifier)
        if isinstance(callback, ModelPruning):
            log.warning("checkpoints do not hold the masks of ModelPruning: run= would not go on exactly")
        for kind, remedy in REPLACED.items():
            if isinstance(callback, kind):
                raise ConfigError("trainer.callbacks", type(callback).__qualname__, f"is not taken here; {remedy}")
        if isinstance(callback, ModelCheckpoint | OnExceptionCheckpoint):
            names, directory = {str(callback.filename)}, callback.dirpath
            if isinstance(callback, ModelCheckpoint) and callback.save_last:
                names.add(callback.CHECKPOINT_NAME_LAST)
            place = Path(directory) if directory else folder / "checkpoints"
            is_ours = place.resolve() == (folder / "checkpoints").resolve()
            if is_ours and (taken := names & RESERVED):
                problem = "is a name of the run's own checkpoints; give another filename, or another dirpath"
                raise ConfigError("trainer.callbacks", f"{type(callback).__qualname__} of {min(taken)}.ckpt", problem)


def _check_accumulation(classifier: Classifier) -> None:
    optimization = classifier.optimization
    if optimization.accumulate != 1:
        problem = "does not go with GradientAccumulationScheduler; leave one of them out"
        raise ConfigError("optimizer.accumulate", optimization.accumulate, problem)
    if optimization.schedule.needs_length and type(classifier).configure_optimizers is Classifier.configure_optimizers:
        problem = "changes the number of steps on the way, by which the schedule of the learning rate goes; give"
        problem += " optimizer.accumulate instead, or optimizer/schedule=constant"
        raise ConfigError("trainer.callbacks", "GradientAccumulationScheduler", problem)


def places(callbacks: Sequence[Callback]) -> list[Path]:
    """The folders that callbacks are set to write to."""
    return [Path(place) for callback in callbacks if (place := getattr(callback, "dirpath", None))]


def check_optimizers(classifier: Classifier, trainer: Trainer, overrides: Sequence[str]) -> None:
    """Raises ConfigError where a classifier of one's own leaves settings of the optimiser unused, or has several under
    automatic optimisation.
    """
    kind, optimization = type(classifier), classifier.optimization
    makes_its_own = kind.configure_optimizers is not Classifier.configure_optimizers
    if not classifier.automatic_optimization:
        settings = {"clip_norm": None, "clip_value": None, "accumulate": 1}
        for name, default in settings.items():
            if (value := getattr(optimization, name)) != default:
                problem = f"has no effect: {kind.__qualname__} optimises manually; leave it out"
                raise ConfigError(f"optimizer.{name}", value, problem)
        if optimization.schedule.build is not None and not makes_its_own:
            by_hand = "optimises manually: the learning rate changes only where it calls self.lr_schedulers().step()"
            log.warning("optimizer.schedule: %s %s", kind.__qualname__, by_hand)
    if not makes_its_own:
        return
    for override in written.parse(overrides):
        key = written.key(override)
        if written.root(override) == "optimizer" and key not in STILL_USED:
            problem = f"is not used: {kind.__qualname__}.configure_optimizers makes the optimiser; set it there"
            raise ConfigError(key, written.value(override), problem)
    if classifier.automatic_optimization and _number_of_optimizers(classifier, trainer) > 1:
        problem = (
            "makes several optimisers, which are stepped by hand: set self.automatic_optimization = False in __init__,"
            " and step them in training_step, as Lightning's page on manual optimization shows"
        )
        raise ConfigError("classifier._target_", path_of(kind), problem)


def _number_of_optimizers(classifier: Classifier, trainer: Trainer) -> int:
    """How many optimisers ``configure_optimizers`` makes, if it can be called before the fit."""
    classifier.trainer, state = trainer, randomness.rng_state()
    try:
        optimizers = classifier.configure_optimizers()
    except Exception:  # it may need the number of steps, say; a mistake shows when the fit asks
        return 0
    finally:
        randomness.restore_rng(state)
    if isinstance(optimizers, list | tuple) and optimizers and isinstance(optimizers[0], list | tuple):
        optimizers = optimizers[0]  # the schedulers are the second
    return len(optimizers) if isinstance(optimizers, list | tuple) else 1


def check_monitors(node: DictConfig, callbacks: DictConfig, classifier: Classifier) -> None:
    """Raises ConfigError where a callback waits for a figure that there will not be.

    node: ``trainer``, as the data leave it. callbacks: the node of them.
    """
    stopping = callbacks.get("early_stopping")
    if node.limit_val_batches == 0 and stopping and stopping.get("patience"):
        key = "trainer.callbacks.early_stopping.patience"
        problem = f"needs a validation part; set data.val_fraction above 0, or {key}=null"
        raise ConfigError(key, stopping.patience, problem)
    if type(classifier) is not Classifier:  # one's own may report figures of its own
        return
    of_classes = [f"val/accuracy_of/{name}" for name in classifier.spec.class_names]
    figures = [f"val/{figure}" for figure in FIGURES]
    shipped = ("lightning.", "neurona.")
    if not all(child["_target_"].startswith(shipped) for child in callbacks.values() if child):  # which may log others
        return
    for name in map(str, callbacks):
        child = callbacks[name]
        monitor = child.get("monitor") if child else None
        is_lightnings = bool(child) and child["_target_"].startswith("lightning.")
        if monitor is not None and monitor not in (*figures, *of_classes, *(FOLLOWED if is_lightnings else ())):
            problem = f"must be one of {', '.join(figures)}, or val/accuracy_of/<class>"
            raise ConfigError(f"trainer.callbacks.{name}.monitor", monitor, problem)


def _check_length(node: DictConfig) -> None:
    for name in map(str, node):
        if ours := hints.ELSEWHERE.get(name):
            raise ConfigError(f"trainer.{name}", node[name], f"is not the Trainer's here: give {ours}")
    if not node.enable_checkpointing:
        problem = "must be true: a run is tested, and continued, from its checkpoints"
        raise ConfigError("trainer.enable_checkpointing", node.enable_checkpointing, problem)
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if node[name] == 0:
            raise ConfigError(
                f"trainer.{name}", 0, "leaves nothing to train; to evaluate a run use stage=test run=<its folder>"
            )
    if node.max_time is not None and not set(str(node.max_time)) & set("123456789"):
        raise ConfigError(
            "trainer.max_time", node.max_time, "leaves nothing to train; trainer.max_time=null sets no limit"
        )
    if node.max_epochs is None and node.max_steps == -1 and node.max_time is None:
        problem = (
            "must be a number unless max_steps or max_time is set; trainer.max_epochs=-1 trains until you stop the run"
        )
        raise ConfigError("trainer.max_epochs", "null", problem)
    if node.limit_test_batches == 0:
        raise ConfigError("trainer.limit_test_batches", 0, "must be above 0: a fit ends with a test")


def _check_shares(node: DictConfig, data: InMemoryData) -> int:
    """Refuses a share that leaves a part without a mini-batch. Returns the mini-batches of an epoch."""
    train = math.ceil(len(data.train_rows) / data.batch_size)
    val, test = (math.ceil(len(rows) / data.eval_batch_size) for rows in (data.val_rows, data.test_rows))
    for key, part, total in (
        ("limit_train_batches", "training", train),
        ("limit_val_batches", "validation", val),
        ("limit_test_batches", "test", test),
        ("overfit_batches", "training", train),
        ("overfit_batches", "validation", val if node.limit_val_batches else 0),
    ):
        if node[key] and total and not limited(total, node[key]):
            problem = f"leaves none of the {total} mini-batches of the {part} part; give a larger share, or a number"
            raise ConfigError(f"trainer.{key}", node[key], problem)
    return limited(train, node.overfit_batches or node.limit_train_batches)


def shortened(node: DictConfig, datamodule: Any) -> str:
    """How many of its mini-batches an epoch takes, in words; nothing where it takes all, or the data do not tell."""
    if not isinstance(datamodule, InMemoryData):
        return ""
    total = math.ceil(len(datamodule.train_rows) / datamodule.batch_size)
    number = limited(total, node.overfit_batches or node.limit_train_batches)
    return f"{number:,} of {total:,} mini-batches" if number < total else ""


def limited(total: int, limit: int | float) -> int:
    """Mini-batches that a limit leaves: a number of them, or a share, rounded down as Lightning does."""
    return min(total, limit) if isinstance(limit, int) else int(total * limit)
