"""``stage=validate``, ``test`` and ``predict``: works with the best checkpoint of an earlier run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from neurona.callbacks.predictions import AsGiven, CsvPredictions
from neurona.classifier import Classifier
from neurona.devices import distributed
from neurona.errors import ConfigError
from neurona.stages import assembly, console, record
from neurona.stages.request import Request
from neurona.stages.trainer import build_for_evaluation
from neurona.steps.training import scalars

EVALUATED_PART = {"validate": "val", "test": "test"}


def run(request: Request) -> dict[str, Any]:
    """Returns the figures of ``metrics_<stage>.json``."""
    cfg, stage = request.cfg, request.cfg.stage
    folder = request.open_folder()
    classifier, datamodule = assembly.trained(request, folder)
    cfg.folder = str(folder.path)
    callbacks: list[Callback] = []
    if stage == "predict":
        rows = getattr(datamodule, "test_rows", None)
        callbacks.append(CsvPredictions(folder.path / "predictions.csv", datamodule.spec.class_names, rows))
    trainer = build_for_evaluation(cfg, callbacks)
    if stage == "predict" and distributed.world_size() > 1:
        raise ConfigError("stage", "predict", "works on one device: start one process, with trainer=auto")
    with console.train_log(folder), record.ends_explained(folder):
        figures: dict[str, Any] = {"status": "finished", "stage": stage}
        with record.timed(figures):
            if stage == "predict":
                _predict(trainer, classifier, datamodule)
            else:
                evaluate = trainer.test if stage == "test" else trainer.validate
                evaluate(classifier, datamodule, verbose=False)
            figures |= scalars(trainer)
        folder.write_metrics(figures, stage)
        if stage in EVALUATED_PART:
            part = EVALUATED_PART[stage]
            folder.write_confusion(part, datamodule.spec.class_names, classifier.confusion_matrix)
        console.conclude(figures, folder.path)
    return figures


def _predict(trainer: Trainer, classifier: Classifier, datamodule: Any) -> None:
    """Predicts the test part, or the data of the module's own loader for predictions."""
    make_loader = datamodule.predict_dataloader
    if not is_overridden("predict_dataloader", datamodule):
        datamodule.setup("test")
        make_loader = datamodule.test_dataloader
    datamodule.predict_dataloader = lambda: AsGiven(make_loader())
    trainer.predict(classifier, datamodule, return_predictions=False)
