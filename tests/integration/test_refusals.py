"""What a fit would fail at later is refused by its key before there is a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neurona.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("trainer.callbacks.checkpoints.monitor=val/acuracy", None),
        ("trainer.callbacks.checkpoints.monitor=''", "trainer.callbacks.checkpoints.monitor"),
        ("trainer.callbacks.early_stopping.monitor=val/accuracy_of/rose", None),
        ("trainer.callbacks.checkpoints=null", None),
        ("~trainer.callbacks.checkpoints", "trainer.callbacks.checkpoints"),
        ("trainer.limit_train_batches=0.01", None),
        ("trainer.overfit_batches=0.5", None),
        ("data.batch_size=2147483648", None),
        ("data.eval_batch_size=99999999999999999999", None),
        ("model.hidden=[99999999999999]", None),
        ("optimizer.groups={body.*:{lr:1}}", "optimizer.groups"),
        ("optimizer.groups={head.*:{lr:0}}", "optimizer.groups.head.*.lr"),
        ("+optimizer.maximize=null", "optimizer.maximize"),
        ("folder=/", None),
        ("folder=.", None),
    ],
)
def test_values_that_would_fail_later_leave_no_folder(fit: Any, tmp_path: Path, override: str, key: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        fit(override)
    assert caught.value.key == (key or override.partition("=")[0])
    assert list(tmp_path.iterdir()) == []


def test_a_class_may_be_monitored(fit: Any) -> None:
    run = fit("trainer.callbacks.checkpoints.monitor=val/accuracy_of/setosa", "trainer.callbacks.checkpoints.mode=max")
    assert run.metrics["status"] == "finished"
