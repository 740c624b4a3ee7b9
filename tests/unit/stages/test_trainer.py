"""The Trainer of each stage has what the configuration describes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning_utilities.core.imports import RequirementCache

from neurona.callbacks.checkpoints import BestAndLast
from neurona.callbacks.early_stopping import EarlyStopping
from neurona.classifier import Classifier
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError
from neurona.models.linear import Linear
from neurona.stages import trainer

ACTIVE = "trainer.callbacks.early_stopping.patience"


@pytest.fixture
def build(composed: Any, rows: Any, tmp_path: Any) -> Any:
    """The Trainer of a fit with these values."""

    def call(values: dict[str, Any], **has: bool) -> Trainer:
        data = rows.__new__(rows)
        vars(data).update(has)
        classifier = Classifier(Linear(4, 2), Linear(4, 2), DataSpec(4, 2, ("rose", "lily")))
        return trainer.build(composed({"folder": str(tmp_path), **values}), data, classifier)

    return call


def kinds(made: Any) -> set[type]:
    return {type(callback) for callback in made.callbacks}


def test_a_fit_has_the_callbacks_that_are_active(build: Any) -> None:
    assert BestAndLast in kinds(build({}))
    assert EarlyStopping not in kinds(build({}))
    assert EarlyStopping in kinds(build({ACTIVE: 3}))


def test_a_callback_that_is_null_is_left_out_but_not_the_checkpoints(build: Any) -> None:
    assert EarlyStopping not in kinds(build({"trainer.callbacks.early_stopping": None}))
    with pytest.raises(ConfigError, match=r"^trainer\.callbacks\.checkpoints=null: cannot be left out"):
        build({"trainer.callbacks.checkpoints": None})


def test_without_a_validation_part_there_is_no_validation(build: Any) -> None:
    assert build({}, has_validation=True).limit_val_batches == 1.0
    assert build({}, has_validation=False).limit_val_batches == 0


def test_an_evaluation_keeps_neither_logs_nor_checkpoints(composed: Any) -> None:
    made: Any = trainer.build_for_evaluation(composed({}), [])
    assert made.loggers == []
    assert not kinds(made) & {BestAndLast, ModelCheckpoint}


def test_a_range_test_is_listened_to_by_one_logger(composed: Any, rows: Any, tmp_path: Any) -> None:
    listener = CSVLogger(tmp_path)
    made: Any = trainer.build_for_range_test(composed({}), rows.__new__(rows), listener)
    assert made.loggers == [listener]
    assert not kinds(made) & {BestAndLast, ModelCheckpoint}


def test_a_device_that_is_not_there_is_refused(composed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("cuda", "backends.mps"):
        monkeypatch.setattr(f"torch.{backend}.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^trainer\.accelerator=gpu: torch finds none here"):
        trainer.build_for_evaluation(composed({"trainer.accelerator": "gpu"}), [])


def test_a_logger_whose_package_is_missing_says_how_it_is_installed(composed: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.comet._COMET_AVAILABLE", RequirementCache("comet-nowhere>=3"))
    cfg = composed({"folder": ".", "logger": {"comet": {"_target_": "lightning.pytorch.loggers.CometLogger"}}})
    with pytest.raises(ConfigError, match=r"^logger=comet: needs .*: pip install -c constraints\.txt comet-nowhere$"):
        trainer.loggers(cfg)
