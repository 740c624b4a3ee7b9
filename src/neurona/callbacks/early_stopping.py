"""Early stopping that can be left out with a number: Lightning's, with ``patience: null`` for never."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import lightning.pytorch.callbacks as lightning_callbacks
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from neurona.errors import check_range

log = logging.getLogger(__name__)


class EarlyStopping(lightning_callbacks.EarlyStopping):
    """Ends fitting after ``patience`` validations in a row that improve ``monitor`` by no more than ``min_delta``."""

    def __init__(
        self,
        *,
        patience: int | None,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        min_delta: float = 0.0,
    ) -> None:
        check_range("trainer.callbacks.early_stopping.patience", patience, least=1)
        check_range("trainer.callbacks.early_stopping.min_delta", min_delta, least=0)
        self.active = patience is not None
        super().__init__(
            monitor, min_delta, patience or sys.maxsize, mode=mode, strict=self.active, check_on_train_epoch_end=False
        )

    @property
    def has_stopped(self) -> bool:
        """Whether it has ended the fit."""
        return self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Like Lightning's, but uses a new patience; a greater one continues a fit that early stopping had ended."""
        patience = self.patience
        super().load_state_dict(state_dict)
        before, self.patience = self.patience, patience
        if self.has_stopped and patience > before and patience > self.wait_count:
            self.stopping_reason, self.stopped_epoch = EarlyStoppingReason.NOT_STOPPED, 0
            log.info("early stopping had ended the run (patience %d); going on with patience %d", before, patience)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops again, because Lightning forgets at a resume that the fit had ended."""
        trainer.should_stop |= self.has_stopped
