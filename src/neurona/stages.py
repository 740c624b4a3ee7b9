"""Builds the objects of a run in reading order and runs one stage: fit, validate, test or predict."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from neurona import checkpoint, command, config, console
from neurona.callbacks.predictions import CsvPredictions
from neurona.classifier import Classifier
from neurona.config import ConfigError, instantiate
from neurona.data.spec import DataSpec
from neurona.loggers import TensorBoard, log_configuration, log_hyperparameters
from neurona.optimizer import Optimization
from neurona.run_folder import RunFolder, best_checkpoint

log = logging.getLogger("neurona")

CONFIG_DIR = Path(__file__).parents[2] / "configs"

SMALL_STEP_FLOPS = 3e7
"""Below this much arithmetic per step, handing work to a second thread costs more than it saves."""


def run(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Does what ``python train.py *overrides`` does, and returns the figures of ``metrics.json``.

    Raises ConfigError or DataError for a mistake, before a run folder exists.
    """
    replayed = command.replay(list(overrides))
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            cfg = compose("train", replayed, return_hydra_config=True)
        except HydraException as error:
            raise command.explain(error) from error
        with open_dict(cfg):
            hydra = cfg.pop("hydra")
        unread = config.check(cfg, hydra.runtime.choices)
        return execute(cfg, hydra.runtime.choices, hydra.overrides.task, unread)


def run_composed(cfg: DictConfig, unread: config.Unread) -> dict[str, Any]:
    """Runs what ``hydra.main`` has composed and ``config.check`` has checked."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        cfg.folder = hydra.runtime.output_dir
        with contextlib.suppress(OSError):
            Path(cfg.folder).rmdir()  # Hydra has made it; the run makes its own once everything is checked
    return execute(cfg, hydra.runtime.choices, hydra.overrides.task, unread)


def execute(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str], unread: config.Unread
) -> dict[str, Any]:
    """Finishes the checks that need imports, then runs the stage."""
    config.check_imported(unread)
    console.quieten(cfg.quiet)
    torch.set_float32_matmul_precision(cfg.float32_matmul)
    with contextlib.ExitStack() as held:
        return _fit(cfg, choices, overrides, held) if cfg.stage == "fit" else _evaluate(cfg, held)


def _fit(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str], held: contextlib.ExitStack
) -> dict[str, Any]:
    """Fits, then tests the best checkpoint once."""
    optimization = instantiate(cfg.optimizer, Optimization)
    if cfg.model._target_.startswith("neurona."):
        with torch.device("meta"):  # its ranges are checked before any data is read
            instantiate(cfg.model, nn.Module, num_features=64, num_classes=10)
    datamodule = _read_data(cfg)
    spec = datamodule.spec
    seed_everything(cfg.seed, verbose=False)
    network = instantiate(cfg.model, nn.Module, num_features=spec.num_features, num_classes=spec.num_classes)
    preprocessing = getattr(datamodule, "preprocessing", None) or nn.Identity()
    classifier = instantiate(
        cfg.classifier,
        Classifier,
        preprocessing=preprocessing,
        network=network,
        spec=spec,
        optimization=optimization,
        model_config=_plain(cfg.model),
        compile_steps=cfg.compile,
    )
    _set_threads(cfg.threads, classifier.num_parameters * getattr(datamodule, "batch_size", 1))
    if cfg.init_from is not None:
        _start_from(cfg.init_from, network)

    cfg.folder = cfg.run or cfg.folder or _new_folder(choices)
    trainer = _trainer(cfg, datamodule)
    folder = held.enter_context(RunFolder.open(Path(cfg.run)) if cfg.run else RunFolder.create(Path(cfg.folder)))
    if str(folder.path) != cfg.folder:
        cfg.folder = str(folder.path)
        trainer = _trainer(cfg, datamodule)
    resume = folder.last_checkpoint if cfg.run and folder.last_checkpoint.is_file() else None
    if resume is not None:
        changed = _changed_limits(cfg, folder)
        if not changed and folder.metrics()["status"] == "finished":
            log.info("%s is finished; to train on, give it more: trainer.max_epochs=…", folder.path)
            return folder.metrics()
        if changed and optimization.schedule.needs_length:
            problem = "the run's learning-rate schedule was laid out for its length; start a new run with init_from="
            raise ConfigError(f"trainer.{changed[0]}", cfg.trainer[changed[0]], problem)
        taken = checkpoint.read(resume)["global_step"]  # a damaged one is refused before anything is written
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.forget_after(taken)

    with console.train_log(folder.path), _recorded(folder, trainer, classifier) as figures:
        folder.describe(cfg, overrides)
        console.introduce(cfg, classifier, trainer, folder.path)
        log_configuration(trainer.loggers, folder.path)
        started = time.perf_counter()
        trainer.fit(classifier, datamodule, ckpt_path=resume, weights_only=True)
        fit_seconds = time.perf_counter() - started
        figures["samples_per_second"] = round(classifier.samples_taken / fit_seconds)
        figures |= _best_figures(trainer)
        trainer.test(classifier, datamodule, ckpt_path=folder.best_checkpoint, weights_only=True, verbose=False)
        figures |= _scalars(trainer)
        figures["seconds"] = round(time.perf_counter() - started, 3)
    log_hyperparameters(trainer.loggers, cfg, choices, figures)
    with console.train_log(folder.path):
        console.conclude(figures, folder.path)
    return figures


def _evaluate(cfg: DictConfig, held: contextlib.ExitStack) -> dict[str, Any]:
    """Validates, tests or predicts with an earlier run's best checkpoint."""
    if cfg.run is None:
        raise ConfigError("stage", cfg.stage, "works on an earlier run: add run=<its folder>")
    folder = held.enter_context(RunFolder.open(Path(cfg.run)))
    contents = checkpoint.read(folder.best_checkpoint)
    datamodule = _read_data(cfg)
    _require_same_sizes(checkpoint.spec(contents), datamodule.spec)
    if cfg.stage == "validate" and not getattr(datamodule, "has_validation", True):
        raise ConfigError("stage", "validate", "this run has no validation part (data.val_fraction=0); use stage=test")
    cfg.folder = str(folder.path)
    seed_everything(cfg.seed, verbose=False)
    preprocessing, network = checkpoint.modules(contents, cfg.allow)
    classifier = instantiate(
        cfg.classifier, Classifier, preprocessing=preprocessing, network=network, spec=datamodule.spec
    )
    _set_threads(cfg.threads, classifier.num_parameters * getattr(datamodule, "batch_size", 1))
    callbacks: list[Callback] = []
    if cfg.stage == "predict":
        rows = getattr(datamodule, "test_rows", None)
        callbacks.append(CsvPredictions(folder.path / "predictions.csv", datamodule.spec.class_names, rows))
    trainer = instantiate(
        _without(cfg.trainer, "callbacks", "enable_checkpointing"),
        Trainer,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=cfg.folder,
    )
    with console.train_log(folder.path), _exit_statuses():
        started = time.perf_counter()
        if cfg.stage == "predict":
            trainer.predict(classifier, datamodule, return_predictions=False)
        elif cfg.stage == "test":
            trainer.test(classifier, datamodule, verbose=False)
        else:
            trainer.validate(classifier, datamodule, verbose=False)
        figures = {
            "status": "finished",
            "stage": cfg.stage,
            **_scalars(trainer),
            "seconds": round(time.perf_counter() - started, 3),
        }
        folder.write_metrics(figures, cfg.stage)
        console.conclude(figures, folder.path)
    return figures


