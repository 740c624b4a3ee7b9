"""What a fit would fail at later is refused by its key before there is a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from neurona.config.check import FIGURES
from neurona.errors import ConfigError
from neurona.metrics import EvaluationMetrics


def test_the_figures_known_beforehand_are_those_that_are_computed() -> None:
    metrics = EvaluationMetrics(2)
    metrics.update(torch.eye(2), torch.arange(2))
    assert set(FIGURES) == metrics.compute().keys() - {"class_accuracy", "confusion_matrix"}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("trainer.callbacks.checkpoints.monitor=val/acuracy", None),
        ("trainer.callbacks.checkpoints.monitor=train/loss", None),
        ("trainer.callbacks.checkpoints.monitor=''", "trainer.callbacks.checkpoints.monitor"),
        ("trainer.callbacks.early_stopping.monitor=val/accuracy_of/rose", None),
        ("trainer.callbacks.checkpoints=null", None),
        ("~trainer.callbacks.checkpoints", "trainer.callbacks.checkpoints"),
        ("trainer.check_val_every_n_epoch=0", None),
        ("trainer.check_val_every_n_epoch=-1", None),
        ("trainer.min_epochs=-2", None),
        ("trainer.log_every_n_steps=-5", None),
        ("trainer.val_check_interval=0", None),
        ("trainer.val_check_interval=8", None),
        ("trainer.limit_train_batches=0.01", None),
        ("trainer.limit_test_batches=0", None),
        ("trainer.limit_test_batches=0.5", None),
        ("trainer.limit_val_batches=0.5", None),
        ("trainer.overfit_batches=0.5", None),
        ("trainer.max_time='00:00:00:00'", "trainer.max_time"),
        ("trainer.max_epochs=null", None),
        ("data.batch_size=2147483648", None),
        ("data.eval_batch_size=99999999999999999999", None),
        ("model.hidden=[99999999999999]", None),
        ("model.hidden=[16777215,16777215]", "model"),
        ("folder=/", None),
        ("folder=.", None),
    ],
)
def test_values_that_would_fail_later_leave_no_folder(fit: Any, tmp_path: Path, given: str, key: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        fit(given)
    assert caught.value.key == (key or given.partition("=")[0])
    assert list(tmp_path.iterdir()) == []


def test_validation_within_the_mini_batches_that_overfitting_leaves(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.val_check_interval=3: an epoch has 2 mini-batches"):
        fit("trainer.overfit_batches=2", "trainer.val_check_interval=3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 97])
def test_batch_normalization_cannot_take_a_mini_batch_of_one(fit: Any, tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigError, match=f"data.batch_size={size}: of 98 rows leaves a mini-batch of one"):
        fit("model.normalization=batch", f"data.batch_size={size}")
    assert list(tmp_path.iterdir()) == []
    assert fit("model.normalization=layer", "data.batch_size=97", "trainer.max_epochs=1").metrics["steps"] == 2


def test_a_class_may_be_monitored(fit: Any) -> None:
    run = fit("trainer.callbacks.checkpoints.monitor=val/accuracy_of/setosa", "trainer.callbacks.checkpoints.mode=max")
    assert run.metrics["status"] == "finished"
