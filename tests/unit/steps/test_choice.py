"""Which way a fit takes its steps, and why not another."""

from __future__ import annotations

import logging

import pytest
import torch
from lightning.pytorch import Callback

from neurona.classifier import Classifier
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization
from neurona.steps import recorded
from neurona.steps.traced import TracedSteps

ROWS, FEATURES, CLASSES = 330, 12, 4


def mlp():
    return MLP(FEATURES, CLASSES, hidden=[8])


def adam(**arguments):
    return Optimization.of(torch.optim.Adam, lr=1e-2, **arguments)


def own(algorithm, **options):
    return Optimization.of(algorithm, lr=1e-2, **options)


class EveryStep(Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        assert all(parameter.grad is not None for parameter in pl_module.network.parameters())


class OwnNetwork(MLP):
    pass


class Promises(MLP):
    compilable = True


class Inherits(Promises):
    pass


class OwnLoss(Classifier):
    def loss(self, features, targets):
        value, logits = super().loss(features, targets)
        return value * (2 + self.current_epoch), logits


class Trusted(OwnLoss):
    compilable = True

    def loss(self, features, targets):
        value, logits = Classifier.loss(self, features, targets)
        return value / 2, logits


class Untrusted(Trusted):
    def loss(self, features, targets):
        return super().loss(features, targets)


class OwnMetrics(Classifier):
    def on_train_epoch_end(self) -> None:
        pass


@pytest.mark.parametrize(("callbacks", "kind"), [((), TracedSteps), ((EveryStep(),), type(None))])
def test_steps_are_traced_unless_somebody_wants_every_one(callbacks, kind, fit_noise):
    assert type(fit_noise(adam(), *callbacks).kept.steps) is kind


@pytest.mark.parametrize(
    ("optimization", "callbacks", "kind", "reason"),
    [
        (adam(), [EveryStep()], Classifier, "EveryStep.on_before_optimizer_step asks for one mini-batch at a time"),
        (adam(), [], OwnLoss, "OwnLoss may do more in Python than compute with tensors"),
    ],
    ids=["callback", "own_loss"],
)
def test_what_cannot_be_compiled_goes_on_without_and_says_so(optimization, callbacks, kind, reason, fit_noise, caplog):
    logging.getLogger("neurona").propagate = True
    compiled = fit_noise(optimization, *callbacks, kind=kind, max_epochs=2, compile_steps=True)
    assert "compile=true has no effect" in caplog.text
    assert reason in caplog.text
    eager = fit_noise(optimization, *callbacks, kind=kind, max_epochs=2)
    assert all(
        torch.equal(a, b) for a, b in zip(compiled.state_dict().values(), eager.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("kind", "network", "reason"),
    [
        (Classifier, mlp, ""),
        (OwnMetrics, mlp, ""),
        (Trusted, mlp, ""),
        (Untrusted, mlp, "Untrusted may do more in Python than compute with tensors"),
        (OwnLoss, mlp, "OwnLoss may do more"),
        (Trusted, lambda: OwnNetwork(FEATURES, CLASSES), "OwnNetwork may do more"),
        (Classifier, lambda: Promises(FEATURES, CLASSES), ""),
        (Classifier, lambda: Inherits(FEATURES, CLASSES), "Inherits may do more"),
    ],
    ids=["shipped", "own_metrics", "promise", "inherited", "own_loss", "own_network", "network", "inherited_network"],
)
def test_what_is_not_recorded(kind, network, reason, fit_noise):
    classifier = fit_noise(adam(), kind=kind, network=network)
    obstacles = list(recorded.obstacles(classifier))
    assert len(obstacles) == bool(reason)
    assert all(reason in obstacle for obstacle in obstacles)
    assert isinstance(classifier.kept.steps, TracedSteps) == (not obstacles)


def test_a_loss_put_into_an_instance_is_not_recorded(fit_noise):
    classifier = fit_noise(adam())
    classifier.loss = lambda features, targets: None
    assert list(recorded.obstacles(classifier))
