"""Says whether a network can memorise a single mini-batch."""

from __future__ import annotations

import logging

from lightning.pytorch import Callback, Trainer

from neurona.classifier import Classifier

log = logging.getLogger(__name__)


class Memorization(Callback):
    """Ends the fit after the first epoch in which the network classified every row rightly while it trained, and says
    so; where that has not come, what to try. Made for ``trainer.overfit_batches``, epochs of the same few rows.
    """

    chunk_aware = True

    def __init__(self) -> None:
        self._accuracy: float | None = None
        self._rows, self._rows_before = 0, 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        _, self._accuracy = pl_module.epoch_means()
        self._rows, self._rows_before = pl_module.samples_taken - self._rows_before, pl_module.samples_taken
        trainer.should_stop |= self._accuracy == 1

    def on_train_end(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        batches = trainer.num_training_batches
        what = f"its {'mini-batch' if batches == 1 else f'{batches} mini-batches'} of {self._rows} rows"
        if self._accuracy == 1:
            log.info("yes: the network memorised %s after %d steps", what, trainer.global_step)
        elif self._accuracy is not None:
            log.info(
                "no: the network has not memorised %s: train/accuracy is %.2f after %d epochs; try a larger network, a"
                " higher optimizer.lr, more trainer.max_epochs or less dropout",
                what,
                self._accuracy,
                trainer.current_epoch,
            )
