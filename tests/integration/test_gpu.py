"""Whole runs on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import neurona

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:TensorFloat32", "ignore:\nOnline"),
]

DROPOUT = ["data=lesson", "data.num_samples=2000", "model.dropout=0.3", "trainer=gpu", "quiet=true", "logger=none"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")["state_dict"]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_that_goes_on_ends_as_one_that_was_not_interrupted(compiled: bool, tmp_path: Path) -> None:
    given = [*DROPOUT, f"compile={compiled}"]
    neurona.run([*given, "trainer.max_epochs=4", f"folder={tmp_path}/whole"])
    neurona.run([*given, "trainer.max_epochs=2", f"folder={tmp_path}/halves"])
    neurona.run([f"run={tmp_path}/halves", "trainer.max_epochs=4", "quiet=true"])
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    assert "going on without" not in (tmp_path / "whole" / "train.log").read_text(encoding="utf-8")


def test_a_gpu_learns_what_the_cpu_does(tmp_path: Path) -> None:
    given = ["trainer.max_epochs=5", "quiet=true", "logger=none"]
    on_gpu = neurona.run([*given, "trainer=gpu", f"folder={tmp_path}/gpu"])
    on_cpu = neurona.run([*given, "trainer=cpu", f"folder={tmp_path}/cpu"])
    assert on_gpu["test/loss"] == pytest.approx(on_cpu["test/loss"], rel=1e-3)
    assert on_gpu["test/accuracy"] == pytest.approx(on_cpu["test/accuracy"], abs=0.01)
    again = neurona.run(["stage=test", f"run={tmp_path}/gpu", "quiet=true"])
    assert again["test/loss"] == on_gpu["test/loss"]
