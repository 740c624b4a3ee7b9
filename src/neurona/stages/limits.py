"""Settings of the Trainer that would leave a fit nothing to do, or fail later, refused by their keys."""

from __future__ import annotations

import math

from lightning.pytorch import LightningDataModule
from omegaconf import DictConfig

from neurona.classifier import Classifier
from neurona.config.check import FIGURES
from neurona.data.base import InMemoryData
from neurona.errors import ConfigError, check_range

LEAST = {"check_val_every_n_epoch": 1, "log_every_n_steps": 0, "min_epochs": 0, "min_steps": 0}


def check(node: DictConfig, datamodule: LightningDataModule) -> None:
    """Raises ConfigError where a fit with the node ``trainer`` would have no end, or a part without mini-batches."""
    _check_length(node)
    for name, least in LEAST.items():
        check_range(f"trainer.{name}", node.get(name), least=least)
    interval = node.val_check_interval
    if interval == 0:
        raise ConfigError("trainer.val_check_interval", 0, "must be above 0; for no validation, data.val_fraction=0")
    if not isinstance(datamodule, InMemoryData):  # others do not tell how many mini-batches they have
        return
    batches = _check_shares(node, datamodule)
    if isinstance(interval, int) and node.check_val_every_n_epoch is not None and interval > batches:
        problem = f"an epoch has {batches} mini-batches; check_val_every_n_epoch=null counts across epochs"
        raise ConfigError("trainer.val_check_interval", interval, problem)


def check_monitors(node: DictConfig, callbacks: DictConfig, classifier: Classifier) -> None:
    """Raises ConfigError where a callback waits for a figure that there will not be.

    node: ``trainer``, as the data leave it. callbacks: the node of them.
    """
    stopping = callbacks.get("early_stopping")
    if node.limit_val_batches == 0 and stopping and stopping.get("patience"):
        key = "trainer.callbacks.early_stopping.patience"
        problem = "needs a validation part; set data.val_fraction above 0, or patience=null"
        raise ConfigError(key, stopping.patience, problem)
    if type(classifier) is not Classifier:  # one's own may report figures of its own
        return
    figures = [f"val/{figure}" for figure in FIGURES]
    of_classes = [f"val/accuracy_of/{name}" for name in classifier.spec.class_names]
    for name in ("checkpoints", "early_stopping"):
        child = callbacks.get(name)
        if child and child["_target_"].startswith("neurona."):
            monitor = child.get("monitor", "val/loss")
            if monitor not in (*figures, *of_classes):
                problem = f"must be one of {', '.join(figures)}, or val/accuracy_of/<class>"
                raise ConfigError(f"trainer.callbacks.{name}.monitor", monitor, problem)


def _check_length(node: DictConfig) -> None:
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
        if node[key] and total and not _limited(total, node[key]):
            problem = f"leaves none of the {total} mini-batches of the {part} part; give a larger share, or a number"
            raise ConfigError(f"trainer.{key}", node[key], problem)
    return _limited(train, node.overfit_batches or node.limit_train_batches)


def _limited(total: int, limit: int | float) -> int:
    """Mini-batches that a limit leaves: a number of them, or a share, rounded down as Lightning does."""
    return min(total, limit) if isinstance(limit, int) else int(total * limit)
