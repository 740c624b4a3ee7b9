"""Whether a run goes on, from which checkpoint, and with what other limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from neurona.errors import ConfigError
from neurona.runs.folder import RunFolder
from neurona.stages import resume

PATIENCE = "trainer.callbacks.early_stopping.patience"


@pytest.fixture
def folder(tmp_path: Path, composed: Any) -> Any:
    """The folder of a run that had a patience of 3, with two checkpoints to go on from."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    OmegaConf.save(composed({PATIENCE: 3}), tmp_path / "config.yaml")
    (tmp_path / "overrides.yaml").write_text("{overrides: [], absolute: {}, choices: {}}")
    with RunFolder(tmp_path) as held:
        yield held


def ended(folder: RunFolder, **figures: str) -> None:
    (folder.path / "metrics.json").write_text(json.dumps(figures))


def test_a_run_goes_on_from_its_last_checkpoint_or_the_one_before(folder: RunFolder) -> None:
    last = folder.last_checkpoint
    assert resume.last_checkpoint(folder) == last
    last.rename(last.with_name("previous.ckpt"))
    assert resume.last_checkpoint(folder) == last


def test_a_run_that_came_to_none_begins_anew_unless_it_has_lost_it(folder: RunFolder) -> None:
    folder.last_checkpoint.unlink()
    assert resume.last_checkpoint(folder) is None
    ended(folder, status="finished")
    with pytest.raises(ConfigError, match=r"has no checkpoints/last\.ckpt"):
        resume.last_checkpoint(folder)


@pytest.mark.parametrize(
    ("values", "stopped_by", "limits"),
    [
        ({}, "max_epochs", None),
        ({"trainer.max_epochs": 99}, "max_epochs", ["max_epochs"]),
        ({"trainer.max_steps": 9, "trainer.max_time": "00:01:00:00"}, "max_epochs", ["max_steps", "max_time"]),
        ({PATIENCE: 5}, "early_stopping", [resume.PATIENCE]),
        ({PATIENCE: None}, "early_stopping", [resume.PATIENCE]),
        ({PATIENCE: 2}, "early_stopping", [resume.PATIENCE]),  # which is refused, as there is no room
        ({PATIENCE: 5}, "max_epochs", [resume.PATIENCE]),
        ({"trainer.log_every_n_steps": 7}, "max_epochs", None),
    ],
    ids=str,
)
def test_a_run_that_is_finished_goes_on_if_it_is_given_more(
    composed: Any, folder: RunFolder, values: dict[str, Any], stopped_by: str, limits: list[str] | None
) -> None:
    ended(folder, status="finished", stopped_by=stopped_by)
    assert resume.changes(composed({PATIENCE: 3, **values}).trainer, folder) == limits


def test_one_that_is_not_goes_on_as_it_is(composed: Any, folder: RunFolder) -> None:
    ended(folder, status="failed")
    assert resume.changes(composed({PATIENCE: 3}).trainer, folder) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limit_train_batches", 0.5),
        ("limit_val_batches", 1),
        ("overfit_batches", 1),
        ("callbacks.checkpoints.monitor", "val/macro_f1"),
    ],
)
def test_what_the_figures_mean_stays(composed: Any, folder: RunFolder, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="when the run began and stays so") as caught:
        resume.changes(composed({PATIENCE: 3, f"trainer.{key}": value}).trainer, folder)
    assert caught.value.key == f"trainer.{key}"
