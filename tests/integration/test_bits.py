"""What changes the bits of the trained weights, and what does not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

import neurona
from neurona.steps import choice, recorded, traced
from neurona.steps.steps import DirectSteps

SETTINGS = ["data=wine", "model.hidden=[16]", "model.dropout=0.1", "trainer.max_epochs=3", "quiet=true"]


def trained(folder: Path, *overrides: str) -> str:
    """A hash of the final weights of a run with these settings."""
    neurona.run([*SETTINGS, *overrides, f"folder={folder}"])
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return hashlib.sha256(b"".join(tensor.double().numpy().tobytes() for tensor in weights.values())).hexdigest()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("reference") / "run")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.deterministic=true"],
        ["trainer.log_every_n_steps=1"],
        ["trainer.callbacks.checkpoints.every_n_steps=1"],
        ["trainer.enable_progress_bar=true"],
        ["logger=none"],
        ["threads=2"],
    ],
    ids=str,
)
def test_these_change_no_bit(tmp_path, reference, overrides):
    assert trained(tmp_path / "run", *overrides) == reference


@pytest.mark.parametrize(
    "override", ["seed=1", "data.shuffle_seed=1", "data.split_seed=1", "trainer.precision=bf16-mixed"]
)
def test_these_do(tmp_path, reference, override):
    assert trained(tmp_path / "run", override) != reference


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.precision=64-true"],
        ["trainer.precision=bf16-true"],
        ["trainer.precision=bf16-mixed", "model.normalization=batch"],
        ["trainer.precision=bf16-mixed", "optimizer.accumulate=2", "optimizer.clip_norm=0.1"],
    ],
    ids=str,
)
def test_recorded_passes_change_none(tmp_path, overrides, monkeypatch):
    recordings = []
    record = recorded.traced
    monkeypatch.setattr(recorded, "traced", lambda *arguments: recordings.append(1) or record(*arguments))
    monkeypatch.setattr(traced, "WORTHWHILE_PASSES", 1)
    weights = trained(tmp_path / "recorded", *overrides)
    assert recordings
    monkeypatch.setattr(choice, "steps_of", DirectSteps)
    assert trained(tmp_path / "direct", *overrides) == weights
