"""Checks the user's own loaders and the first batch of each before a folder is made.

Loaders in memory need none of this: their data are checked as they are read. No random generator is moved by looking,
and a stream that can be read but once is not read.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, TensorDataset

from neurona.classifier import Classifier
from neurona.config.nodes import path_of
from neurona.data.base import no_class_indices
from neurona.data.batches import BatchLoader
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError, DataError
from neurona.steps import randomness, ways

log = logging.getLogger(__name__)

IGNORED = -100
"""A target that cross-entropy leaves out."""

PARTS = {"train": "training_step", "val": "validation_step", "test": "test_step"}
"""Of the data, and the methods that take their batches."""

TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
"""Hooks that may make another batch of one."""

EMPTY = "has no mini-batch; give it rows, with drop_last at least as many as make one"

STATES: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    torch.Generator: (torch.Generator.get_state, torch.Generator.set_state),
    random.Random: (random.Random.getstate, random.Random.setstate),
    np.random.Generator: (
        lambda generator: generator.bit_generator.state,
        lambda generator, state: setattr(generator.bit_generator, "state", state),
    ),
}
"""Of random generators: how it is had, and put back."""

SHARES = {"train": ("limit_train_batches", "overfit_batches", "val_check_interval"), "val": ("limit_val_batches",)}
SHARES["test"] = ("limit_test_batches",)
"""Settings of the Trainer that may be shares of the mini-batches of a part."""


def check(
    cfg: DictConfig, trainer: Trainer, classifier: Classifier, datamodule: Any, parts: Collection[str] = tuple(PARTS)
) -> None:
    """Raises DataError or ConfigError where a fit could not take what the loaders of these parts give."""
    spec, where = datamodule.spec, path_of(type(datamodule))
    if len(spec.class_names) != spec.num_classes:
        problem = f"has {len(spec.class_names)} class_names for num_classes={spec.num_classes}; give one for each"
        raise DataError(f"{where}.spec", problem)
    if all(ways.hands_out_chunks(type(datamodule), f"{part}_dataloader") for part in PARTS):
        _check_logits(classifier, classifier.network, torch.zeros(2, spec.num_features))
        return
    with _unmoved(datamodule):
        for part in parts:
            if part != "val" or cfg.trainer.limit_val_batches != 0:
                _check_part(part, cfg, trainer, classifier, datamodule)


def _check_part(part: str, cfg: DictConfig, trainer: Trainer, classifier: Classifier, datamodule: Any) -> None:
    name, where = f"{part}_dataloader", f"{path_of(type(datamodule))}.{part}_dataloader"
    if not is_overridden(name, datamodule, LightningDataModule):
        if part == "val":
            return
        problem = "is missing: a fit ends with a test" if part == "test" else "is missing: there is nothing to train on"
        raise DataError(where, f"{problem}; return a DataLoader")
    loader = _loader(datamodule, name)
    if isinstance(loader, BatchLoader) or (part == "val" and isinstance(loader, list | tuple) and not loader):
        return
    takes_any = _is_own(classifier, PARTS[part])
    if isinstance(loader, list | tuple | Mapping):
        if takes_any:
            return
        problem = f"gives {len(loader)} loaders; one is needed: put their data together with"
        raise DataError(where, f"{problem} torch.utils.data.ConcatDataset")
    _check_shares(part, where, cfg, classifier, loader)
    if _is_one_shot(loader):
        return
    batch = _first_batch(loader, where)
    if takes_any or any(_is_own(classifier, hook) or is_overridden(hook, datamodule, DataHooks) for hook in TRANSFERS):
        return
    _check_batch(where, PARTS[part], batch, classifier, trainer)
    if part == "train":
        _check_logits(classifier, nn.Sequential(classifier.preprocessing, classifier.network), batch[0])
    if (whole := _in_memory(loader)) is not None:
        _check_batch(where, PARTS[part], whole, classifier, trainer)
    if part == "train" and (batch[1] if whole is None else whole[1]).eq(IGNORED).any():
        log.warning("%s: train/accuracy counts a target of %d, which the loss leaves out, as wrong", where, IGNORED)


def _loader(datamodule: Any, name: str) -> Any:
    """What a data module gives; one that makes its test part in ``setup("test")`` is asked for that first."""
    try:
        return getattr(datamodule, name)()
    except Exception:
        if name != "test_dataloader":
            raise
    datamodule.setup("test")
    return datamodule.test_dataloader()


def _check_shares(part: str, where: str, cfg: DictConfig, classifier: Classifier, loader: Any) -> None:
    """Refuses what needs the number of mini-batches of a loader without a length, and a loader without any."""
    try:
        length: int | None = len(loader)
    except (TypeError, NotImplementedError):
        length = None
    if length == 0:
        remedy = EMPTY + (", or return [] for no validation" if part == "val" else "")
        raise DataError(where, remedy)
    if length is not None:
        return
    is_limited = isinstance(cfg.trainer.limit_train_batches, int)
    for key in SHARES[part]:
        value = cfg.trainer[key]
        if key == "val_check_interval" and is_limited:
            continue
        if isinstance(value, float) and value != 1 and not (key == "overfit_batches" and value == 0):
            problem = f"is a share of the mini-batches of {where}, which has no length; give a number, as in"
            raise ConfigError(f"trainer.{key}", value, f"{problem} trainer.{key}=10")
    if part != "train" or _is_own(classifier, "configure_optimizers"):
        return
    is_known = cfg.trainer.max_steps != -1 or (is_limited and cfg.trainer.max_epochs not in (None, -1))
    if classifier.optimization.schedule.needs_length and not is_known:
        target = cfg.optimizer.schedule["_target_"]
        problem = f"needs the number of steps, and {where} has no length; give it, as in trainer.max_steps=1000"
        raise ConfigError("optimizer/schedule", target.rpartition(".")[2], problem)


def _first_batch(loader: Any, where: str) -> Any:
    if isinstance(loader, DataLoader) and loader.num_workers and loader.worker_init_fn is None:
        loader = copy.copy(loader)  # one batch needs no workers
        loader.num_workers, loader.timeout, loader.prefetch_factor = 0, 0, None
    with _unmoved(loader):
        for batch in loader:
            return batch
    raise DataError(where, EMPTY)


def _is_one_shot(loader: Any) -> bool:
    """Whether a loader is an iterator, or reads from one that it holds."""
    if isinstance(loader, Iterator):
        return True
    source = getattr(loader, "dataset", loader)
    if isinstance(loader, DataLoader) and not isinstance(source, IterableDataset):
        return False
    return isinstance(source, Iterator) or any(
        isinstance(one, Iterator) for one in getattr(source, "__dict__", {}).values()
    )


def _in_memory(loader: Any) -> Any:
    """All rows of a loader as one batch, where it takes them all and they are two tensors as they are; else None."""
    if not isinstance(loader, DataLoader) or type(loader.dataset) is not TensorDataset:
        return None
    if type(loader.sampler) not in (RandomSampler, SequentialSampler) or loader.batch_size is None:
        return None
    is_plain = loader.collate_fn is torch.utils.data.default_collate
    return list(loader.dataset.tensors) if is_plain else None


def _check_batch(where: str, step: str, batch: Any, classifier: Classifier, trainer: Trainer) -> None:
    """Raises DataError for a batch that the project's own step, loss or network cannot take."""
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        if isinstance(batch, Mapping):
            kind = f"dicts of {', '.join(map(str, batch))}"
        elif isinstance(batch, list | tuple):
            kind = "features without targets" if len(batch) == 1 else f"tuples of {len(batch)}"
        else:
            kind = f"a {type(batch).__name__}"
        raise DataError(where, f"batches are {kind}; they must be (features, targets); override {step} for others")
    features, targets = batch
    has_own_loss = step == "training_step" and _is_own(classifier, "loss")
    is_known = isinstance(classifier.preprocessing, nn.Identity) and type(classifier.network).__module__.startswith(
        "neurona."
    )
    if is_known and not has_own_loss and not _is_own(classifier, "forward"):
        _check_features(where, features, classifier.spec, trainer)
    _check_targets(where, targets, classifier.spec, has_own_loss=has_own_loss)
    ignored = int((targets == IGNORED).sum())
    if ignored and step != "training_step":
        problem = f"targets are {IGNORED} in {ignored} of {len(targets)} rows, which no figure can leave out; leave"
        raise DataError(where, f"{problem} such rows out of this part")


