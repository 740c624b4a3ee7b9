"""A network, data and a loss of the user's own, beside the project."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

MODULE = '''
import torch
from lightning.pytorch import Callback, LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neurona.classifier import Classifier
from neurona.data.spec import DataSpec


class Wide(nn.Module):
    def __init__(self, num_features: int, num_classes: int, *, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_features, width), nn.GELU(), nn.Linear(width, num_classes))

    def forward(self, features):
        return self.layers(features)


class Quadrants(LightningDataModule):
    """Four classes, one for each quadrant of the plane."""

    spec = DataSpec(2, 4, ("south west", "north west", "south east", "north east"))

    def __init__(self, *, batch_size: int = 16) -> None:
        super().__init__()
        self.size = batch_size

    def _loader(self, seed: int, rows: int, shuffle: bool = False) -> DataLoader:
        features = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
        targets = 2 * (features[:, 0] > 0) + (features[:, 1] > 0)
        return DataLoader(TensorDataset(features, targets.long()), self.size, shuffle)

    def train_dataloader(self):
        return self._loader(0, 400, shuffle=True)

    def val_dataloader(self):
        return self._loader(1, 100)

    def test_dataloader(self):
        return self._loader(2, 100)


class Halved(Classifier):
    def loss(self, features, targets):
        loss, logits = super().loss(features, targets)
        return loss / 2, logits


class Steps(Callback):
    """Sees every step, though it says nothing of chunks."""

    seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(trainer.global_step)
'''
YAMLS = {
    "model/own_code_wide.yaml": "_target_: own_code.Wide\nwidth: 32\n",
    "data/own_code_quadrants.yaml": "_target_: own_code.Quadrants\nbatch_size: 16\n",
}
CONFIGS = ["--config-dir", "own_configs"]
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning's advice on DataLoaders


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A module of one's own, and its yamls in the folder own_configs."""
    (tmp_path / "own_code.py").write_text(MODULE)
    for name, text in YAMLS.items():
        file = tmp_path / "own_configs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    return ["allow=[own_code]"]


def test_a_network_of_ones_own(train: Any, newest: Any, own: list[str]) -> None:
    done = train(
        *CONFIGS,
        *own,
        "model=own_code_wide",
        "model.width=16",
        "data=iris",
        "trainer.max_epochs=30",
        "optimizer.lr=0.03",
    )
    assert done.status == 0, done.err
    run = newest()
    assert run.metrics["num_parameters"] == 4 * 16 + 16 + 16 * 3 + 3
    assert run.metrics["test/accuracy"] > 0.85
    done = train(*CONFIGS, *own, "stage=test", f"run={run.folder}")
    assert done.status == 0, done.err
    assert run.read("metrics_test.json")["test/loss"] == run.metrics["test/loss"]


def test_a_typo_in_ones_own_network_gets_a_suggestion(train: Any, own: list[str]) -> None:
    done = train(*CONFIGS, *own, "model=own_code_wide", "model.widht=16", "data=iris")
    assert done.status == 2
    assert "did you mean model.width?" in done.err


def test_ordinary_data_loaders(train: Any, newest: Any, own: list[str]) -> None:
    done = train(*CONFIGS, *own, "data=own_code_quadrants", "trainer.max_epochs=10", "optimizer.lr=0.01")
    assert done.status == 0, done.err
    run = newest()
    assert run.metrics["steps"] == 10 * 25
    assert run.metrics["test/accuracy"] > 0.9
    assert "test/accuracy_of/north east" in run.metrics
    for stage in ("validate", "test", "predict"):
        done = train(*CONFIGS, *own, f"stage={stage}", f"run={run.folder}")
        assert done.status == 0, done.err
    assert run.read("metrics_test.json")["test/loss"] == run.metrics["test/loss"]
    table = np.genfromtxt(run.folder / "predictions.csv", delimiter=",", skip_header=1, usecols=(1, 2))
    assert np.mean(table[:, 0] == table[:, 1]) == pytest.approx(run.metrics["test/accuracy"])


def test_a_loss_of_ones_own(fit: Any, own: list[str]) -> None:
    plain = fit("optimizer=sgd", "optimizer.lr=0.05")
    halved = fit(*own, "optimizer=sgd", "optimizer.lr=0.1", "classifier._target_=own_code.Halved")
    for name, tensor in plain.checkpoint()["state_dict"].items():
        torch.testing.assert_close(halved.checkpoint()["state_dict"][name], tensor)
    assert halved.metrics["train/loss"] == pytest.approx(plain.metrics["train/loss"] / 2, rel=1e-5)


def test_a_callback_that_wants_every_step_gets_it_and_changes_nothing(fit: Any, own: list[str]) -> None:
    plain = fit()
    watched = fit(*own, "+trainer.callbacks.steps._target_=own_code.Steps")
    assert sys.modules["own_code"].Steps.seen == list(range(1, watched.metrics["steps"] + 1))
    assert watched.weights() == plain.weights()


def test_a_module_that_is_not_allowed_is_refused(train: Any, own: list[str]) -> None:
    done = train(*CONFIGS, "model=own_code_wide", "data=iris")
    assert done.status == 2
    assert "allow=[own_code]" in done.err
    assert "own_code" not in sys.modules


def test_classes_are_not_balanced_where_the_data_do_not_count_them(train: Any, own: list[str]) -> None:
    done = train(*CONFIGS, *own, "data=own_code_quadrants", "classifier.class_weights=balanced")
    assert done.status == 2
    assert done.err.startswith("classifier.class_weights=balanced: needs data that count their classes")
    assert not Path("logs").exists()
