"""Runs one stage: fit, validate, test, predict, export or lr_find."""

from __future__ import annotations

import contextlib
import errno
import logging
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, open_dict

from neurona import assembly, checkpoint, command, config, console, cpu, distributed, launch, lr_find, resume
from neurona.callbacks.checkpoints import BestAndLast, scalars
from neurona.callbacks.predictions import AsGiven, CsvPredictions
from neurona.callbacks.preemption import Preemption
from neurona.classifier import Classifier, NonFiniteLoss
from neurona.config import ConfigError, RunError
from neurona.hints import CONFIG_DIR
from neurona.loggers import Csv, TensorBoard, log_hyperparameters, log_texts
from neurona.run_folder import RunFolder, begun_before, unwritable
from neurona.trainer import build, build_for_evaluation, build_for_range_test, loggers, why_ended

log = logging.getLogger("neurona")

ENDED = ("status", "error", "stopped_by")
"""What tells how a fit has ended, which does not hold once it goes on."""

PART = {"validate": "val", "test": "test"}


def run(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Does what ``python train.py *overrides`` does. Returns the figures of ``metrics.json`` and, as ``folder``, where
    they are.

    Raises ConfigError or DataError for a mistake, before a run folder exists.
    """
    if isinstance(overrides, str):
        raise ConfigError("overrides", overrides, f"must be a list: neurona.run([{overrides!r}])")
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
        return execute(cfg, hydra.runtime.choices, launch.given(hydra), unread)


def execute(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str], unread: config.Unread
) -> dict[str, Any]:
    """Finishes the checks that need imports, then runs the stage."""
    config.check_imported(unread)
    launch.end_with_parent()
    console.quieten(cfg.quiet or distributed.rank() > 0)
    torch.set_float32_matmul_precision(cfg.float32_matmul)
    with cpu.prepared(), Preemption() as preemption, contextlib.ExitStack() as held:
        if cfg.stage in BEGINNING:
            figures = BEGINNING[cfg.stage](cfg, choices, overrides, held, preemption)
        else:
            figures = _evaluate(cfg, held)
        distributed.disconnect()
        return {**figures, "folder": cfg.folder}


def _fit(
    cfg: DictConfig,
    choices: Mapping[str, str],
    overrides: Sequence[str],
    held: contextlib.ExitStack,
    preemption: Preemption,
) -> dict[str, Any]:
    """Fits, then tests the best checkpoint once."""
    if cfg.run is None and (begun := begun_before(Path(cfg.folder or _new_folder(choices)), overrides)):
        log.info("this job has been restarted and goes on with its run %s", begun)
        cfg.run = str(begun)
    earlier = held.enter_context(RunFolder.open(Path(cfg.run))) if cfg.run else None
    last = resume.last_checkpoint(earlier) if earlier else None
    classifier, datamodule = assembly.untrained(cfg, earlier.threads() if earlier else None)
    if cfg.init_from is not None and last is None:
        assembly.start_from(cfg.init_from, classifier.network)

    wanted = cfg.folder
    cfg.folder = cfg.run or cfg.folder or _new_folder(choices)
    trainer = build(cfg, datamodule, classifier)
    trainer.strategy.setup_environment()
    folder = earlier or held.enter_context(_create_folder(Path(cfg.folder), trainer))
    if str(folder.path) != cfg.folder:
        if wanted and earlier is None:
            log.warning("%s exists already: this run's folder is %s", wanted, folder.path)
        cfg.folder = str(folder.path)
        trainer = build(cfg, datamodule, classifier)
    step = -1
    if earlier is not None:
        if last is not None:
            changed = resume.changes(cfg.trainer, earlier)
            if changed is None:
                return earlier.metrics()
            step = resume.start(last, changed, earlier, trainer, classifier, datamodule)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard | Csv):
                logger.forget_after(step)

    checkpoints = trainer.checkpoint_callback
    assert isinstance(checkpoints, BestAndLast)
    checkpoints.preemption = preemption
    with console.train_log(folder), _recorded(folder, trainer, classifier, preemption, "fit") as figures:
        folder.describe(cfg, overrides)
        texts = {"summary": console.summary(cfg, classifier, trainer)}
        log.info("%s\nfolder   %s", texts["summary"], folder.path)
        if card := getattr(datamodule, "card", None):
            texts["data_card"] = console.show_card(card, folder)
        if folder.is_written:
            anew = [override for override in overrides if not override.startswith("run=")]
            texts["command"] = shlex.join(["python", "train.py", *anew])
            texts["config"] = (folder.path / "config.yaml").read_text(encoding="utf-8")
            log_texts(trainer.loggers, texts, max(step, 0))
        started = time.perf_counter()
        trainer.fit(classifier, datamodule, ckpt_path=last, weights_only=True)
        fit_seconds = time.perf_counter() - started
        figures["samples_per_second"] = round(classifier.samples_taken / fit_seconds)
        figures["stopped_by"], words = why_ended(trainer)
        if words:
            log.info(words)
        figures |= {"best_epoch": checkpoints.best["epoch"], **checkpoints.best["figures"]}
        if figures["stopped_by"] != "pruning":
            trainer.test(classifier, datamodule, ckpt_path=folder.best_checkpoint, weights_only=True, verbose=False)
            figures |= scalars(trainer)
            folder.write_confusion("test", classifier.spec.class_names, classifier.confusion_matrix)
        figures["seconds"] = round(time.perf_counter() - started, 3)
        figures["epochs"], figures["steps"] = _epochs(trainer), trainer.global_step
        log_hyperparameters(trainer.loggers, cfg, choices, figures, checkpoints.last)
    if folder.is_written and not checkpoints.keeps_last:
        checkpoints.remove_last()
    with console.train_log(folder):
        console.conclude(figures, folder.path)
    return figures


def _find_lr(
    cfg: DictConfig,
    choices: Mapping[str, str],
    overrides: Sequence[str],
    held: contextlib.ExitStack,
    preemption: Preemption,
) -> dict[str, Any]:
    """Fits at rising learning rates for a moment, in a run folder of its own, and suggests one."""
    if cfg.run is not None:
        problem = "lr_find begins with new weights; give the run's settings instead, or init_from= for its weights"
        raise ConfigError("run", cfg.run, problem)
    if distributed.world_size() > 1:
        raise ConfigError("stage", "lr_find", "works on one device: start one process, with trainer=auto")
    test = config.instantiate(cfg.lr_find, lr_find.RangeTest)
    rng = checkpoint.rng_state()
    held.callback(checkpoint.restore_rng, rng)
    cfg.folder = cfg.folder or _new_folder(choices)
    fitted = test.of_fit(cfg)
    classifier, datamodule = assembly.untrained(fitted)
    if cfg.init_from is not None:
        assembly.start_from(cfg.init_from, classifier.network)
    trainer = build_for_range_test(fitted, datamodule, test)
    folder = held.enter_context(_create_folder(Path(cfg.folder), trainer))
    cfg.folder = str(folder.path)
    with console.train_log(folder), _recorded(folder, trainer, classifier, preemption, "lr_find") as figures:
        folder.describe(cfg, overrides)
        log.info("%s\nfolder   %s", console.summary(cfg, classifier, trainer), folder.path)
        started = time.perf_counter()
        test.fit(trainer, classifier, datamodule)
        suggested = test.suggestion()
        figures |= {"suggested_lr": suggested, "lowest_lr": test.rates[0], "highest_lr": test.rates[-1]}
        figures["stopped_by"] = "divergence" if test.has_diverged else "max_steps"
        figures["seconds"] = round(time.perf_counter() - started, 3)
        figure = test.write(folder.path, suggested)
        for logger in loggers(cfg):
            if isinstance(logger, TensorBoard):
                logger.experiment.add_figure("lr_find", figure)
                logger.finalize("success")
        if suggested is None:
            raise RunError(test.why_none())
        log.info("%s\noptimizer.lr=%.1e", folder.path / "lr_find.png", suggested)
    return figures


def _evaluate(cfg: DictConfig, held: contextlib.ExitStack) -> dict[str, Any]:
    """Validates, tests or predicts with an earlier run's best checkpoint, or exports it."""
    if cfg.run is None:
        raise ConfigError("stage", cfg.stage, "works on an earlier run: add run=<its folder>")
    if cfg.stage == "export":
        return _export(cfg, held)
    folder = held.enter_context(RunFolder.open(Path(cfg.run)))
    classifier, datamodule = assembly.trained(cfg, folder)
    cfg.folder = str(folder.path)
    callbacks: list[Callback] = []
    if cfg.stage == "predict":
        rows = getattr(datamodule, "test_rows", None)
        callbacks.append(CsvPredictions(folder.path / "predictions.csv", datamodule.spec.class_names, rows))
    trainer = build_for_evaluation(cfg, callbacks)
    if cfg.stage == "predict" and distributed.world_size() > 1:
        raise ConfigError("stage", "predict", "works on one device: start one process, with trainer=auto")
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
        seconds = round(time.perf_counter() - started, 3)
        figures = {"status": "finished", "stage": cfg.stage, **scalars(trainer), "seconds": seconds}
        folder.write_metrics(figures, cfg.stage)
        if cfg.stage in PART:
            folder.write_confusion(PART[cfg.stage], datamodule.spec.class_names, classifier.confusion_matrix)
        console.conclude(figures, folder.path)
    return figures


def _export(cfg: DictConfig, held: contextlib.ExitStack) -> dict[str, Any]:
    """Writes an earlier run's best checkpoint in the forms of ``neurona.export``."""
    from neurona import export

    export.check()
    folder = held.enter_context(RunFolder.open(Path(cfg.run)))
    classifier, datamodule = assembly.trained(cfg, folder)
    with console.train_log(folder), _ended(folder):
        figures = export.write(classifier, datamodule, folder)
        folder.write_metrics(figures, cfg.stage)
        console.conclude(figures, folder.path)
    return figures


def _create_folder(path: Path, trainer: Trainer) -> RunFolder:
    """The new run's folder: rank 0 makes it, the others learn what it is called."""
    made = RunFolder.create(path) if trainer.is_global_zero else None
    named = trainer.strategy.broadcast(str(made.path) if made else "")
    return made or RunFolder(Path(named))


def _new_folder(choices: Mapping[str, str]) -> str:
    name = choices.get("experiment") or choices["data"]
    return f"logs/{name}/{time.strftime('%Y-%m-%d_%H-%M-%S')}"


@contextlib.contextmanager
def _recorded(
    folder: RunFolder, trainer: Trainer, classifier: Classifier, preemption: Preemption, stage: str
) -> Iterator[dict[str, Any]]:
    """Yields the run's figures and keeps the stage's ``metrics.json`` true: running, finished, pruned, failed or
    interrupted.

    The figures of a run that goes on stay until there are newer ones. Raises RunError where the disk is full.
    """
    figures: dict[str, Any] = {"status": "running", "stage": stage, "num_parameters": classifier.num_parameters}
    figures |= {"epochs": 0, "steps": 0}
    figures |= {name: value for name, value in folder.metrics().items() if name not in ENDED}

    def write() -> None:
        if trainer.global_step:
            figures["epochs"], figures["steps"] = _epochs(trainer), trainer.global_step
        folder.write_metrics(figures, stage)

    write()
    try:
        with console.quiet_writers(), _ended(folder), preemption.kept_from_workers():
            yield figures
    except BaseException as error:
        figures["status"] = "failed" if isinstance(error, Exception) else "interrupted"
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        figures["error"] = first_line if isinstance(error, Exception) else preemption.name or first_line
        goes_on = stage == "fit" and not isinstance(error, NonFiniteLoss)  # the same would become of it again
        remedy = "; to continue: python train.py run=" if goes_on else ": "
        log.info("%s%s%s", figures["status"], remedy, folder.path)
        with contextlib.suppress(RunError):  # the disk may be what failed
            write()
        raise
    figures["status"] = "pruned" if figures["stopped_by"] == "pruning" else "finished"
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


BEGINNING = {"fit": _fit, "lr_find": _find_lr}
"""The stages that begin with new weights; the others work on those of an earlier run."""