def _check_logits(classifier: Classifier, network: nn.Module, features: Any) -> None:
    """Raises ConfigError where a network of one's own gives no logits, or of another shape than the classes need.

    A copy is asked, so that no buffer and no counter moves; what it cannot take, the fit itself will tell.
    """
    target = (classifier.model_config or {}).get("_target_", path_of(type(classifier.network)))
    if target.startswith("neurona.") or any(
        _is_own(classifier, name) for name in ("forward", "loss", "metrics_class", *PARTS.values())
    ):
        return
    try:
        with _unmoved(), torch.no_grad():
            logits = copy.deepcopy(network).eval()(features)
    except Exception:
        return
    width = classifier.spec.num_classes
    if isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] == width:
        return
    if isinstance(logits, Tensor):
        gives, remedy = f"logits of the shape {tuple(logits.shape)}", "end it with num_classes outputs"
    else:
        gives = "None" if logits is None else f"a {type(logits).__name__}"
        remedy = "end it with return and the logits, a tensor"
    problem = f"gives {gives} for {len(features)} rows and {width} classes; its forward must return (batch, {width})"
    raise ConfigError("model._target_", target, f"{problem}: {remedy}")


def _check_features(where: str, features: Any, spec: DataSpec, trainer: Trainer) -> None:
    if not isinstance(features, Tensor):
        problem = f"features are a {type(features).__name__}; they must be a tensor (batch, features)"
        raise DataError(where, problem)
    width = spec.num_features
    if features.ndim != 2 or features.shape[1] != width:
        problem = f"features have the shape {tuple(features.shape)}; spec.num_features={width} needs (batch, {width})"
        raise DataError(where, problem)
    plugin = trainer.precision_plugin
    dtype, wanted = plugin.convert_input(features[:1]).dtype, plugin.convert_input(torch.zeros(1)).dtype
    if dtype != wanted:
        remedy = "convert with .float()" + (", or set trainer.precision=64-true" if dtype == torch.float64 else "")
        raise DataError(where, f"features are {_short(dtype)}; they must be {_short(wanted)}: {remedy}")
    if not (finite := features.isfinite().all(dim=1)).all():
        rows = int((~finite).sum())
        problem = f"features are NaN or infinite in {rows} of {len(features)} rows; leave such rows out, or fill them"
        raise DataError(where, problem)


