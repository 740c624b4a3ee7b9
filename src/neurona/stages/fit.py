"""``stage=fit``: begins or continues a run; fits, then tests the best checkpoint once."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from neurona.callbacks.checkpoints import BestAndLast
from neurona.classifier import Classifier
from neurona.config import reads
from neurona.inspection import trackers
from neurona.inspection.loggers import Csv, TensorBoard, hyperparameters, log_results, log_texts
from neurona.runs import checkpoint, configuration
from neurona.runs.folder import RunFolder, begun_before
from neurona.stages import assembly, console, first_batch, limits, record, resume
from neurona.stages.request import Request
from neurona.stages.trainer import build
from neurona.steps.training import scalars

log = logging.getLogger("neurona")


def run(request: Request) -> dict[str, Any]:
    """Returns the figures of ``metrics.json``; those that are there of a run that is finished and stays so."""
    cfg, is_stored = request.cfg, request.cfg.run is not None
    earlier = _earlier(request)
    reads.check_fit(request.beside_run(earlier))
    last = resume.last_checkpoint(earlier) if earlier else None
    threads = earlier.threads() if earlier else None
    classifier, datamodule = assembly.untrained(cfg, threads, request.arrays, is_stored=is_stored)
    if cfg.init_from is not None and last is None:
        assembly.start_from(cfg.init_from, classifier)
    trainer, folder = _placed(request, earlier, classifier, datamodule)
    steps_made = 0
    if last is not None:
        changed = resume.changes(cfg.trainer, folder)
        if changed is None:
            if request.arrays is not None:
                resume.require_same(last, classifier, datamodule)
            return folder.metrics()
        steps_made = resume.start(last, changed, folder, trainer, classifier, datamodule)
    if earlier is not None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard | Csv):
                logger.forget_after(steps_made - 1)  # the axis of steps begins at 0

    checkpoints = trainer.checkpoint_callback
    assert isinstance(checkpoints, BestAndLast)
    checkpoints.preemption = request.preemption
    with console.train_log(folder):
        with record.recorded(request, folder, trainer, classifier) as figures:
            _introduce(request, folder, trainer, classifier, datamodule, steps_made)
            params = hyperparameters(cfg, request.choices)
            names = [name for name, node in cfg.logger.items() if node is not None]
            loggers = dict(zip(names, trainer.loggers, strict=False))
            with trackers.tracked(loggers, params, folder.path if folder.is_written else None):
                with record.timed(figures):
                    why = _fit_and_test(figures, folder, trainer, classifier, datamodule, last)
                figures["epochs"], figures["steps"] = record.epochs(trainer), trainer.global_step
                log_results(trainer.loggers, params, figures)
        if folder.is_written and not checkpoints.keeps_last:
            checkpoints.remove_last()
        best = f"best epoch {figures['best_epoch'] + 1}"  # counted from 1, as the lines of the epochs are
        ending = f" on {console.device(trainer)}; {why}; {best}"
        console.conclude(figures, folder.path, ending, limits.shortened(cfg.trainer, datamodule))
    return figures


def _earlier(request: Request) -> RunFolder | None:
    """The run to continue: the one that ``run`` names, or that this job began before the scheduler restarted it."""
    cfg = request.cfg
    if cfg.run is None and (begun := begun_before(Path(request.place()), request.overrides)):
        log.info("this job was restarted and continues its run %s", begun)
        configuration.take_over(cfg, begun)
    return request.open_folder() if cfg.run else None


def _placed(
    request: Request, earlier: RunFolder | None, classifier: Classifier, datamodule: Any
) -> tuple[Trainer, RunFolder]:
    """The Trainer and the run's folder. The Trainer comes first, as it refuses mistakes before there is a folder and
    lets processes agree on one; it is built again where that is called other than was asked for.
    """
    cfg, place = request.cfg, request.cfg.folder
    cfg.folder = cfg.run or request.place()
    trainer = build(cfg, datamodule, classifier)
    limits.check_optimizers(classifier, trainer, request.overrides)
    first_batch.check(cfg, trainer, classifier, datamodule)
    trainer.strategy.setup_environment()
    folder = earlier or request.create_folder(trainer)
    if str(folder.path) != cfg.folder:
        if place and earlier is None:
            log.warning("%s exists already: this run's folder is %s", place, folder.path)
        cfg.folder = str(folder.path)
        trainer = build(cfg, datamodule, classifier)
    return trainer, folder


def _introduce(
    request: Request, folder: RunFolder, trainer: Trainer, classifier: Classifier, datamodule: Any, steps_made: int
) -> None:
    """Says what the run is: in its folder, on the console and to the loggers."""
    if kept := folder.describe(request.cfg, request.overrides, request.choices):
        log.info("texts from the environment, which are not stored: %s", ", ".join(kept))
    texts = {"summary": console.introduce(request.cfg, classifier, trainer, datamodule, folder.path)}
    if getattr(datamodule, "card", None):
        texts["data_card"] = console.show_card(datamodule, folder)
    if folder.is_written:
        texts["command"] = request.command(configuration.without_run(request.overrides))
        texts["config"] = (folder.path / "config.yaml").read_text(encoding="utf-8")
        log_texts(trainer.loggers, texts, steps_made)


def _fit_and_test(
    figures: dict[str, Any],
    folder: RunFolder,
    trainer: Trainer,
    classifier: Classifier,
    datamodule: Any,
    last: Path | None,
) -> str:
    """Adds the figures of fit and test to ``figures``. last: where to go on from. Returns why the fit ended."""
    started = time.perf_counter()
    trainer.fit(classifier, datamodule, ckpt_path=last, weights_only=True)
    record.require_steps(trainer, classifier)
    figures["samples_per_second"] = round(classifier.samples_taken / (time.perf_counter() - started))
    figures["stopped_by"], why = record.why_ended(trainer)
    best: dict[str, Any] = trainer.checkpoint_callback.best  # type: ignore[union-attr]
    figures |= {"best_epoch": best["epoch"], **best["figures"]}
    if figures["stopped_by"] != "pruning":
        # Not by ``ckpt_path``: a callback that averages weights would put others in the place of the file's.
        checkpoint.restore(checkpoint.read(folder.best_checkpoint), classifier)
        if getattr(datamodule, "has_test", True):
            trainer.test(classifier, datamodule, verbose=False)
            figures |= scalars(trainer)
            folder.write_confusion("test", classifier.spec.class_names, classifier.confusion_matrix)
    return why
