"""The Lightning Trainer of each stage, as the configuration describes it."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, open_dict

from neurona.callbacks.checkpoints import BestAndLast
from neurona.callbacks.inspection import Inspection
from neurona.classifier import Classifier, attach
from neurona.config.make import instantiate, make
from neurona.devices import distributed
from neurona.devices.lightning_internals import end_epochs_once, without_signal_handlers
from neurona.errors import ConfigError
from neurona.inspection import trackers
from neurona.runs import jobs
from neurona.runs.checkpoint import AtomicCheckpointIO
from neurona.stages import limits

PROFILERS = {"simple": "SimpleProfiler", "advanced": "AdvancedProfiler", "pytorch": "PyTorchProfiler"}
"""Lightning's names of them."""

WRAPPED = "neurona.devices.distributed.WrappedDataParallel"


def build(cfg: DictConfig, datamodule: LightningDataModule, classifier: Classifier) -> Trainer:
    """The Trainer of a fit. Raises ConfigError for what would fail, or do nothing, later."""
    node = _without_callbacks(cfg)
    if not getattr(datamodule, "has_validation", True):
        node.limit_val_batches = 0
    limits.check(node, datamodule)
    limits.check_monitors(node, cfg.trainer.callbacks, classifier)
    callbacks = [*_callbacks(cfg), *_of_search(Path(cfg.folder)), instantiate(cfg.inspect, Inspection)]
    limits.check_callbacks([*callbacks, *_of_classifier(classifier)], Path(cfg.folder), classifier)
    trainer = _make(cfg, node, callbacks=callbacks, logger=list(loggers(cfg).values()))
    if isinstance(trainer.strategy, distributed.DataParallel) and classifier.who_asks(trainer, datamodule):
        node.strategy["_target_"] = WRAPPED
        trainer = _make(cfg, node, callbacks=callbacks, logger=trainer.loggers)
    end_epochs_once(trainer)
    return trainer


def build_for_evaluation(cfg: DictConfig, callbacks: list[Callback]) -> Trainer:
    """The Trainer of the configuration with these callbacks alone, which keeps neither logs nor checkpoints."""
    return _make(cfg, _without_callbacks(cfg, enable_checkpointing=False), callbacks=callbacks, logger=False)


def build_for_range_test(cfg: DictConfig, datamodule: LightningDataModule, listener: Logger) -> Trainer:
    """The Trainer of a configuration that is a range test's already: of its loggers and callbacks, this one alone."""
    limits.check(_without_callbacks(cfg), datamodule)
    return _make(cfg, _without_callbacks(cfg, enable_checkpointing=False), callbacks=[], logger=[listener])


def loggers(cfg: DictConfig) -> dict[str, Any]:
    """The loggers that the configuration describes, by name; those of a run that continues continue too."""
    before = trackers.of_run(Path(cfg.run)) if cfg.run else {}
    made = {}
    for name, node in cfg.logger.items():
        if node is not None:
            arguments = {key: value for key, value in before.get(name, {}).items() if key not in node}
            try:
                made[name] = instantiate(node, Logger, **arguments)  # type: ignore[type-abstract]
            except ConfigError as error:
                if match := re.search(r"pip install -U '([\w.-]+)", str(error)):  # Lightning's, of what is not there
                    problem = f"needs a package: pip install -c constraints.txt {match[1]}"
                    raise ConfigError("logger", name, problem) from error
                raise
    return made


def _without_callbacks(cfg: DictConfig, **changes: Any) -> DictConfig:
    """A copy of the node ``trainer``, in its place, with these changes. Profilers known by a name report in the run's
    folder.
    """
    node = copy.deepcopy(cfg.trainer)
    with open_dict(node):
        del node.callbacks
        node.update(changes)
        if kind := PROFILERS.get(str(node.profiler)):
            target = f"lightning.pytorch.profilers.{kind}"
            node.profiler = {"_target_": target, "dirpath": cfg.folder, "filename": "profile"}
    return node


def _make(cfg: DictConfig, node: DictConfig, **arguments: Any) -> Trainer:
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if node.accelerator in ("gpu", "cuda", "mps") and not has_gpu:
        problem = "torch finds none here; trainer=auto takes what there is, trainer=cpu the CPU"
        raise ConfigError("trainer.accelerator", node.accelerator, problem)
    distributed.follow_launcher(node)
    writer = AtomicCheckpointIO(Path(cfg.folder or "."), lambda: limits.places(trainer.callbacks))  # type: ignore[attr-defined]
    plugins = [writer, distributed.environment()]
    trainer = instantiate(node, Trainer, plugins=plugins, default_root_dir=cfg.folder, **arguments)
    distributed.check(trainer, cfg.trainer)
    attach(trainer)  # a classifier may override what does it else
    return without_signal_handlers(trainer)


def _callbacks(cfg: DictConfig) -> list[Callback]:
    nodes = cfg.trainer.callbacks
    if nodes.get("checkpoints") is None:
        problem = "cannot be left out: a run is tested, and continued, from its checkpoints"
        raise ConfigError("trainer.callbacks.checkpoints", "null", problem)
    callbacks: list[Callback] = []
    for name, node in nodes.items():
        if name == "checkpoints":
            callbacks.append(instantiate(node, BestAndLast, folder=str(Path(cfg.folder) / "checkpoints")))
        elif node is not None:
            callbacks.append(instantiate(node, Callback))
    return [callback for callback in callbacks if getattr(callback, "active", True)]


def _of_classifier(classifier: Classifier) -> list[Callback]:
    """The callbacks that the user's own classifier brings, if they can be made before the fit."""
    if type(classifier).configure_callbacks is Classifier.configure_callbacks:
        return []
    try:
        callbacks = classifier.configure_callbacks()
    except RuntimeError:  # it asks for its Trainer
        return []
    return list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]


def _of_search(folder: Path) -> list[Callback]:
    """What a search adds to the callbacks of its trials."""
    nodes = jobs.callbacks(folder)
    return [make(f"callbacks.{name}", node, Callback, folder=folder) for name, node in nodes.items()]
