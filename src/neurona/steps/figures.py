"""The figures of training steps: means over the epoch so far, and since the last step that was logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

SUMS = ("loss", "correct", "samples")


class StepFigures:
    """samples: training samples taken since this process was started, by all processes. rates: the learning rate of
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
