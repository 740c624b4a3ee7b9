"""The multilayer perceptron against plain tensors and numbers counted by hand."""

from __future__ import annotations

import copy
import inspect
import math
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional

from neurona.errors import ConfigError
from neurona.models.activations import ACTIVATIONS
from neurona.models.linear import Linear
from neurona.models.mlp import MLP

FEATURES = torch.randn(16, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def build(**kwargs):
    """A float64 network of 6 features and 3 classes with every parameter, the norms' and biases too, random."""
    torch.manual_seed(1)
    network = MLP(6, 3, **kwargs).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    return network


def halves(x):
    return x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]


PLAIN = {
    "relu": lambda x: x.clamp(min=0),
    "tanh": lambda x: 2 / (1 + torch.exp(-2 * x)) - 1,
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "softplus": lambda x: torch.log(1 + torch.exp(x)),
    "identity": lambda x: x,
    "glu": lambda x: halves(x)[0] / (1 + torch.exp(-halves(x)[1])),
    "reglu": lambda x: halves(x)[0] * halves(x)[1].clamp(min=0),
    "geglu": lambda x: halves(x)[0] * halves(x)[1] * (1 + torch.erf(halves(x)[1] / math.sqrt(2))) / 2,
    "swiglu": lambda x: halves(x)[0] * halves(x)[1] / (1 + torch.exp(-halves(x)[1])),
}


def linear(network_state, name, x):
    return x @ network_state[f"{name}.weight"].T + network_state.get(f"{name}.bias", 0)


# -- forward


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("bias", [True, False])
def test_forward(name, bias):
    network = build(hidden=[5, 4], activation=name, bias=bias)
    state, act = network.state_dict(), PLAIN[name]
    expected = linear(state, "head", act(linear(state, "linear2", act(linear(state, "linear1", FEATURES)))))
    assert ("linear1.bias" in state) == bias
    torch.testing.assert_close(network(FEATURES), expected)


def test_one_activation_per_layer():
    network = build(hidden=[5, 4, 3], activation=["tanh", "swiglu", "relu"])
    state, x = network.state_dict(), FEATURES
    for number, name in enumerate(["tanh", "swiglu", "relu"], start=1):
        x = PLAIN[name](linear(state, f"linear{number}", x))
    torch.testing.assert_close(network(FEATURES), linear(state, "head", x))


def normalized(kind, x, state, name):
    if kind == "batch":
        x = (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + 1e-5)
    elif kind == "layer":
        x = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, unbiased=False, keepdim=True) + 1e-5)
    else:
        x = x / torch.sqrt(x.square().mean(1, keepdim=True) + torch.finfo(x.dtype).eps)
    return x * state[f"{name}.weight"] + state.get(f"{name}.bias", 0)


@pytest.mark.parametrize("kind", ["batch", "layer", "rms"])
@pytest.mark.parametrize("name", ["relu", "geglu"])
def test_normalization_comes_between_linear_and_activation(kind, name):
    network = build(hidden=[5, 4], activation=name, normalization=kind)
    state = copy.deepcopy(network.state_dict())
    x = FEATURES
    for number in (1, 2):
        x = PLAIN[name](normalized(kind, linear(state, f"linear{number}", x), state, f"normalization{number}"))
    torch.testing.assert_close(network(FEATURES), linear(state, "head", x))


def test_batch_normalization_replaces_the_bias():
    assert "linear1.bias" not in MLP(6, 3, normalization="batch").state_dict()
    assert "linear1.bias" in MLP(6, 3, normalization="layer").state_dict()


def test_residual_skips_where_the_width_stays():
    network = build(hidden=[6, 6, 4, 4], activation="tanh", residual=True)  # 6 features: still no first skip
    state = network.state_dict()
    x = torch.tanh(linear(state, "linear1", FEATURES))
    x = x + torch.tanh(linear(state, "residual2.linear2", x))
    x = torch.tanh(linear(state, "linear3", x))
    x = x + torch.tanh(linear(state, "residual4.linear4", x))
    torch.testing.assert_close(network(FEATURES), linear(state, "head", x))


def test_a_skip_goes_around_normalization_and_dropout_too():
    network = build(hidden=[5, 5], activation="swiglu", normalization="layer", dropout=0.5, residual=True).eval()
    state = network.state_dict()
    x = PLAIN["swiglu"](normalized("layer", linear(state, "linear1", FEATURES), state, "normalization1"))
    inner = linear(state, "residual2.linear2", x)
    inner = normalized("layer", inner, {k.removeprefix("residual2."): v for k, v in state.items()}, "normalization2")
    torch.testing.assert_close(network(FEATURES), linear(state, "head", x + PLAIN["swiglu"](inner)))


