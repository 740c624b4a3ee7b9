"""The optimisers follow their published updates, written here in numpy; clipping limits what a step sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neurona import optimizer, schedule
from neurona.errors import ConfigError
from neurona.optimizer import Optimization

CONSTANT = schedule.constant()
STEPS = 20

# The gradient of a quadratic, 0.5 wᵀAw - bᵀw, whose components differ in size and change sign on the way.
GENERATOR = np.random.default_rng(0)
ROOT = GENERATOR.standard_normal((6, 6))
A, B, START = ROOT @ ROOT.T / 2, GENERATOR.standard_normal(6), GENERATOR.standard_normal(6)

Update = Callable[[np.ndarray, np.ndarray, int, dict[str, Any]], np.ndarray]


def adam(w, g, t, state, *, lr, betas, eps, weight_decay=0.0):
    """Kingma & Ba 2015, algorithm 1, the L2 penalty's gradient added."""
    g = g + weight_decay * w
    m = state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    v = state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g**2
    return w - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)


def adamw(w, g, t, state, *, lr, betas, eps, weight_decay):
    """Loshchilov & Hutter 2019, algorithm 2: the decay is outside the moments, times the rate as in torch."""
    return adam(w, g, t, state, lr=lr, betas=betas, eps=eps) - lr * weight_decay * w


def sgd(w, g, t, state, *, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    """The velocity is a sum of gradients (not of steps), as in torch."""
    g = g + weight_decay * w
    velocity = state["velocity"] = momentum * state.get("velocity", 0) + g
    return w - lr * (g + momentum * velocity if nesterov else velocity)


def rmsprop(w, g, t, state, *, lr, rho, eps, momentum=0.0, centered=False, weight_decay=0.0):
    """Tieleman & Hinton 2012; centred: the variance for the mean square (Graves 2013, arXiv:1308.0850, eq. 38–45)."""
    g = g + weight_decay * w
    square = state["square"] = rho * state.get("square", 0) + (1 - rho) * g**2
    mean = state["mean"] = rho * state.get("mean", 0) + (1 - rho) * g
    velocity = state["velocity"] = momentum * state.get("velocity", 0) + g / (
        np.sqrt(square - mean**2 if centered else square) + eps
    )
    return w - lr * velocity


UPDATES = [
    (adam, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3}),
    (adam, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.3}),
    (adamw, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.3}),
    (sgd, {"lr": 0.05}),
    (sgd, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.3}),
    (sgd, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (rmsprop, {"lr": 0.05, "rho": 0.8, "eps": 1e-3}),
    (rmsprop, {"lr": 0.05, "rho": 0.8, "eps": 1e-7, "momentum": 0.5, "centered": True, "weight_decay": 0.3}),
]


def by_torch(optimization: Optimization) -> np.ndarray:
    parameter = nn.Parameter(torch.tensor(START))
    algorithm = optimization.algorithm([parameter])
    for _ in range(STEPS):
        algorithm.zero_grad()
        (parameter @ torch.tensor(A) @ parameter / 2 - torch.tensor(B) @ parameter).backward()
        algorithm.step()
    return parameter.detach().numpy()


def by_numpy(update: Update) -> np.ndarray:
    w, state = START, {}
    for step in range(1, STEPS + 1):
        w = update(w, A @ w - B, step, state)
    return w