def _check_targets(where: str, targets: Any, spec: DataSpec, *, has_own_loss: bool) -> None:
    """has_own_loss: one's own takes any numbers; that they are one a row is the training accuracy's need."""
    if not isinstance(targets, Tensor):
        raise DataError(where, f"targets are a {type(targets).__name__}; they must be class indices, (batch,) int64")
    if problem := no_class_indices(targets, any_number=has_own_loss):
        raise DataError(where, problem)
    if has_own_loss:
        return
    classes = targets[targets != IGNORED]
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < spec.num_classes:
        problem = f"targets run from {int(classes.min())} to {int(classes.max())}; spec.num_classes={spec.num_classes}"
        raise DataError(where, f"{problem} needs 0 to {spec.num_classes - 1}")


def _is_own(classifier: Classifier, name: str) -> bool:
    shipped = getattr(Classifier, name)
    return getattr(type(classifier), name) is not shipped or name in vars(classifier)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextlib.contextmanager
def _unmoved(*objects: Any) -> Iterator[None]:
    """Leaves every random generator as it was, the global ones and those of objects and of what loads for them."""
    of_all = randomness.rng_state()
    own = [
        (generator, *STATES[kind])
        for generator in _generators(objects)
        for kind in STATES
        if isinstance(generator, kind)
    ]
    states = [get(generator) for generator, get, _ in own]
    try:
        yield
    finally:
        for (generator, _, put), state in zip(own, states, strict=True):
            put(generator, state)
        randomness.restore_rng(of_all)


def _generators(objects: tuple[Any, ...]) -> Iterator[Any]:
    pending = list(objects)
    while pending:
        for name, value in getattr(pending.pop(), "__dict__", {}).items():
            if isinstance(value, tuple(STATES)):
                yield value
            elif name in ("dataset", "sampler", "batch_sampler"):
                pending.append(value)
