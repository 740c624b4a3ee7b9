"""Early stopping that can be left out with a number: Lightning's, with ``patience: null`` for never."""

from __future__ import annotations

import math
import sys
from typing import Literal

import lightning.pytorch.callbacks as lightning_callbacks

from neurona.config import ConfigError


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
        if patience is not None and patience < 1:
            raise ConfigError(
                "trainer.callbacks.early_stopping.patience", patience, "must be 1 or more, or null for never"
            )
        if not 0 <= min_delta < math.inf:
            raise ConfigError("trainer.callbacks.early_stopping.min_delta", min_delta, "must be 0 or more, and finite")
        self.active = patience is not None
        super().__init__(
            monitor, min_delta, patience or sys.maxsize, mode=mode, strict=self.active, check_on_train_epoch_end=False
        )
