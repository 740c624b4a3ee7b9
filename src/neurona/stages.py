"""Builds the objects of a run in reading order and runs one stage: fit, validate, test or predict."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
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
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from neurona import checkpoint, command, config, console, distributed, launch, resume
from neurona.callbacks.checkpoints import BestAndLast, scalars
from neurona.callbacks.predictions import AsGiven, CsvPredictions
from neurona.callbacks.preemption import Preemption, without_handlers
from neurona.classifier import Classifier
from neurona.config import ConfigError, RunError, instantiate
from neurona.data.spec import DataSpec
from neurona.loggers import Csv, TensorBoard, log_configuration, log_hyperparameters
from neurona.optimizer import Optimization
from neurona.run_folder import RunFolder, begun_before, best_checkpoint, unwritable
from neurona.trainer import build, why_ended, without

log = logging.getLogger("neurona")

CONFIG_DIR = Path(__file__).parents[2] / "configs"

ENDED = ("status", "error", "stopped_by")
"""What tells how a fit has ended, which does not hold once it goes on."""

PART = {"validate": "val", "test": "test"}

DEFAULT_THREADS = torch.get_num_threads()

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
        if number := launch.count(cfg):
            problem = f"{number} processes are started by the command line: python train.py …"
            raise ConfigError("trainer.devices", cfg.trainer.devices, problem)
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
    launch.end_with_parent()
    console.quieten(cfg.quiet or distributed.rank() > 0)
    torch.set_float32_matmul_precision(cfg.float32_matmul)
    with Preemption() as preemption, contextlib.ExitStack() as held:
        fits = cfg.stage == "fit"
        figures = _fit(cfg, choices, overrides, held, preemption) if fits else _evaluate(cfg, held)
        distributed.disconnect()
        return figures


def _fit(
    cfg: DictConfig,
    choices: Mapping[str, str],
    overrides: Sequence[str],
    held: contextlib.ExitStack,
    preemption: Preemption,
) -> dict[str, Any]:
    """Fits, then tests the best checkpoint once."""
    optimization = instantiate(cfg.optimizer, Optimization)
    if cfg.run is None and (begun := begun_before(Path(cfg.folder or _new_folder(choices)), overrides)):
        log.info("this job has been restarted and goes on with its run %s", begun)
        cfg.run = str(begun)
    earlier = held.enter_context(RunFolder.open(Path(cfg.run))) if cfg.run else None
    last = resume.last_checkpoint(earlier) if earlier else None
    _check_network(cfg, num_features=64, num_classes=10)  # its ranges, before any data is read
    seed_everything(cfg.seed, verbose=False)
    datamodule = _read_data(cfg)
    spec = datamodule.spec
    _check_network(cfg, spec.num_features, spec.num_classes)
    seed_everything(cfg.seed, verbose=False)  # again: whatever the data drew, the weights are the same
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
    _check_fit(classifier, datamodule)
    if cfg.init_from is not None and last is None:
        _start_from(cfg.init_from, network)

    cfg.folder = cfg.run or cfg.folder or _new_folder(choices)
    trainer = build(cfg, datamodule, classifier)
    trainer.strategy.setup_environment()
    folder = earlier or held.enter_context(_create_folder(Path(cfg.folder), trainer))
    if str(folder.path) != cfg.folder:
        cfg.folder = str(folder.path)
        trainer = build(cfg, datamodule, classifier)
    if earlier is not None:
        step = -1
        if last is not None:
            changed = resume.changes(cfg.trainer, earlier)
            if changed is None:
                return earlier.metrics()
            last, step = resume.start(last, changed, earlier, trainer, classifier, datamodule)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard | Csv):
                logger.forget_after(step)

    assert isinstance(trainer.checkpoint_callback, BestAndLast)
    trainer.checkpoint_callback.preemption = preemption
    with console.train_log(folder), _recorded(folder, trainer, classifier, preemption) as figures:
        folder.describe(cfg, overrides)
        console.introduce(cfg, classifier, trainer, folder.path)
        if folder.is_written:
            log_configuration(trainer.loggers, folder.path)
        started = time.perf_counter()
        trainer.fit(classifier, datamodule, ckpt_path=last, weights_only=True)
        fit_seconds = time.perf_counter() - started
        figures["samples_per_second"] = round(classifier.samples_taken / fit_seconds)
        figures["stopped_by"], words = why_ended(trainer)
        if words:
            log.info(words)
        figures |= _best_figures(trainer)
        trainer.test(classifier, datamodule, ckpt_path=folder.best_checkpoint, weights_only=True, verbose=False)
        figures |= scalars(trainer)
        folder.write_confusion("test", spec.class_names, classifier.confusion_matrix)
        figures["seconds"] = round(time.perf_counter() - started, 3)
        figures["epochs"], figures["steps"] = _epochs(trainer), trainer.global_step
        log_hyperparameters(trainer.loggers, cfg, choices, figures)
    with console.train_log(folder):
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
    node = without(cfg.trainer, "callbacks", "enable_checkpointing")
    distributed.follow_launcher(node)
    trainer = instantiate(
        node,
        Trainer,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        plugins=[distributed.environment()],
        default_root_dir=cfg.folder,
    )
    distributed.check(trainer, cfg.trainer)
    if cfg.stage == "predict" and distributed.world_size() > 1:
        raise ConfigError("stage", "predict", "works on one device: start one process, with trainer=auto")
    without_handlers(trainer)
    with console.train_log(folder), _ended(folder):
        started = time.perf_counter()
        if cfg.stage == "predict":
            given = datamodule.predict_dataloader
            if not is_overridden("predict_dataloader", datamodule):  # predict takes the test part
                datamodule.setup("test")
                given = datamodule.test_dataloader
            datamodule.predict_dataloader = lambda: AsGiven(given())
            trainer.predict(classifier, datamodule, return_predictions=False)
        elif cfg.stage == "test":
            trainer.test(classifier, datamodule, verbose=False)
        else:
            trainer.validate(classifier, datamodule, verbose=False)
        figures = {
            "status": "finished",
            "stage": cfg.stage,
            **scalars(trainer),
            "seconds": round(time.perf_counter() - started, 3),
        }
        folder.write_metrics(figures, cfg.stage)
        if cfg.stage in PART:
            folder.write_confusion(PART[cfg.stage], datamodule.spec.class_names, classifier.confusion_matrix)
        console.conclude(figures, folder.path)
    return figures


# The parts, in the order of use.


def _check_network(cfg: DictConfig, num_features: int, num_classes: int) -> None:
    """Refuses ranges, and weights that this machine's memory cannot hold, before there are any."""
    if not cfg.model._target_.startswith("neurona."):
        return
    with torch.device("meta"):
        network = instantiate(cfg.model, nn.Module, num_features=num_features, num_classes=num_classes)
    needed = sum(parameter.nbytes for parameter in network.parameters())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        problem = f"its weights take {needed / 2**30:,.0f} GiB of the {memory / 2**30:,.0f} there are; make it smaller"
        raise ConfigError("model", cfg.model._target_, problem)


