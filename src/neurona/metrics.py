"""What training reports, and what validation and test do, computed with torchmetrics: every sample counts once on any
number of devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

BINS = 15
"""Of the calibration error."""

SUMS = ("loss", "correct", "samples")
"""Of mini-batches."""


class StepFigures:
    """The figures of training steps: means over the epoch so far, and since the last step that was logged.

    samples: training samples taken since this process was started, by all processes. rates: the learning rate of
    each group of parameters in the last step, none before the first.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.rates: list[Any] = []
        self._epoch = dict.fromkeys(SUMS, 0.0)
        self._since_logged = dict.fromkeys(SUMS, 0.0)

    def add(self, losses: Sequence[float], samples: Sequence[int], correct: float) -> None:
        """Adds the figures of some mini-batches. losses, samples: mean loss and number of samples of each. correct: how
        many samples of all were classified correctly.
        """
        loss_sum = sum(loss * number for loss, number in zip(losses, samples, strict=True))
        for sums in (self._epoch, self._since_logged):
            for name, value in zip(SUMS, (loss_sum, correct, sum(samples)), strict=True):
                sums[name] += value
        self.samples += sum(samples)

    def epoch_means(self) -> tuple[float, float]:
        """Mean loss and accuracy of the epoch so far, NaN before its first mini-batch."""
        return _means(self._epoch)

    def begin_epoch(self) -> None:
        """Starts the sums of a new epoch."""
        self._epoch = dict.fromkeys(SUMS, 0.0)

    def logged_loss(self) -> float:
        """The mean loss since the last call."""
        loss, _ = _means(self._since_logged)
        self._since_logged = dict.fromkeys(SUMS, 0.0)
        return loss

    def state(self) -> list[Any]:
        """For a checkpoint."""
        return [self._epoch, self._since_logged, self.rates]

    def restore(self, state: list[Any]) -> None:
        """Goes on from what ``state`` gave, which had no rates in earlier versions."""
        self._epoch, self._since_logged, *rates = state
        self.rates = rates[0] if rates else []


def _means(sums: dict[str, float]) -> tuple[float, float]:
    samples = sums["samples"] or math.nan
    return sums["loss"] / samples, sums["correct"] / samples


class Evaluated(Metric):
    """The rows of an evaluation, those of all devices."""

    full_state_update = False
    losses: list[Tensor]
    probabilities: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("losses", "probabilities", "targets"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """logits: (batch, num_classes) float; targets: (batch,) int64. A batch may be empty."""
        log_probabilities = torch.log_softmax(logits.float(), dim=1)
        loss = nn.functional.nll_loss(log_probabilities, targets) * len(targets)
        self.losses.append(loss if len(targets) else torch.zeros_like(loss))
        self.probabilities.append(log_probabilities.exp())
        self.targets.append(targets)

    def compute(self) -> tuple[Tensor, NDArray[np.float32], NDArray[np.int64]]:
        """The summed loss, a scalar; probabilities (rows, num_classes) and targets (rows,) on the CPU, where numpy
        sorts several times as fast as torch.
        """
        probabilities, targets = (dim_zero_cat(part).cpu().numpy() for part in (self.probabilities, self.targets))
        return torch.as_tensor(sum(self.losses)).cpu(), probabilities, targets


class EvaluationMetrics(nn.Module):
    """Definitions agree with scikit-learn's.

    loss: mean cross-entropy in nats, without label smoothing or class weights, so that runs with different options
    compare. accuracy. balanced_accuracy: mean recall over the classes present. macro_f1: mean F1 over the classes
    present or predicted. auroc, average_precision: of each class against the rest, mean over the classes present; the
    former nan if there is only one. calibration_error: expected calibration error, 15 equal bins (Guo et al. 2017,
    arXiv:1706.04599, eq. 5).
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.evaluated = Evaluated()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """logits: (batch, num_classes) float; targets: (batch,) int64. A batch may be empty."""
        self.evaluated.update(logits, targets)

    def compute(self) -> dict[str, Tensor]:
        """The figures named above, scalars; ``class_accuracy`` (num_classes,), nan for a class without samples; and
        ``confusion_matrix`` (num_classes, num_classes) int64 [target, prediction]."""
        loss, probabilities, targets = self.evaluated.compute()
        predictions, size = probabilities.argmax(1), self.num_classes
        confusion = torch.from_numpy(np.bincount(size * targets + predictions, minlength=size**2)).view(size, size)
        counts = confusion.float()
        correct, actual, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        present = actual > 0
        recall = correct / actual
        f1 = 2 * correct / (actual + predicted)
        auroc, average_precision = one_vs_rest(probabilities, targets).nanmean(1)
        return {
            "loss": loss / len(targets),
            "accuracy": correct.sum() / actual.sum(),
            "balanced_accuracy": recall[present].mean(),
            "macro_f1": f1[(actual + predicted) > 0].mean(),
            "auroc": auroc,
            "average_precision": average_precision,
            "calibration_error": calibration_error(probabilities.max(1), predictions == targets),
            "class_accuracy": recall,
            "confusion_matrix": confusion,
        }

    def reset(self) -> None:
        """Resets all metrics."""
        for metric in self.children():
            metric.reset()  # type: ignore[operator]


def one_vs_rest(probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> Tensor:
    """Area under the ROC curve, and average precision, of each class against the rest, exact; torchmetrics takes seven
    times as long on 10,000 rows of ten classes: (2, num_classes) float32. probabilities, targets: as ``Evaluated`` has
    them.

    The area is the share of pairs of a sample of the class and one of the rest that the class's probability ranks
    rightly, ties counting half (Hanley & McNeil 1982, "The meaning and use of the area under a ROC curve"); nan for a
    class without samples, or with all. The average precision is the mean over the class's samples of the share of the
    class among all that have its probability or more, as scikit-learn has it; nan for a class without samples.
    """
    of_own_class = np.take_along_axis(probabilities, targets[:, None], axis=1)[:, 0]
    areas, precisions = [], []
    for index, ascending in enumerate(np.sort(probabilities.T, axis=1)):
        own = of_own_class[targets == index]
        own.sort()
        size, below = len(own), ascending.searchsorted(own)  # methods of numpy's, half as dear as its functions
        # Of the pairs with any sample, those it wins and half of the ties; less the same among its own class.
        ranks = (below + ascending.searchsorted(own, "right")).sum()
        pairs = 2 * size * (len(targets) - size)
        areas.append((int(ranks) - size**2) / pairs if pairs else math.nan)
        precision = (size - own.searchsorted(own)) / (len(targets) - below)
        precisions.append(precision.sum() / size if size else math.nan)
    return torch.tensor([areas, precisions], dtype=torch.float32)


def calibration_error(confidences: NDArray[np.float32], is_correct: NDArray[np.bool_]) -> Tensor:
    """The mean over the rows, (rows,) each, of how far accuracy and confidence are apart in its bin, float32."""
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidences)  # of above (m - 1) / 15 to m / 15
    gaps = np.abs(np.bincount(bins, is_correct - confidences)).sum()
    return torch.tensor(gaps / len(bins) if len(bins) else math.nan, dtype=torch.float32)
