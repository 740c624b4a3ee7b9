"""Steps taken directly are those of a plain loop of torch, to the bit, and notice what has changed around them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from noise import Noise
from torch import nn

from neurona.data.batches import BatchLoader
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization
from neurona.steps.steps import DirectSteps


def own(algorithm, **options):
    return Optimization.of(algorithm, lr=1e-2, **options)


@pytest.mark.parametrize(
    ("optimization", "clip"),
    [
        (own(torch.optim.AdamW, fused=True), None),
        (own(torch.optim.Adam, amsgrad=True), None),
        (own(torch.optim.Adagrad), None),
        (
            Optimization.of(torch.optim.Adam, clip_norm=0.1),
            partial(nn.utils.clip_grad_norm_, max_norm=0.1),
        ),
        (
            Optimization.of(torch.optim.SGD, lr=0.1, momentum=0.9, clip_value=0.01),
            partial(nn.utils.clip_grad_value_, clip_value=0.01),
        ),
    ],
    ids=["fused", "amsgrad", "adagrad", "clip_norm", "clip_value"],
)
def test_direct_steps_have_the_bits_of_a_plain_loop(optimization, clip, fit_noise, monkeypatch):
    monkeypatch.setattr("neurona.steps.choice.steps_of", DirectSteps)
    classifier = fit_noise(optimization)
    assert type(classifier.kept.steps) is DirectSteps
    seed_everything(0, verbose=False)
    network, data = MLP(12, 4, hidden=[8]), Noise(330, 12, 4)
    plain = optimization.optimizer([*network.named_parameters()])
    order = BatchLoader(data.features, data.targets, torch.arange(330), 16, shuffle_seed=0).order(0)
    for rows in order.split(16):
        plain.zero_grad()
        nn.functional.cross_entropy(network(data.features[rows]), data.targets[rows]).backward()
        if clip is not None:
            clip(network.parameters())
        plain.step()
    expected = network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in classifier.network.state_dict().items())


class Replaces(Callback):
    """Puts another optimiser in place before the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            trainer.optimizers = [torch.optim.SGD(pl_module.parameters(), lr=0.5)]


class EveryStep(Callback):
    def on_train_batch_end(self, *_):
        pass


def test_an_optimiser_put_in_place_by_a_callback_is_taken(fit_noise):
    ours, lightnings = (
        fit_noise(own(torch.optim.Adam), Replaces(), *more, max_epochs=2) for more in ((), [EveryStep()])
    )
    expected = lightnings.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())


def test_the_momentum_of_a_layer_that_is_unfrozen_begins_then(fit_noise):
    """Torch's SGD can do that where it is not fused, which is the default here."""

    class Unfreezes(Callback):
        def on_train_epoch_start(self, trainer, pl_module) -> None:
            pl_module.network.linear1.requires_grad_(trainer.current_epoch > 0)

    fused, plain = (
        fit_noise(own(torch.optim.SGD, momentum=0.9, fused=is_fused), Unfreezes(), max_epochs=2)
        for is_fused in (True, False)
    )
    torch.testing.assert_close(fused.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)
    states = [list(classifier.trainer.optimizers[0].state.values()) for classifier in (fused, plain)]
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-6)
    seed_everything(0, verbose=False)
    assert not torch.equal(fused.network.linear1.bias, MLP(12, 4, hidden=[8]).linear1.bias)  # as it began
