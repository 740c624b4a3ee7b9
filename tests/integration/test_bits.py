"""What changes the bits of the trained weights, and what does not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import neurona

SETTINGS = ["data=wine", "model.hidden=[16]", "model.dropout=0.1", "trainer.max_epochs=3", "quiet=true"]


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., str]:
    """A hash of the final weights of a run with these settings."""

    def train(*overrides: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        neurona.run([*SETTINGS, *overrides, f"folder={folder}"])
        weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in weights.values())).hexdigest()

    return train


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
def test_these_change_no_bit(trained, overrides):
    assert trained(*overrides) == trained()


@pytest.mark.parametrize(
    "override", ["seed=1", "data.shuffle_seed=1", "data.split_seed=1", "trainer.precision=bf16-mixed"]
)
def test_these_do(trained, override):
    assert trained(override) != trained()
