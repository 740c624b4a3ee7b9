"""Initial weights against the variances and limits of the papers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from neurona.models.initialization import initialize

FAN_IN, FAN_OUT = 600, 400
TOLERANCE = 0.015  # five sigma: of 240,000 weights the variance is known to 0.3 % (normal) or 0.2 % (uniform)

VARIANCES = {"he": 2 / FAN_IN, "glorot": 2 / (FAN_IN + FAN_OUT), "lecun": 1 / FAN_IN}


def drawn(scheme, *, fan_out=FAN_OUT, seed=0, **kwargs):
    torch.manual_seed(seed)
    linear = nn.Linear(FAN_IN, fan_out)
    initialize(linear, scheme, **kwargs)
    return linear


@pytest.mark.parametrize("paper", VARIANCES)
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_variance_and_distribution(paper, distribution):
    weight = drawn(f"{paper}_{distribution}").weight
    variance = VARIANCES[paper]
    assert weight.var().item() == pytest.approx(variance, rel=TOLERANCE)
    assert weight.mean().item() == pytest.approx(0, abs=5 * math.sqrt(variance / weight.numel()))
    kurtosis = (weight**4).mean() / weight.var() ** 2  # 3 for a normal, 9/5 for a uniform distribution
    assert kurtosis.item() == pytest.approx(3 if distribution == "normal" else 1.8, abs=0.06)


def test_glorot_uniform_has_keras_limit():
    weight = drawn("glorot_uniform").weight
    limit = math.sqrt(6 / (FAN_IN + FAN_OUT))
    assert 0.999 * limit < weight.max().item() <= limit
    assert 0.999 * limit < -weight.min().item() <= limit


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.25])
def test_auto_follows_the_activations_scale(scale):
    weight = drawn("auto", scale=scale).weight
    assert weight.var().item() == pytest.approx(scale / FAN_IN, rel=TOLERANCE)


def test_auto_without_scale_is_glorot_uniform():
    torch.testing.assert_close(drawn("auto").weight, drawn("glorot_uniform").weight, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [2.0, None])
def test_damping_divides_the_weights(scale):
    torch.testing.assert_close(4 * drawn("auto", scale=scale, damping=0.25).weight, drawn("auto", scale=scale).weight)


@pytest.mark.parametrize(("scale", "gain"), [(2.0, math.sqrt(2)), (None, 1.0)])
def test_orthogonal(scale, gain):
    weight = drawn("orthogonal", scale=scale).weight.double()
    torch.testing.assert_close(weight @ weight.T, gain**2 * torch.eye(FAN_OUT, dtype=torch.float64), rtol=0, atol=1e-5)


def test_value_and_gate_are_matrices_of_their_own():
    for half in drawn("glorot_uniform", fan_out=2 * FAN_OUT, gated=True).weight.chunk(2):
        assert half.var().item() == pytest.approx(VARIANCES["glorot"], rel=TOLERANCE)
    for half in drawn("orthogonal", fan_out=2 * FAN_OUT, gated=True).weight.chunk(2):
        torch.testing.assert_close(half @ half.T, torch.eye(FAN_OUT), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scheme", ["auto", "he_normal", "glorot_uniform", "orthogonal"])
def test_biases_are_zero(scheme):
    assert not drawn(scheme, scale=2.0).bias.any()


def test_torch_leaves_what_the_layer_drew():
    torch.manual_seed(0)
    expected = nn.Linear(FAN_IN, FAN_OUT)
    torch.testing.assert_close(drawn("torch").state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_equal_seeds_give_equal_weights():
    assert torch.equal(drawn("auto", scale=2.0, seed=3).weight, drawn("auto", scale=2.0, seed=3).weight)
    assert not torch.equal(drawn("auto", scale=2.0, seed=3).weight, drawn("auto", scale=2.0, seed=4).weight)
