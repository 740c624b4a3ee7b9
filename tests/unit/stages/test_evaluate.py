"""What ``stage=predict`` predicts: the test part, or what the data module has a loader for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import LightningDataModule

from neurona.stages import evaluate


class Plain(LightningDataModule):
    is_read = False

    def setup(self, stage: str) -> None:
        self.is_read = stage == "test"

    def test_dataloader(self) -> list[str]:
        assert self.is_read
        return ["a mini-batch of the test part"]


class WithLoader(Plain):
    def predict_dataloader(self) -> list[str]:
        return ["one", "another"]


@pytest.mark.parametrize(
    ("data", "expected"), [(Plain(), ["a mini-batch of the test part"]), (WithLoader(), ["one", "another"])]
)
def test_the_test_part_unless_the_data_have_a_loader_for_predictions(data: Any, expected: list[str]) -> None:
    seen: list[str] = []
    trainer: Any = SimpleNamespace(predict=lambda _, datamodule, **__: seen.extend(datamodule.predict_dataloader()))
    classifier: Any = None
    evaluate._predict(trainer, classifier, data)
    assert seen == expected