# The parts, in the order of use.


def _changed_limits(cfg: DictConfig, folder: RunFolder) -> list[str]:
    """The limits of the fit that are other than the run had before."""
    before = OmegaConf.load(folder.path / "config.yaml").trainer
    return [name for name in ("max_epochs", "max_steps", "max_time") if before[name] != cfg.trainer[name]]


def _read_data(cfg: DictConfig) -> Any:
    """The data module, read: its ``spec`` tells the sizes."""
    datamodule = instantiate(cfg.data, LightningDataModule)
    datamodule.prepare_data()
    datamodule.setup("fit")
    if not isinstance(getattr(datamodule, "spec", None), DataSpec):
        raise ConfigError("data", cfg.data._target_, "needs a `spec`, a neurona.data.spec.DataSpec, after setup()")
    return datamodule


def _require_same_sizes(trained: DataSpec, given: DataSpec) -> None:
    for name in ("num_features", "num_classes", "class_names"):
        before, now = getattr(trained, name), getattr(given, name)
        if before != now:
            raise ConfigError(
                "data", "", f"{name} is {now}, but the run was trained with {before}; use data like the run's"
            )


def _start_from(folder: str, network: nn.Module) -> None:
    left = checkpoint.transfer(checkpoint.read(best_checkpoint(Path(folder), "init_from")), network)
    log.info("weights from %s%s", folder, f"; made anew, as the sizes differ: {', '.join(left)}" if left else "")


def _set_threads(threads: int | None, flops_per_sample_over_6: int) -> None:
    if threads is None:
        threads = 1 if 6 * flops_per_sample_over_6 < SMALL_STEP_FLOPS else torch.get_num_threads()
    torch.set_num_threads(threads)