def test_gradients_are_those_of_hand_written_backpropagation():
    network = build(hidden=5, activation="sigmoid")
    state = network.state_dict()
    targets = torch.arange(16) % 3
    functional.cross_entropy(network(FEATURES), targets).backward()
    hidden = 1 / (1 + torch.exp(-linear(state, "linear1", FEATURES)))
    delta = (torch.softmax(linear(state, "head", hidden), 1) - functional.one_hot(targets, 3)) / 16
    torch.testing.assert_close(network.get_parameter("head.weight").grad, delta.T @ hidden)
    delta = delta @ state["head.weight"] * hidden * (1 - hidden)
    torch.testing.assert_close(network.get_parameter("linear1.weight").grad, delta.T @ FEATURES)
    torch.testing.assert_close(network.get_parameter("linear1.bias").grad, delta.sum(0))


# -- dropout


def test_dropout_zeroes_and_rescales_hidden_units_in_training_only():
    torch.manual_seed(0)
    network = MLP(6, 3, hidden=4000, activation="identity", dropout=0.25)
    before = network[:1](FEATURES.float())
    after = network[:-1](FEATURES.float())
    kept = after != 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.01)  # 64,000 units: one sigma is 0.0017
    torch.testing.assert_close(after[kept], before[kept] / 0.75)
    torch.testing.assert_close(network.eval()[:-1](FEATURES.float()), before)


def test_dropout_per_layer_and_none_where_zero():
    network = MLP(6, 3, hidden=[8, 8, 8], dropout=[0.5, 0, 0.2])
    assert {name: layer.p for name, layer in network.named_modules() if isinstance(layer, nn.Dropout)} == {
        "dropout1": 0.5,
        "dropout3": 0.2,
    }


def test_selu_gets_alpha_dropout_which_keeps_mean_and_variance():
    torch.manual_seed(0)
    network = MLP(50, 3, hidden=4000, activation="selu", dropout=0.3)
    assert isinstance(network.get_submodule("dropout1"), nn.AlphaDropout)
    features = network[:-1](torch.randn(200, 50))  # 800,000 units that share 200 rows: the mean is known to about 0.01
    assert features.mean().item() == pytest.approx(0, abs=0.03)
    assert features.var().item() == pytest.approx(1, abs=0.06)


# -- structure


def test_default_network():
    network = MLP(64, 10)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == {
        "linear1.weight": (128, 64),
        "linear1.bias": (128,),
        "linear2.weight": (64, 128),
        "linear2.bias": (64,),
        "head.weight": (10, 64),
        "head.bias": (10,),
    }  # checkpoints hold these names
    assert [type(layer) for layer in network] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, (100 * 64 + 64) + (64 * 64 + 64) + (64 * 10 + 10)),
        ({"bias": False}, 100 * 64 + 64 * 64 + 64 * 10),
        ({"activation": "glu"}, (100 * 128 + 128) + (64 * 128 + 128) + (64 * 10 + 10)),
        ({"normalization": "batch"}, (100 * 64 + 2 * 64) + (64 * 64 + 2 * 64) + (64 * 10 + 10)),
        ({"normalization": "rms", "dropout": 0.1}, (100 * 64 + 2 * 64) + (64 * 64 + 2 * 64) + (64 * 10 + 10)),
        ({"residual": True}, (100 * 64 + 64) + (64 * 64 + 64) + (64 * 10 + 10)),
    ],
)
def test_number_of_parameters(kwargs, expected):
    assert sum(p.numel() for p in MLP(100, 10, hidden=[64, 64], **kwargs).parameters()) == expected


def test_a_number_means_one_hidden_layer_and_any_sequence_will_do():
    assert MLP(6, 3, hidden=9).state_dict()["linear1.weight"].shape == (9, 6)
    cfg = OmegaConf.create({"hidden": [5, 4], "activation": ["relu", "glu"], "dropout": [0.1, 0]})
    assert MLP(6, 3, **cfg).state_dict()["linear2.weight"].shape == (8, 5)


def test_slices_are_ordinary_layers_that_share_the_weights():
    network = build(hidden=[5, 4])
    assert network[0] is network.get_submodule("linear1")
    torch.testing.assert_close(network[-1](network[:-1](FEATURES)), network(FEATURES))


# -- initial weights


