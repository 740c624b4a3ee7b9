"""What a validation or a test comes to: its figures, and the temperature by which logits are divided, so that
probabilities are right on average.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torchmetrics import Metric

from neurona.devices import distributed
from neurona.errors import ConfigError
from neurona.steps.diagnosis import require_finite_evaluation
from neurona.steps.steps import Classifier

LARGEST = 20.0
"""Temperatures are from its inverse to this."""
SPREAD = 0.5
"""Standard deviation of what the logarithm of a temperature is expected to be, around 0."""
HALVINGS = 30


def temperature(logits: Tensor, targets: Tensor, total: Callable[[Tensor], Any] = lambda sums: sums) -> float:
    """The temperature t with the least summed cross-entropy of softmax(logits / t), plus (log t)² / (2 · SPREAD²).

    logits: (rows, num_classes). targets: (rows,) int64. total: sums a tensor over all processes. Source: Guo et al.
    2017, arXiv:1706.04599, section 4.2, to which the second term adds a normal prior; without it, a few rows, if all
    are classified correctly, would make t as small as possible, and a later mistake costly. Bisection finds the zero of
    the derivative with respect to -log t. Returns 1 if there is no row or a logit is not finite.
    """
    logits = logits.double()
    of_targets = logits.gather(1, targets.unsqueeze(1)).sum()

    def slope(exponent: float) -> float:
        inverse = math.exp(exponent)
        expected = (torch.softmax(logits * inverse, dim=1) * logits).sum()
        return inverse * float(total(expected - of_targets)) + exponent / SPREAD**2

    if not math.isfinite(slope(0.0)):
        return 1.0
    low, high = -math.log(LARGEST), math.log(LARGEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


class Evaluation(Callback):
    """Reports what the metrics of a validation or a test come to."""

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        pl_module.uncalibrated = []  # of a validation that was broken off
        distributed.share(pl_module.network.buffers())  # running averages are of each process's rows: rank 0's count

    def on_test_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        distributed.share(pl_module.state_dict().values())  # another host may still see the checkpoint before the best

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        if pl_module.uncalibrated:
            _calibrate(trainer, pl_module)
        _finish(pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        _finish(pl_module, "test")


def _calibrate(trainer: Trainer, classifier: Classifier) -> None:
    """Sets the temperature by a validation's logits, and tells the metrics of what they are with it."""
    pairs, classifier.uncalibrated = classifier.uncalibrated, []
    logits, targets = (torch.cat(parts).cpu() for parts in zip(*pairs, strict=True))

    def total(sums: Tensor) -> Any:
        if trainer.world_size == 1:
            return sums
        return trainer.strategy.reduce(sums.to(classifier.device), reduce_op="sum")

    classifier.calibration.fill_(temperature(logits, targets, total))
    for logits, targets in pairs:
        classifier.metrics.update(logits / classifier.calibration, targets)


def _finish(classifier: Classifier, part: str) -> None:
    """Reports what the metrics come to; nothing where no step has told them of a mini-batch, as one of one's own may
    report what it likes.
    """
    classifier.confusion_matrix = []
    metrics = classifier.metrics
    if not any(metric.update_called for metric in metrics.modules() if isinstance(metric, Metric)):
        return
    computed = metrics.compute()
    metrics.reset()
    confusion, class_accuracy = (computed.pop(name, None) for name in ("confusion_matrix", "class_accuracy"))
    if confusion is not None:
        classifier.confusion_matrix = confusion.tolist()
    if wide := [name for name, value in computed.items() if value.numel() != 1]:
        problem = f"computes {wide[0]} of shape {list(computed[wide[0]].shape)}: a figure is one number"
        raise ConfigError("classifier.metrics_class", type(metrics).__qualname__, problem)
    figures = {f"{part}/{name}": value.item() for name, value in computed.items()}
    require_finite_evaluation(figures.get(f"{part}/loss", 0.0), part, classifier)
    if class_accuracy is not None:
        for name, value in zip(classifier.spec.class_names, class_accuracy.tolist(), strict=True):
            figures[f"{part}/accuracy_of/{name}"] = value
    classifier.report(figures)
