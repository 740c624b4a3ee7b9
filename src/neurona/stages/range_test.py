"""The learning-rate range test (Smith 2017, arXiv:1506.01186, section 3.3): a short fit at rising rates, and the rate
that its loss suggests.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from omegaconf import DictConfig, open_dict

from neurona.classifier import Classifier, NonFiniteLoss
from neurona.errors import RunError, check_range
from neurona.inspection.loggers import Quiet
from neurona.steps.diagnosis import NonFiniteData

LEAST_STEPS = 10
"""Steps that a curve must have for anything to be read from it."""

CLEAR_FALL = 6.0
"""A fall of the average by so many of its standard errors is one; noise alone makes one in some 400 tests."""


class RangeTest(Quiet):
    """Listens to a fit whose learning rate rises by the same ratio every step, and ends it once its loss diverges.

    lowest, highest: the first and the last rate. steps: optimiser steps from one to the other. smoothing: the weight of
    the past in the moving average of the loss, its bias corrected as Adam's (Kingma & Ba 2015, arXiv:1412.6980, section
    3). stop_at: the multiple of its lowest value at which that average counts as diverged.
    """

    def __init__(
        self,
        *,
        lowest: float = 1e-6,
        highest: float = 10.0,
        steps: int = 200,
        smoothing: float = 0.9,
        stop_at: float = 4.0,
    ) -> None:
        super().__init__()
        check_range("lr_find.lowest", lowest, above=0)
        check_range("lr_find.highest", highest, above=lowest)
        check_range("lr_find.steps", steps, least=2 * LEAST_STEPS, below=2**31)
        check_range("lr_find.smoothing", smoothing, least=0, below=1)
        check_range("lr_find.stop_at", stop_at, above=1)
        self.lowest, self.highest, self.steps, self.smoothing, self.stop_at = lowest, highest, steps, smoothing, stop_at
        self.losses: list[float] = []
        """Of each step's mini-batches, before it was made."""
        self.smoothed: list[float] = []
        self.has_diverged = False
        self._mean = 0.0
        self._trainer: Any = None

    @property
    def rates(self) -> list[float]:
        """Of the steps made."""
        return [self.lowest * (self.highest / self.lowest) ** (i / (self.steps - 1)) for i in range(len(self.losses))]

    def of_fit(self, cfg: DictConfig) -> DictConfig:
        """The configuration of a fit, but with the schedule and the length of the test."""
        cfg = copy.deepcopy(cfg)
        ends = {"first_lr": self.lowest, "last_lr": self.highest, "steps": self.steps}
        with open_dict(cfg.optimizer):
            cfg.optimizer.schedule = {"_target_": "neurona.schedule.geometric", **ends}
        no_end = {"max_epochs": -1, "min_epochs": None, "min_steps": None, "max_time": None}
        no_validation = {"limit_val_batches": 0, "val_check_interval": 1.0, "check_val_every_n_epoch": 1}
        with open_dict(cfg.trainer):
            cfg.trainer.update({"max_steps": self.steps, "log_every_n_steps": 1, **no_end, **no_validation})
        return cfg

    def fit(self, trainer: Trainer, classifier: Classifier, datamodule: LightningDataModule) -> None:
        """Raises RunError where there is no loss to begin with."""
        self._trainer = trainer
        try:
            trainer.fit(classifier, datamodule)
            self.has_diverged = trainer.should_stop
        except NonFiniteData:  # no rate has to do with it
            raise
        except NonFiniteLoss as error:
            self.has_diverged = True
            if not self.losses:
                problem = "is not a finite number before anything is learned, at any rate; look at data and network"
                raise RunError(f"the training loss {problem}") from error

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Takes the loss that the classifier reports of every step."""
        if "train/step_loss" not in metrics:
            return
        self.losses.append(metrics["train/step_loss"])
        self._mean = self.smoothing * self._mean + (1 - self.smoothing) * self.losses[-1]
        self.smoothed.append(self._mean / (1 - self.smoothing ** len(self.losses)))
        if len(self.losses) > LEAST_STEPS and self.smoothed[-1] > self.stop_at * abs(min(self.smoothed)):
            self._trainer.should_stop = True

    def suggestion(self) -> float | None:
        """The rate to fit with, to two digits; None where the curve shows none, as ``why_none`` tells.

        It is the rate by which the average has made half of its whole fall, from the mean of the first tenth of the
        steps: where the curve, a slope between two plateaus, is steepest. Gugger (2018, "How do you find a good
        learning rate") and fastai's rule "steep" take the steepest single step, which in a noisy curve may be anywhere.
        """
        start, low = fmean(self.losses[: max(LEAST_STEPS, self.steps // 10)]), min(self.smoothed)
        lowest_at = self.smoothed.index(low)
        if lowest_at < LEAST_STEPS or start - low < CLEAR_FALL * self._standard_error(lowest_at):
            return None
        half = next(rate for rate, loss in zip(self.rates, self.smoothed, strict=True) if loss <= (start + low) / 2)
        return float(f"{half:.1e}")

    def why_none(self) -> str:
        tried = f"in {len(self.losses)} steps from lr_find.lowest={self.lowest:.1e} to {self.rates[-1]:.1e}"
        if self.has_diverged:
            return f"the loss diverges {tried} before it has clearly fallen; begin lower, or take more lr_find.steps"
        remedy = "a higher lr_find.highest, more lr_find.steps or larger mini-batches (data.batch_size)"
        return f"the loss does not clearly fall {tried}; try {remedy}"

    def _standard_error(self, end: int) -> float:
        """Of the average, if the losses before ``end`` vary independently: their neighbours' differences tell."""
        squares = [(after - before) ** 2 for before, after in itertools.pairwise(self.losses[: end + 1])]
        return math.sqrt(fmean(squares) / 2 * (1 - self.smoothing) / (1 + self.smoothing))