def _check_fit(classifier: Classifier, datamodule: Any) -> None:
    """Refuses what the data cannot give the classifier."""
    if classifier.balanced and not hasattr(datamodule, "class_counts"):
        problem = "needs data that count their classes (class_counts); give one weight per class"
        raise ConfigError("classifier.class_weights", "balanced", problem)
    normalized = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in classifier.network.modules())
    if normalized and hasattr(datamodule, "train_rows"):
        rows, size, processes = len(datamodule.train_rows), datamodule.batch_size, distributed.world_size()
        # Of parts that differ by one row at most, some have one row if there are fewer than two for every process.
        if any(0 < taken < 2 * processes for taken in (size, rows % size)):
            shared = f"for one of {processes} processes " if processes > 1 else ""
            problem = f"of {rows} rows leaves {shared}a mini-batch of one, which batch normalization cannot take"
            raise ConfigError("data.batch_size", size, f"{problem}; use another")


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


def _create_folder(path: Path, trainer: Trainer) -> RunFolder:
    """The new run's folder: rank 0 makes it, the others learn what it is called."""
    made = RunFolder.create(path) if trainer.is_global_zero else None
    named = trainer.strategy.broadcast(str(made.path) if made else "")
    return made or RunFolder(Path(named))


def _start_from(folder: str, network: nn.Module) -> None:
    contents = checkpoint.read(best_checkpoint(Path(folder).expanduser(), "init_from"))
    left = checkpoint.transfer(contents, network)
    log.info("weights from %s%s", folder, f"; made anew, as the sizes differ: {', '.join(left)}" if left else "")


