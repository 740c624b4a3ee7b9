"""The linear model against its formula, and as the baseline it is meant to be."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from neurona.models.linear import Linear


def test_starts_with_equal_probabilities():
    logits = Linear(7, 3)(torch.randn(5, 7))
    assert logits.shape == (5, 3)
    loss = functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1]))
    assert loss.item() == pytest.approx(math.log(3))


def test_forward_and_parameters():
    linear = Linear(7, 3)
    weight, bias, features = torch.randn(3, 7), torch.randn(3), torch.randn(5, 7)
    linear.load_state_dict({"head.weight": weight, "head.bias": bias})
    torch.testing.assert_close(linear(features), features @ weight.T + bias)
    assert list(Linear(7, 3, bias=False).state_dict()) == ["head.weight"]


def test_reaches_the_minimum_scikit_learn_finds():
    data = load_iris()
    features = torch.from_numpy((data.data - data.data.mean(0)) / data.data.std(0))
    targets = torch.from_numpy(data.target).long()
    network = Linear(4, 3).double()
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=500, tolerance_grad=1e-9)

    def closure():
        optimizer.zero_grad()
        penalty = network.head.weight.square().sum() / (2 * len(targets))  # scikit-learn's C=1
        loss = functional.cross_entropy(network(features), targets) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(features.numpy(), data.target)
    torch.testing.assert_close(network.head.weight.detach(), torch.from_numpy(reference.coef_), rtol=0, atol=1e-4)
