"""The fast way counts every step, also within a loss, and lets a loss log."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from neurona.classifier import Classifier
from neurona.optimizer import Optimization

MINI_BATCHES = 21  # of 330 rows, 16 each


class Logs(Classifier):
    """Notes what a loss sees, and logs the number of rows."""

    def loss(self, features: Any, targets: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), self.global_step]
        self.log("train/rows", float(len(targets)), on_step=False, on_epoch=True)
        return super().loss(features, targets)


class Keeps(Callback):
    chunk_aware = True

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.chunks = getattr(self, "chunks", 0) + 1

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.rows = float(trainer.callback_metrics["train/rows"])


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_loss_sees_the_steps_that_have_been_made_and_may_log(fit_noise: Any, accumulate: int) -> None:
    keeps = Keeps()
    optimization = Optimization.of(torch.optim.SGD, lr=0.1, accumulate=accumulate)
    classifier = fit_noise(optimization, keeps, kind=Logs, max_epochs=1)
    assert classifier.seen == [index // accumulate for index in range(MINI_BATCHES)]
    assert keeps.chunks == 1
    # As Lightning has it, a mean over rows: 20 mini-batches of 16 and one of 10.
    assert keeps.rows == pytest.approx((20 * 16 * 16 + 10 * 10) / 330)
