"""Pictures, norms and other inspections for TensorBoard, besides the figures of training and evaluation."""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
from collections.abc import Mapping

import torch
from lightning.pytorch import Callback, Trainer
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from torch import Tensor, nn

from neurona.classifier import Classifier
from neurona.devices.lightning_internals import logged_step
from neurona.errors import check_range
from neurona.inspection import drawing
from neurona.inspection.drawing import Picture
from neurona.inspection.graph import graph
from neurona.inspection.loggers import TensorBoard, boards
from neurona.inspection.sample import Sample, take
from neurona.inspection.units import Units
from neurona.steps.norms import StepNorms

log = logging.getLogger("neurona")

MOST_FILTERS = 64


class Inspection(Callback):
    """Looks into a fit from the first process; nothing that it does changes the fit.

    norms: size of the gradient and of the update of each layer, at the steps whose loss is logged. units: dead and
    saturated units of each activation, at every validation. speed: samples per second and memory, each epoch.

    Of the best network, once it has been tested, and every ``every_n_epochs`` before, on at most ``max_rows`` rows:
    curves: precision and recall, ROC, reliability. confusion: confusion matrices. examples: the most confidently wrong.
    weights: those of the first layer as images, of image data. embeddings: what the last layer is given, in the
    projector. graph: the network.

    histograms: of weights, gradients and activations, every ``every_n_epochs``. Raises ConfigError.
    """

    chunk_aware = True

    def __init__(
        self,
        *,
        norms: bool,
        units: bool,
        speed: bool,
        curves: bool,
        confusion: bool,
        examples: bool,
        weights: bool,
        embeddings: bool,
        graph: bool,
        histograms: bool,
        every_n_epochs: int | None,
        max_rows: int,
    ) -> None:
        check_range("inspect.every_n_epochs", every_n_epochs, least=1)
        check_range("inspect.max_rows", max_rows, least=1)
        self.norms, self.units, self.speed, self.histograms = norms, units, speed, histograms
        self.curves, self.confusion, self.examples, self.weights = curves, confusion, examples, weights
        self.embeddings, self.graph = embeddings, graph
        self.every_n_epochs, self.max_rows = every_n_epochs, max_rows
        self._units: Units | None = None
        self._skipped: dict[str, None] = {}

    # During the fit.

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        if not trainer.is_global_zero or not trainer.loggers:
            return
        if self.norms or self.histograms:
            pl_module.norms = StepNorms(pl_module.network, keeps_gradients=self.histograms)
        if self.units or self.histograms:
            self._units = Units(pl_module.network, keeps_outputs=self.histograms)
        self._samples, self._since = pl_module.samples_taken, time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        if self._units is not None and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._units.start()

    def on_validation_end(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        if self._units is not None:
            self._units.stop()
            if self.units:
                pl_module.log_to_loggers(self._units.figures())
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            for logger in boards(trainer.loggers):
                self._show_part(logger, trainer, pl_module, "val")
                self._show_weights(logger, trainer, pl_module)
                self._show_histograms(logger, trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        if self.speed and trainer.is_global_zero and trainer.loggers:
            samples, now = pl_module.samples_taken, time.perf_counter()
            rate = (samples - self._samples) / (now - self._since)
            self._samples, self._since = samples, now
            pl_module.log_to_loggers({"speed/samples_per_second": rate, "speed/peak_memory_mb": peak_memory_mb()})

    # Of the best network.

    def on_test_end(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        if not trainer.is_global_zero:
            return
        for logger in boards(trainer.loggers):
            samples = [self._show_part(logger, trainer, pl_module, part) for part in ("val", "test")]
            self._show_weights(logger, trainer, pl_module)
            sample = next((sample for sample in samples if sample is not None), None)
            if sample is not None and self.embeddings:
                sample.log_embeddings(logger)
            if sample is not None and self.graph:
                features = sample.features[:2].to(pl_module.device)
                with torch.random.fork_rng():
                    definition = graph(pl_module.network, pl_module.preprocessing(features))
                logger.experiment.file_writer.add_event(Event(graph_def=definition.SerializeToString()))
        if self._skipped:
            log.info("inspect: without %s", "; ".join(self._skipped))

    def _show_part(self, logger: TensorBoard, trainer: Trainer, classifier: Classifier, part: str) -> Sample | None:
        """What the network says of a part of the data."""
        if not (self.confusion or self.curves or self.examples or self.embeddings or self.graph):
            return None
        sample = take(classifier, trainer.datamodule, part, self.max_rows)  # type: ignore[attr-defined]
        if sample is None:
            self._skipped[f"the {part} part's pictures (it is empty, or its rows are not in memory)"] = None
            return None
        pictures: dict[str, Picture] = {}
        if self.confusion:
            pictures["confusion"] = sample.confusion()
        if self.curves:
            for name, scores, positive in sample.by_class():
                logger.experiment.add_pr_curve(
                    f"precision_recall_{part}/{name}", positive, scores, logged_step(trainer)
                )
            pictures |= {"roc": sample.roc(), "reliability": sample.reliability()}
        if self.examples and len(wrong := sample.most_wrong()):
            if sample.spec.image_shape is not None:
                pictures["most_wrong"] = sample.wrong_images(wrong)
            else:
                logger.experiment.add_text(f"most_wrong/{part}", sample.wrong_rows(wrong), logged_step(trainer))
        for name, picture in pictures.items():
            logger.log_picture(f"{name}/{part}", picture, logged_step(trainer))
        return sample

    def _show_weights(self, logger: TensorBoard, trainer: Trainer, classifier: Classifier) -> None:
        """The first layer's weights, a picture for each unit."""
        if not self.weights:
            return
        shape = classifier.spec.image_shape
        linear = [(name, layer) for name, layer in classifier.network.named_modules() if isinstance(layer, nn.Linear)]
        if shape is None or not linear or linear[0][1].in_features != math.prod(shape):
            self._skipped["weights as images (the features are not pixels)"] = None
            return
        name, first = linear[0]
        filters = first.weight.detach()[:MOST_FILTERS].float().cpu().numpy().reshape(-1, *shape)
        picture = drawing.mosaic(drawing.signed(filters), [], f"{name}: weights of {len(filters)} units")
        logger.log_picture(f"weights/{name}", picture, logged_step(trainer))

    def _show_histograms(self, logger: TensorBoard, trainer: Trainer, classifier: Classifier) -> None:
        if not self.histograms:
            return
        kinds: dict[str, Mapping[str, Tensor]] = {"weights": dict(classifier.network.named_parameters())}
        if classifier.norms is not None:
            kinds["gradients"] = classifier.norms.gradients
        if self._units is not None:
            kinds["activations"] = self._units.outputs
        for kind, tensors in kinds.items():
            for name, tensor in tensors.items():
                logger.experiment.add_histogram(f"{kind}/{name}", tensor.detach().float(), logged_step(trainer))


def peak_memory_mb() -> float:
    """The largest use of memory so far, in 10⁶ bytes: the GPU's if there is one, otherwise the process's."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