@pytest.mark.parametrize(("reference", "arguments"), UPDATES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_twenty_steps_follow_the_published_update(reference, arguments):
    taken = by_torch(getattr(optimizer, reference.__name__)(**arguments, schedule=CONSTANT))
    assert np.abs(taken - START).max() > 0.1
    # Both in float64: rounding alone, some 1e-16 a step, magnified by small denominators.
    np.testing.assert_allclose(taken, by_numpy(partial(reference, **arguments)), rtol=1e-11, atol=1e-11)


DEFAULTS = {
    "adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    "adamw": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2},
    "sgd": {"lr": 1e-2},
    "rmsprop": {"lr": 1e-3, "rho": 0.9, "eps": 1e-7},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_the_ones_of_the_source(name):
    expected = by_numpy(partial(globals()[name], **DEFAULTS[name]))
    np.testing.assert_allclose(by_torch(getattr(optimizer, name)(schedule=CONSTANT)), expected, rtol=1e-11, atol=1e-11)


# Clipping: one step of SGD at rate 1 moves the weights by the gradient it saw.

FEATURES = torch.tensor([[3.0, -1.0], [0.5, 2.0], [-1.0, 4.0]])
TARGETS = torch.tensor([0, 1, 1])


@pytest.fixture
def step(rows, make_trainer, make_classifier):
    """The change of a linear network's weights and biases in one step, with these clipping arguments."""

    def take(**clipping: float) -> torch.Tensor:
        torch.manual_seed(0)
        network = nn.Linear(2, 2)
        before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
        classifier = make_classifier(network, 2, 2, optimizer.sgd(lr=1.0, schedule=CONSTANT, **clipping))
        make_trainer().fit(classifier, rows(FEATURES, TARGETS, 3))
        return nn.utils.parameters_to_vector(network.parameters()).detach() - before

    return take


def gradient() -> torch.Tensor:
    """The gradient of the mean cross-entropy of softmax(Wx + b), by hand: (p - y) xᵀ / n."""
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    with torch.no_grad():
        error = (torch.softmax(network(FEATURES), 1) - nn.functional.one_hot(TARGETS)) / 3
        return torch.cat([(error.T @ FEATURES).flatten(), error.sum(0)])


def test_clip_norm_shortens_a_longer_gradient_and_keeps_its_direction(step):
    norm = gradient().norm()
    assert norm > 0.5
    # Torch divides by the norm plus 1e-6.
    torch.testing.assert_close(step(clip_norm=0.1), -0.1 * gradient() / norm, rtol=1e-5, atol=1e-6)


def test_clip_norm_leaves_a_shorter_gradient(step):
    torch.testing.assert_close(step(clip_norm=100.0), -gradient())


def test_clip_value_limits_each_component(step):
    limit = gradient().abs().median().item()
    torch.testing.assert_close(step(clip_value=limit), -gradient().clamp(-limit, limit))


def test_without_clipping_the_gradient_is_as_it_is(step):
    torch.testing.assert_close(step(), -gradient())


# Ranges.

ALGORITHMS = (optimizer.adam, optimizer.adamw, optimizer.sgd, optimizer.rmsprop)
WITH_BETAS, WITH_EPS = ALGORITHMS[:2], (optimizer.adam, optimizer.adamw, optimizer.rmsprop)
WITH_MOMENTUM = (optimizer.sgd, optimizer.rmsprop)
NOT_FINITE = (math.nan, math.inf)
WRONG = [
    *((make, "lr", value) for make in ALGORITHMS for value in (0.0, -1e-3, *NOT_FINITE)),
    *((make, "weight_decay", value) for make in ALGORITHMS for value in (-0.1, *NOT_FINITE)),
    *(
        (make, "betas", value)
        for make in WITH_BETAS
        for value in ([0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.9, 0.9], [0.9, math.nan])
    ),
    *((make, "eps", value) for make in WITH_EPS for value in (0.0, -1e-8, *NOT_FINITE)),
    *((make, "momentum", value) for make in WITH_MOMENTUM for value in (-0.1, 1.0, math.nan)),
    *((optimizer.rmsprop, "rho", value) for value in (-0.1, 1.0)),
    *((make, "clip_norm", value) for make in ALGORITHMS for value in (0.0, -1.0, *NOT_FINITE)),
    *((make, "clip_value", value) for make in ALGORITHMS for value in (0.0, -1.0, *NOT_FINITE)),
    *((make, "accumulate", value) for make in ALGORITHMS for value in (0, -2, 2**31)),
    (optimizer.sgd, "nesterov", True),
]


@pytest.mark.parametrize(("make", "name", "value"), WRONG, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_value_out_of_range_is_refused_by_its_key(make, name, value):
    with pytest.raises(ConfigError) as caught:
        make(**{name: value}, schedule=CONSTANT)
    assert caught.value.key == f"optimizer.{name}"
    assert caught.value.value == value or value != value  # NaN


@pytest.mark.parametrize("make", ALGORITHMS)
def test_clipping_by_norm_and_by_value_at_once_is_refused(make):
    with pytest.raises(ConfigError, match="not both") as caught:
        make(clip_norm=1.0, clip_value=1.0, schedule=CONSTANT)
    assert caught.value.key == "optimizer.clip_value"


def test_the_edges_of_the_ranges_are_allowed():
    optimizer.adam(betas=[0, 0], weight_decay=0.0, schedule=CONSTANT).algorithm([nn.Parameter(torch.zeros(1))])
    optimizer.sgd(momentum=0.0, accumulate=1, schedule=CONSTANT)
    optimizer.rmsprop(rho=0.0, schedule=CONSTANT)
