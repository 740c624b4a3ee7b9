"""Each activation against its formula in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neurona.errors import ConfigError
from neurona.models.activations import ACTIVATIONS, Activation, activation_named


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def gated(function):
    def formula(x):
        value, gate = np.split(x, 2, axis=-1)
        return value * function(gate)

    return formula


FORMULAS = {
    "relu": relu,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "prelu": lambda x: np.where(x > 0, x, 0.25 * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    "gelu": gelu,
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(np.log(1 + np.exp(x))),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "identity": lambda x: x,
    "glu": gated(sigmoid),
    "reglu": gated(relu),
    "geglu": gated(gelu),
    "swiglu": gated(lambda x: x * sigmoid(x)),
}
NUMBERS = np.linspace(-8, 8, 66).reshape(11, 6)  # crosses every kink, none of them exactly


def test_every_activation_has_a_formula_here():
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_its_formula(name):
    result = activation_named(name).make().double()(torch.from_numpy(NUMBERS)).detach()
    np.testing.assert_allclose(result.numpy(), FORMULAS[name](NUMBERS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gated_is_what_halves_the_width(name):
    width = activation_named(name).make()(torch.zeros(2, 6)).shape[1]
    assert width == (3 if activation_named(name).gated else 6)


def test_the_slope_of_prelu_and_the_beta_of_swish_are_learned():
    torch.manual_seed(0)
    features = torch.randn(64, 3, dtype=torch.float64)
    for name, parameter, expected in (
        ("prelu", "weight", lambda x: np.where(x > 0, x, 0.5 * x)),
        ("swish", "beta", lambda x: x * sigmoid(2 * x)),
    ):
        activation = activation_named(name).make().double()
        getattr(activation, parameter).data *= 2
        result = activation(features)
        np.testing.assert_allclose(result.detach().numpy(), expected(features.numpy()), rtol=1e-12, atol=1e-12)
        result.sum().backward()
        assert getattr(activation, parameter).grad.abs().sum() > 0


def test_relu_scales_keep_the_mean_square():
    normal = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name in ("relu", "leaky_relu", "prelu", "selu"):  # E[φ(√scale · z)²] = 1; the sample's own error is about 0.002
        activation = ACTIVATIONS[name]
        assert activation.scale is not None
        mean_square = activation.make().double()(activation.scale**0.5 * normal).square().mean()
        assert mean_square.item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("name", "meant"), [("rellu", "relu"), ("SwiGLU", "swiglu"), ("leakyrelu", "leaky_relu")])
def test_unknown_name_is_answered_with_the_closest_and_all(name, meant):
    with pytest.raises(ConfigError, match=f"choose from relu, .*, swiglu; did you mean {meant}") as error:
        activation_named(name)
    assert (error.value.key, error.value.value) == ("model.activation", name)


def test_unknown_name_without_a_close_one():
    with pytest.raises(ConfigError, match=r"choose from relu, .*, swiglu$"):
        activation_named("xyz")


@pytest.mark.parametrize(
    "entry",
    [
        lambda x: x * x,
        torch.nn.Mish,
        Activation(lambda x: x * x),
        Activation(torch.relu),
        Activation(torch.nn.Mish()),
        Activation(lambda: torch.relu),
        Activation(dict),
    ],
)
def test_an_entry_that_makes_no_layer_is_refused(entry, monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "own", entry)
    with pytest.raises(
        ConfigError, match=r"model\.activation=own: its entry must be an Activation whose make is a class"
    ):
        activation_named("own")


def test_one_without_a_scale_has_glorots_weights():
    assert Activation(torch.nn.Tanh) == ACTIVATIONS["tanh"]
    assert Activation(torch.nn.Tanh).scale is None