def _set_threads(threads: int | None, parameters_times_samples: int) -> None:
    if threads is None:
        cores = max(1, DEFAULT_THREADS // distributed.local_world_size())
        threads = 1 if 6 * parameters_times_samples < SMALL_STEP_FLOPS else cores
    torch.set_num_threads(threads)


def _new_folder(choices: Mapping[str, str]) -> str:
    name = choices.get("experiment") or choices["data"]
    return f"logs/{name}/{time.strftime('%Y-%m-%d_%H-%M-%S')}"


def _plain(node: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


@contextlib.contextmanager
def _recorded(
    folder: RunFolder, trainer: Trainer, classifier: Classifier, preemption: Preemption
) -> Iterator[dict[str, Any]]:
    """Yields the run's figures and keeps ``metrics.json`` true: running, finished, failed or interrupted.

    The figures of a run that goes on stay until there are newer ones. Raises RunError where the disk is full.
    """
    figures: dict[str, Any] = {"status": "running", "stage": "fit", "num_parameters": classifier.num_parameters}
    figures |= {"epochs": 0, "steps": 0}
    figures |= {name: value for name, value in folder.metrics().items() if name not in ENDED}

    def write() -> None:
        if trainer.global_step:
            figures["epochs"], figures["steps"] = _epochs(trainer), trainer.global_step
        folder.write_metrics(figures, "fit")

    write()
    try:
        with _ended(folder), preemption.kept_from_workers():
            yield figures
    except BaseException as error:
        figures["status"] = "failed" if isinstance(error, Exception) else "interrupted"
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        figures["error"] = first_line if isinstance(error, Exception) else preemption.name or first_line
        log.info("%s; to continue: python train.py run=%s", figures["status"], folder.path)
        with contextlib.suppress(RunError):  # the disk may be what failed
            write()
        raise
    figures["status"] = "finished"
    write()


@contextlib.contextmanager
def _ended(folder: RunFolder) -> Iterator[None]:
    """Lightning leaves with 1 on Ctrl-C; callers are to see an interruption, and a RunError where the disk is full or
    has become read-only, or another process of the run is gone.
    """
    try:
        yield
    except SIGTERMException:
        raise
    except SystemExit:
        raise KeyboardInterrupt from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise unwritable(folder.path, error) from error
    except RuntimeError as error:
        if not distributed.is_lost(error):
            raise
        reason = str(error).rpartition("]")[2].strip() or type(error).__name__
        problem = f"another process of this run has ended or cannot be reached ({reason})"
        raise RunError(f"{problem}; to continue: python train.py run={folder.path}") from error


def _epochs(trainer: Trainer) -> int:
    """Epochs made; ``current_epoch`` would leave out the last one of a fit that a resume found ended."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return progress.processed


def _best_figures(trainer: Trainer) -> dict[str, Any]:
    """Epoch and figures of the best checkpoint, as the callback that wrote it remembers them."""
    assert isinstance(trainer.checkpoint_callback, BestAndLast)
    best = trainer.checkpoint_callback.best
    return {"best_epoch": best["epoch"], **best["figures"]}
