"""What recordings take for fixed, and which classes may be recorded at all."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from changes import drop, evaluate, freeze, replace, smooth
from lightning.pytorch import Callback
from noise import Noise

from neurona.classifier import Classifier
from neurona.data.preprocessing import Standardize
from neurona.models.activations import ACTIVATIONS
from neurona.models.dropout import Dropout
from neurona.models.embedding import Embedding
from neurona.models.linear import Linear
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization
from neurona.steps import recorded
from neurona.steps.recorded import RecordedSteps, is_compilable
from neurona.tables import encoding as encodings

ROWS, FEATURES, CLASSES = 330, 12, 4


@pytest.mark.parametrize("change", [evaluate, drop, replace, freeze, smooth])
def test_what_recordings_take_for_fixed(change, fit_noise):
    class Looks(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            self.before = pl_module.fast_way.steps.fixed()
            self.again = pl_module.fast_way.steps.fixed()
            change(pl_module)
            self.after = pl_module.fast_way.steps.fixed()

    looks = Looks()
    fit_noise(Optimization.of(torch.optim.SGD, lr=1e-2), looks, network=lambda: MLP(12, 4, hidden=[8], dropout=0.1))
    assert looks.before == looks.again != looks.after


class Scaled(Classifier):
    """A loss with settings that are private, or within others."""

    compilable = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._scale, self.options = 1.0, {"scales": [1.0]}

    def loss(self, features, targets):
        value, logits = super().loss(features, targets)
        return value * self._scale * self.options["scales"][0], logits


@pytest.mark.parametrize(
    "change", [lambda c: setattr(c, "_scale", 0.5), lambda c: c.options["scales"].__setitem__(0, 0.5)]
)
def test_settings_of_a_loss_of_ones_own_are_noticed_whatever_they_are_called(change, fit_noise):
    class Looks(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            before = pl_module.fast_way.steps.fixed()
            change(pl_module)
            self.is_noticed = before != pl_module.fast_way.steps.fixed()

    looks = Looks()
    fit_noise(Optimization.of(torch.optim.SGD, lr=1e-2), looks, kind=Scaled)
    assert looks.is_noticed


def test_validations_change_nothing_that_is_recorded(fit_noise, caplog):
    logging.getLogger("neurona").propagate = True
    optimization = Optimization.of(torch.optim.SGD, lr=1e-2)
    fit = fit_noise(optimization, kind=Scaled, max_epochs=recorded.MAX_RECORDINGS + 2, limit_val_batches=1.0)
    assert not fit.kept.steps.has_given_up
    assert "going on without" not in caplog.text


def test_a_share_that_is_another_in_every_mini_batch_is_not_recorded(fit_noise, monkeypatch):
    """As with class weights and several processes: what is recorded has the share in it."""
    offs = []

    def begin(self, chunk):
        self.is_shared = True
        original(self, chunk)
        offs.append(self.is_off)
        self.is_shared = False

    original = RecordedSteps.begin
    monkeypatch.setattr(RecordedSteps, "begin", begin)
    for weights in (None, [1.0, 2.0, 3.0, 4.0]):
        fit_noise(Optimization.of(torch.optim.SGD, lr=1e-2), class_weights=weights)
    assert [offs[0], offs[-1]] == [False, True]


def test_all_that_is_shipped_is_compilable():
    data = Noise(ROWS, FEATURES, CLASSES)
    data.features[:, -1].trunc_().abs_()  # ids
    encoded = encodings.fit(data.features, torch.arange(ROWS), [20], numeric="standard", max_one_hot=2)
    shipped = [
        *(MLP(FEATURES, CLASSES, hidden=[8, 8], activation=name, dropout=0.1, residual=True) for name in ACTIVATIONS),
        *(MLP(FEATURES, CLASSES, hidden=[8], normalization=name) for name in ("batch", "layer", "rms")),
        Linear(FEATURES, CLASSES),
        Standardize(FEATURES),
        encoded,
        Embedding(encoded.num_outputs, encoded.num_numbers, encoded.embedded, numbers="periodic"),
    ]
    modules = {type(module) for network in shipped for module in network.modules()}
    assert Dropout in modules
    assert not [kind for kind in modules if not is_compilable(kind)]
