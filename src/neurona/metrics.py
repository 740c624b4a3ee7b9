"""What validation and test report, computed with torchmetrics: every sample counts once on any number of devices."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix
from torchmetrics.utilities import dim_zero_cat


class OneVsRest(Metric):
    """Area under the ROC curve, and average precision, of each class against the rest, exact; torchmetrics
    takes seven times as long on 10,000 rows of ten classes.

    The area is the share of pairs of a sample of the class and one of the rest that the class's probability ranks
    rightly, ties counting half (Hanley & McNeil 1982, "The meaning and use of the area under a ROC curve"); nan for a
    class without samples, or with all. The average precision is the mean over the class's samples of the share of the
    class among all that have its probability or more, as scikit-learn has it; nan for a class without samples.
    """

    full_state_update = False
    probabilities: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """probabilities: (batch, num_classes) float; targets: (batch,) int64."""
        self.probabilities.append(probabilities)
        self.targets.append(targets)

    def compute(self) -> Tensor:
        """(2, num_classes) float32, on the CPU, where numpy sorts several times as fast as torch."""
        probabilities, targets = (dim_zero_cat(part).cpu().numpy() for part in (self.probabilities, self.targets))
        of_own_class = np.take_along_axis(probabilities, targets[:, None], axis=1)[:, 0]
        areas, precisions = [], []
        for index, ascending in enumerate(np.sort(probabilities.T, axis=1)):
            own = np.sort(of_own_class[targets == index])
            below = np.searchsorted(ascending, own)
            # Of the pairs with any sample, those it wins and half of the ties; less the same among its own class.
            ranks = below.sum() + np.searchsorted(ascending, own, side="right").sum()
            pairs = 2 * len(own) * (len(targets) - len(own))
            areas.append((int(ranks) - len(own) ** 2) / pairs if pairs else math.nan)
            precision = (len(own) - np.searchsorted(own, own)) / (len(targets) - below)
            precisions.append(precision.mean() if len(own) else math.nan)
        return torch.tensor([areas, precisions], dtype=torch.float32)


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
        self.loss = MeanMetric(nan_strategy=math.nan)  # which stays one; else its batch would be left out
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.one_vs_rest = OneVsRest()
        self.calibration = MulticlassCalibrationError(num_classes, n_bins=15, validate_args=False)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """logits: (batch, num_classes) float; targets: (batch,) int64. A batch may be empty."""
        if self.loss.mean_value.dtype != torch.float32:  # a Trainer in half precision has converted it
            self.loss.set_dtype(torch.float32)
        log_probabilities = torch.log_softmax(logits.float(), dim=1)
        if len(targets):
            self.loss.update(nn.functional.nll_loss(log_probabilities, targets), weight=len(targets))
        probabilities = log_probabilities.exp()
        self.confusion.update(probabilities, targets)
        self.one_vs_rest.update(probabilities, targets)
        # torchmetrics' bins are [a, b); the definition's (a, b] differ where it matters, at a confidence of 1.
        self.calibration.update(probabilities.clamp(max=1 - 2**-24), targets)

    def compute(self) -> dict[str, Tensor]:
        """The figures named above, scalars; ``class_accuracy`` (num_classes,), nan for a class without samples; and
        ``confusion_matrix`` (num_classes, num_classes) int64 [target, prediction]."""
        confusion = self.confusion.compute().cpu()  # on a GPU, some twenty launches for next to nothing
        counts = confusion.float()
        correct, actual, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        present = actual > 0
        recall = correct / actual
        f1 = 2 * correct / (actual + predicted)
        auroc, average_precision = self.one_vs_rest.compute().nanmean(1)
        return {
            "loss": self.loss.compute(),
            "accuracy": correct.sum() / actual.sum(),
            "balanced_accuracy": recall[present].mean(),
            "macro_f1": f1[(actual + predicted) > 0].mean(),
            "auroc": auroc,
            "average_precision": average_precision,
            "calibration_error": self.calibration.compute(),
            "class_accuracy": recall,
            "confusion_matrix": confusion,
        }

    def reset(self) -> None:
        """Resets all metrics."""
        for metric in self.children():
            metric.reset()  # type: ignore[operator]
