"""The verdict on memorising a mini-batch, against a plain loop over it."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch.nn.functional import cross_entropy

from neurona.callbacks.memorization import Memorization
from neurona.models.linear import Linear

LOGGER = "neurona.callbacks.memorization"


@pytest.fixture
def verdict(rows, make_trainer, make_classifier, caplog):
    """The one line that a fit of 200 epochs of one mini-batch ends with, or of the Trainer's arguments."""

    def run(network, features, targets, **arguments) -> str:
        trainer = make_trainer(Memorization(), **{"max_epochs": 200, "overfit_batches": 1} | arguments)
        with caplog.at_level(logging.INFO, LOGGER):
            trainer.fit(make_classifier(network, features.shape[1], 2), rows(features, targets, 8))
        [line] = [record.getMessage() for record in caplog.records if record.name == LOGGER]
        return line

    return run


def plain_steps(network, features, targets) -> int:
    """Steps of gradient descent at a rate of 0.1, up to the first count from a network that is right on every row."""
    network, count, is_right = copy.deepcopy(network), 0, False
    while not is_right:
        logits = network(features)
        is_right = bool((logits.argmax(1) == targets).all())
        for parameter, slope in zip(
            network.parameters(),
            torch.autograd.grad(cross_entropy(logits, targets), [*network.parameters()]),
            strict=True,
        ):
            parameter.data -= 0.1 * slope
        count += 1
    return count


def test_yes_after_as_many_steps_as_a_plain_loop_takes(verdict):
    features = torch.randn(20, 2)
    targets = (features[:, 0] > 0.3 * features[:, 1]).long()
    network = Linear(2, 2)
    steps = plain_steps(network, features[:8], targets[:8])
    assert 1 < steps < 200
    assert (
        verdict(network, features, targets)
        == f"yes: the network memorised its mini-batch of 8 rows after {steps} steps"
    )


def test_no_where_equal_rows_are_of_different_classes(verdict):
    features, targets = torch.ones(8, 2), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    line = verdict(Linear(2, 2), features, targets, max_epochs=30)
    assert line.startswith(
        "no: the network has not memorised its mini-batch of 8 rows: train/accuracy is 0.75 after 30 epochs; try "
    )


def test_several_mini_batches_are_told_as_such(verdict):
    features, targets = torch.ones(20, 2), torch.arange(20) % 2
    line = verdict(Linear(2, 2), features, targets, max_epochs=3, overfit_batches=2)
    assert "its 2 mini-batches of 16 rows" in line