def test_auto_follows_each_layers_activation():
    torch.manual_seed(0)
    network = MLP(400, 300, hidden=[500, 600, 700, 200], activation=["relu", "tanh", "selu", "swiglu"])
    variances = {name: value.var().item() for name, value in network.named_parameters() if name.endswith("weight")}
    expected = [2 / 400, 2 / (500 + 600), 1 / 600, 0.25 / 700, 2 / (200 + 300)]
    assert list(variances.values()) == pytest.approx(expected, rel=0.03)  # at least 60,000 weights: five sigma


def test_a_named_scheme_is_for_every_layer():
    torch.manual_seed(0)
    network = MLP(784, 10, hidden=[512, 512], initialization="glorot_uniform")  # Keras' default
    for layer in (network[0], network[2], network[4]):
        limit = math.sqrt(6 / sum(layer.weight.shape))
        assert 0.99 * limit < layer.weight.abs().max().item() <= limit
        assert not layer.bias.any()


def test_features_stay_bounded_in_a_deep_residual_network():
    torch.manual_seed(0)
    features = MLP(100, 10, hidden=[128] * 50, residual=True)[:-1](torch.randn(200, 100))
    assert 0.5 < features.square().mean().item() < 10  # undamped it is above 1e15


def test_equal_seeds_give_equal_networks():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in MLP(6, 3, activation="swiglu").parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


# -- what else must work


FULL = {"hidden": [8, 8], "activation": "swiglu", "normalization": "rms", "dropout": 0.1, "residual": True}


@pytest.mark.parametrize("initialization", ["auto", "he_normal", "glorot_uniform", "orthogonal", "torch"])
def test_can_be_built_on_the_meta_device(initialization):
    with torch.device("meta"):
        network = MLP(1, 2, **FULL, initialization=initialization)
    assert all(parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize("kwargs", [{}, FULL])
def test_functional_call_and_vmap(kwargs):
    networks = [build(**kwargs).eval(), MLP(6, 3, **kwargs).double().eval()]
    parameters, _ = torch.func.stack_module_state(networks)
    template = copy.deepcopy(networks[0]).to("meta")
    logits = torch.vmap(lambda p: torch.func.functional_call(template, p, (FEATURES,)))(parameters)
    torch.testing.assert_close(logits, torch.stack([network(FEATURES) for network in networks]))


def test_torch_export():
    network = build(**FULL).eval()
    program = torch.export.export(network, (FEATURES,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.testing.assert_close(program.module()(FEATURES[:5]), network(FEATURES[:5]))


# -- mistakes


@pytest.mark.parametrize(
    ("kwargs", "key", "problem"),
    [
        ({"hidden": []}, "model.hidden", "model=linear"),
        ({"hidden": [64, 0]}, "model.hidden", "at least 1"),
        ({"hidden": -3}, "model.hidden", "at least 1"),
        ({"activation": "rellu"}, "model.activation", "did you mean relu"),
        ({"activation": ["relu", "tahn"]}, "model.activation", "did you mean tanh"),
        ({"activation": ["relu"]}, "model.activation", "one value, or as many as model.hidden has widths: 2"),
        ({"activation": []}, "model.activation", "one value"),
        ({"dropout": 1.5}, "model.dropout", "at least 0 and below 1"),
        ({"dropout": 1.0}, "model.dropout", "at least 0 and below 1"),
        ({"dropout": -0.1}, "model.dropout", "at least 0 and below 1"),
        ({"dropout": math.nan}, "model.dropout", "at least 0 and below 1"),
        ({"dropout": [0.1, 2]}, "model.dropout", "at least 0 and below 1"),
        ({"dropout": [0.1, 0.1, 0.1]}, "model.dropout", "widths: 2"),
        ({"residual": True}, "model.residual", "model.hidden=.128, 64. leaves nothing to skip"),
        ({"residual": True, "hidden": 64}, "model.residual", "nothing to skip"),
    ],
)
def test_mistakes(kwargs, key, problem):
    with torch.device("meta"), pytest.raises(ConfigError, match=problem) as error:
        MLP(1, 2, **kwargs)
    assert error.value.key == key


# -- configuration


@pytest.mark.parametrize("network", [MLP, Linear])
def test_yaml_holds_every_parameter_with_its_default(network):
    path = Path(__file__).parents[3] / "configs" / "model" / f"{network.__name__.lower()}.yaml"
    values = yaml.safe_load(path.read_text())
    assert values.pop("_target_") == f"{network.__module__}.{network.__name__}"
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(network).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert values == {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


def test_yaml_names_every_activation():
    line = next(
        line
        for line in (Path(__file__).parents[3] / "configs/model/mlp.yaml").read_text().splitlines()
        if line.startswith("activation:")
    )
    assert set(ACTIVATIONS) <= set(line.replace(";", ",").replace("#", ",").replace(" ", "").split(","))
