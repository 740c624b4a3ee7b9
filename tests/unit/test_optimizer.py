"""The optimisers follow their published updates, written here in numpy; clipping limits what a step sees; groups of
parameters have arguments of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from neurona.errors import ConfigError
from neurona.optimizer import Muon, Optimization, RMSprop

STEPS = 20
KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "rmsprop": RMSprop}
CONFIGS = Path(__file__).parents[2] / "configs" / "optimizer"

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
    algorithm = optimization.optimizer([("w", parameter)])
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
    taken = by_torch(Optimization.of(KINDS[reference.__name__], **arguments))
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
def test_the_yamls_have_the_defaults_of_the_source(name):
    arguments = dict(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    for key in ("defaults", "_target_", "clip_norm", "clip_value", "accumulate", "groups"):
        del arguments[key]
    expected = by_numpy(partial(globals()[name], **DEFAULTS[name]))
    taken = by_torch(Optimization.of(KINDS[name], **arguments))
    np.testing.assert_allclose(taken, expected, rtol=1e-11, atol=1e-11)


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
        classifier = make_classifier(network, 2, 2, Optimization.of(torch.optim.SGD, lr=1.0, **clipping))
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


# Groups.


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))


def train(network: nn.Module, *optimizers: torch.optim.Optimizer) -> list[torch.Tensor]:
    for _ in range(3):
        nn.functional.cross_entropy(network(FEATURES), TARGETS).backward()
        for each in optimizers:
            each.step()
        network.zero_grad()
    return [parameter.detach() for parameter in network.parameters()]


def test_groups_step_as_torch_has_them_with_the_first_pattern_that_matches():
    groups = {"2.*": {"lr": 0.5, "betas": [0.5, 0.9]}, "*.bias": {"weight_decay": 0}}
    chosen = Optimization.of(torch.optim.AdamW, lr=0.1, groups=groups)
    mine, plain = network(), network()
    weight, bias, *head = plain.parameters()
    grouped = [
        {"params": [weight]},
        {"params": head, "lr": 0.5, "betas": (0.5, 0.9)},
        {"params": [bias], "weight_decay": 0},
    ]
    expected = train(plain, torch.optim.AdamW(grouped, lr=0.1, fused=True))
    for parameter, other in zip(train(mine, chosen.optimizer([*mine.named_parameters()])), expected, strict=True):
        assert torch.equal(parameter, other)


def test_what_is_left_to_others_is_in_no_group():
    named = [*network().named_parameters()]
    groups = {"0.*": {"lr": 0.5}}
    made = Optimization.of(torch.optim.SGD, groups=groups).optimizer(named, {parameter for _, parameter in named[:2]})
    (rest,) = made.param_groups
    assert [id(parameter) for parameter in rest["params"]] == [id(parameter) for _, parameter in named[2:]]


@pytest.mark.parametrize(
    ("kind", "groups", "message"),
    [
        (
            torch.optim.SGD,
            {"head.*": {"lr": 1}},
            r"groups=head\.\*: matches none of 0.weight, 0.bias, 2.weight, 2.bias$",
        ),
        (torch.optim.SGD, {"2": {"lr": 1}}, r"groups=2: matches none of .*; 2\.\* matches all parameters below 2$"),
        (
            torch.optim.SGD,
            {"*": {"lr": 1}, "0.*": {"lr": 2}},
            r"groups=0\.\*: an earlier pattern already matches these parameters",
        ),
        (
            torch.optim.SGD,
            {"*": {"momentums": 0.5}},
            r"groups\.\*\.momentums=0.5: .*SGD has .* did you mean momentum\?",
        ),
        (torch.optim.SGD, {1: {"lr": 1}}, r"groups=1: must be a pattern for names"),
        (torch.optim.SGD, {"*": 0.1}, r"groups\.\*=0.1: must be a mapping"),
        (torch.optim.SGD, {"*": {"lr": 0}}, r"groups\.\*\.lr=0: must be above 0"),
        (torch.optim.LBFGS, {"0.*": {"lr": 1}}, r"^optimizer=torch.optim.LBFGS: LBFGS doesn't support per-parameter"),
    ],
    ids=str,
)
def test_a_group_without_effect_is_refused(kind, groups, message):
    with pytest.raises(ConfigError, match=message):
        Optimization.of(kind, groups=groups).optimizer([*network().named_parameters()])


def test_a_group_has_a_rho_of_its_own():
    (group,) = (
        Optimization.of(RMSprop, groups={"*": {"rho": 0.5}}).optimizer([*network().named_parameters()]).param_groups
    )
    assert group["alpha"] == 0.5


# Muon.


@pytest.mark.parametrize("is_resumed", [False, True])
def test_muon_is_torchs_own_for_matrices_and_adamw_for_the_rest(is_resumed):
    mine, plain = network(), network()
    chosen = Optimization.of(Muon, lr=0.1)
    made = chosen.optimizer([*mine.named_parameters()])
    matrices = [parameter for parameter in plain.parameters() if parameter.ndim == 2]
    rest = [parameter for parameter in plain.parameters() if parameter.ndim != 2]
    shared = {"lr": 0.1, "weight_decay": 0.01, "eps": 1e-8}
    muon = torch.optim.Muon(matrices, **shared, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, **shared, fused=True)
    for each in range(2):
        if each and is_resumed:
            state = made.state_dict()
            made = chosen.optimizer([*mine.named_parameters()])
            made.load_state_dict(state)
        for group in (*muon.param_groups, *adamw.param_groups, *made.param_groups):
            group["lr"] /= 2  # as a schedule would
        taken, expected = train(mine, made), train(plain, muon, adamw)
    assert all(torch.equal(*pair) for pair in zip(taken, expected, strict=True))


def test_lbfgs_gets_its_closure_and_steps_as_in_a_plain_loop(rows, make_trainer, make_classifier):
    mine, plain = network(), network()
    chosen = Optimization.of(torch.optim.LBFGS, lr=0.1, max_iter=4)
    trainer = make_trainer(max_epochs=3)
    trainer.fit(make_classifier(mine, 2, 2, chosen), rows(FEATURES, TARGETS, 3))
    by_hand = torch.optim.LBFGS(plain.parameters(), lr=0.1, max_iter=4)

    def closure():
        by_hand.zero_grad()
        loss = nn.functional.cross_entropy(plain(FEATURES), TARGETS)
        loss.backward()
        return loss

    for _ in range(3):
        by_hand.step(closure)
    assert trainer.global_step == 3
    for parameter, other in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter, other)


def test_who_needs_a_closure():
    assert Optimization.of(torch.optim.LBFGS).needs_closure
    assert not any(Optimization.of(kind).needs_closure for kind in (*KINDS.values(), Muon, torch.optim.NAdam))


# Ranges.

ALGORITHMS = (*KINDS.values(), torch.optim.NAdam, Muon)
WITH_BETAS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, Muon)
WITH_MOMENTUM = (torch.optim.SGD, RMSprop, Muon)
NOT_FINITE = (math.nan, math.inf)
WRONG = [
    *((make, "lr", value) for make in ALGORITHMS for value in (0.0, -1e-3, *NOT_FINITE)),
    *((make, "weight_decay", value) for make in ALGORITHMS for value in (-0.1, *NOT_FINITE)),
    *(
        (make, "betas", value)
        for make in WITH_BETAS
        for value in ([0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.9, 0.9], [0.9, math.nan])
    ),
    *((make, "eps", value) for make in (*WITH_BETAS, RMSprop) for value in (0.0, -1e-8, *NOT_FINITE)),
    *((make, "momentum", value) for make in WITH_MOMENTUM for value in (-0.1, 1.0, math.nan)),
    *((RMSprop, "rho", value) for value in (-0.1, 1.0)),
    *((torch.optim.SGD, "clip_norm", value) for value in (0.0, -1.0, *NOT_FINITE)),
    *((torch.optim.SGD, "clip_value", value) for value in (0.0, -1.0, *NOT_FINITE)),
    *((torch.optim.SGD, "accumulate", value) for value in (0, -2, 2**31)),
]


@pytest.mark.parametrize(("make", "name", "value"), WRONG, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_value_out_of_range_is_refused_by_its_key(make, name, value):
    with pytest.raises(ConfigError) as caught:
        Optimization.of(make, **{name: value})
    assert caught.value.key == f"optimizer.{name}"
    assert caught.value.value == value or value != value  # NaN


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigError, match="not both") as caught:
        Optimization.of(torch.optim.SGD, clip_norm=1.0, clip_value=1.0)
    assert caught.value.key == "optimizer.clip_value"
    with pytest.raises(ConfigError, match=r"needs optimizer\.momentum above 0") as caught:
        Optimization.of(torch.optim.SGD, nesterov=True, momentum=0.0)
    assert caught.value.key == "optimizer.nesterov"


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (torch.optim.NAdam, {"momentum_decay": -1}, "optimizer=torch.optim.NAdam: Invalid momentum_decay value: -1"),
        (
            torch.optim.SGD,
            {"nesterov": True},
            "optimizer=torch.optim.SGD: Nesterov momentum requires a momentum and zero dampening",
        ),
    ],
)
def test_what_a_constructor_refuses_names_the_optimizer(kind, arguments, message):
    with pytest.raises(ConfigError) as caught:
        Optimization.of(kind, **arguments).optimizer([*network().named_parameters()])
    assert str(caught.value) == message


def test_the_edges_of_the_ranges_are_allowed():
    for kind, arguments in (
        (torch.optim.Adam, {"betas": [0, 0], "weight_decay": 0.0}),
        (torch.optim.SGD, {"momentum": 0.0, "accumulate": 1}),
        (RMSprop, {"rho": 0.0}),
    ):
        Optimization.of(kind, **arguments).optimizer([*network().named_parameters()])