def _new_folder(choices: Mapping[str, str]) -> str:
    name = choices.get("experiment") or choices["data"]
    return f"logs/{name}/{time.strftime('%Y-%m-%d_%H-%M-%S')}"


def _trainer(cfg: DictConfig, datamodule: Any) -> Trainer:
    callbacks = [instantiate(node, Callback) for node in cfg.trainer.callbacks.values() if node is not None]
    callbacks = [callback for callback in callbacks if getattr(callback, "active", True)]
    node = _without(cfg.trainer, "callbacks")
    if not getattr(datamodule, "has_validation", True):
        node.limit_val_batches = 0
    _check_trainer(node, cfg.trainer.callbacks, datamodule)
    loggers: list[Any] = [
        instantiate(child, Logger)  # type: ignore[type-abstract]
        for child in cfg.logger.values()
        if child is not None
    ]
    plugins = [checkpoint.AtomicCheckpointIO()]
    trainer = instantiate(
        node, Trainer, callbacks=callbacks, logger=loggers, plugins=plugins, default_root_dir=cfg.folder
    )
    if trainer.world_size > 1:
        raise ConfigError("trainer.devices", cfg.trainer.devices, "must be 1: a run trains on one device")
    return trainer


def _check_trainer(node: DictConfig, callbacks: DictConfig, datamodule: Any) -> None:
    """Refuses what Lightning would refuse later, in words that fit less well, or take without an effect."""
    for name, remedy in (
        ("gradient_clip_val", "belongs to the optimiser: optimizer.clip_norm, or optimizer.clip_value"),
        ("accumulate_grad_batches", "belongs to the optimiser: optimizer.accumulate"),
    ):
        if name in node:
            raise ConfigError(f"trainer.{name}", node[name], remedy)
    if node.max_epochs == 0 or node.max_steps == 0 or node.limit_train_batches == 0:
        name = next(name for name in ("max_epochs", "max_steps", "limit_train_batches") if node[name] == 0)
        raise ConfigError(f"trainer.{name}", 0, "leaves nothing to train; to evaluate a run use stage=test run=…")
    interval = node.val_check_interval
    if isinstance(interval, int) and node.check_val_every_n_epoch is not None and hasattr(datamodule, "train_rows"):
        batches = math.ceil(len(datamodule.train_rows) / datamodule.batch_size)
        if interval > batches:
            problem = f"an epoch has {batches} mini-batches; check_val_every_n_epoch=null counts across epochs"
            raise ConfigError("trainer.val_check_interval", interval, problem)
    stopping = callbacks.get("early_stopping")
    if node.limit_val_batches == 0 and stopping and stopping.patience:
        key = "trainer.callbacks.early_stopping.patience"
        problem = "needs a validation part; set data.val_fraction above 0, or patience=null"
        raise ConfigError(key, stopping.patience, problem)


def _without(node: DictConfig, *names: str) -> DictConfig:
    """A copy of a configuration node, in its place, without some of its keys."""
    rest = copy.deepcopy(node)
    with open_dict(rest):
        for name in names:
            del rest[name]
    return rest


def _plain(node: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


@contextlib.contextmanager
def _recorded(folder: RunFolder, trainer: Trainer, classifier: Classifier) -> Iterator[dict[str, Any]]:
    """Yields the run's figures and keeps ``metrics.json`` true: running, finished, failed or interrupted."""
    figures: dict[str, Any] = {"status": "running", "stage": "fit", "num_parameters": classifier.num_parameters}
    folder.write_metrics(figures, "fit")
    try:
        with _exit_statuses():
            yield figures
        figures["status"] = "finished"
    except BaseException as error:
        figures["status"] = "failed" if isinstance(error, Exception) else "interrupted"
        figures["error"] = (str(error).splitlines() or [type(error).__name__])[0]
        log.info("%s; to continue: python train.py run=%s", figures["status"], folder.path)
        raise
    finally:
        figures["epochs"], figures["steps"] = trainer.current_epoch, trainer.global_step
        folder.write_metrics(figures, "fit")


@contextlib.contextmanager
def _exit_statuses() -> Iterator[None]:
    """Lightning leaves with 1 on Ctrl-C and with 0 on SIGTERM; callers are to see an interruption and 143."""
    try:
        yield
    except SIGTERMException:
        sys.exit(143)
    except SystemExit:
        raise KeyboardInterrupt from None


def _best_figures(trainer: Trainer) -> dict[str, Any]:
    """Epoch and figures of the best checkpoint, as the callback that wrote it remembers them."""
    best = getattr(trainer.checkpoint_callback, "best", None)
    if not best:
        return _scalars(trainer)
    return {"best_epoch": best["epoch"], **best["figures"]}


def _scalars(trainer: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in trainer.callback_metrics.items()}
