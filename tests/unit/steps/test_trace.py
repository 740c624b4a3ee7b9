"""Recorded passes have the bits of autograd's, draw its random numbers, and change what it changes."""

from __future__ import annotations

import dis
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from neurona.models.activations import ACTIVATIONS
from neurona.models.embedding import Embedding
from neurona.models.linear import Linear
from neurona.models.mlp import MLP
from neurona.models.tabm import TabM
from neurona.steps.trace import traced
from neurona.tables import encoding as encodings

ROWS, FEATURES, CLASSES = 16, 12, 4


def mlp(**arguments: Any) -> nn.Module:
    return MLP(FEATURES, CLASSES, **{"hidden": [8, 8], **arguments})


def embedded() -> nn.Module:
    features = torch.randn(64, FEATURES)
    features[:, -1].mul_(9).trunc_().abs_()  # ids
    encoded = encodings.fit(features, torch.arange(64), [20], numeric="standard", max_one_hot=2)
    embedding = Embedding(encoded.num_outputs, encoded.num_numbers, encoded.embedded, numbers="periodic")
    return nn.Sequential(encoded, embedding, MLP(embedding.num_outputs, CLASSES, hidden=[8], dropout=0.2))


class Learnable(nn.Module):
    """x sigmoid(beta x) (Ramachandran et al. 2017, arXiv:1710.05941), beta being a number."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(1.0))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * torch.sigmoid(self.beta * inputs)


NETWORKS: dict[str, Any] = {
    **{name: lambda name=name: mlp(activation=name) for name in ACTIVATIONS},
    **{norm: lambda norm=norm: mlp(normalization=norm, dropout=0.3) for norm in ("batch", "layer", "rms")},
    "dropout": lambda: mlp(dropout=[0.5, 0.1]),
    "alpha_dropout": lambda: mlp(activation="selu", dropout=0.2),
    "residual": lambda: mlp(residual=True),
    "without_bias": lambda: mlp(bias=False),
    "linear": lambda: Linear(FEATURES, CLASSES),
    "members": lambda: TabM(FEATURES, CLASSES, hidden=[8, 8], members=3, dropout=0.2),
    "embedded": embedded,
    "learnable": lambda: nn.Sequential(nn.Linear(FEATURES, 8), Learnable(), nn.Linear(8, CLASSES)),
    "unused": lambda: nn.Sequential(*(nn.ModuleList([nn.Linear(FEATURES, CLASSES)])), nn.Identity()),
}


def loss_of(network: nn.Module, **options: Any) -> Any:
    def loss(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(features)
        return cross_entropy(logits, targets, **options), logits

    return loss


def mini_batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(ROWS, FEATURES, generator=generator).to(dtype)
    features[:, -1] = torch.randint(0, 20, (ROWS,), generator=generator).to(dtype)
    return features, torch.randint(0, CLASSES, (ROWS,), generator=generator)


def assert_autograds_bits(network: nn.Module, loss: Any, batch: tuple[Tensor, Tensor], share: float = 1) -> None:
    """Two steps by the recorded function are two by autograd: results, random numbers and buffers."""
    parameters, buffers = [*network.parameters()], [*network.buffers()]
    torch.manual_seed(3)
    seed, before = torch.get_rng_state(), [buffer.clone() for buffer in buffers]
    function = traced(loss, parameters, buffers, *batch, share).passes
    assert torch.equal(seed, torch.get_rng_state())
    assert all(map(torch.equal, buffers, before))
    outcomes = []
    for is_traced in (True, False):
        torch.set_rng_state(seed)
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        for _ in range(2):
            if is_traced:
                with torch.no_grad():
                    value, logits, *gradients = function(*batch)
            else:
                network.zero_grad()
                value, logits = loss(*batch)
                (value * share if share != 1 else value).backward()
                gradients = [parameter.grad for parameter in parameters]
        outcomes.append([value, logits, *gradients, torch.get_rng_state(), *(buffer.clone() for buffer in buffers)])
    for ours, autograds in zip(*outcomes, strict=True):
        assert (ours is None) == (autograds is None)
        assert ours is None or (torch.equal(ours, autograds) and ours.dtype == autograds.dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    network = NETWORKS[name]()
    assert_autograds_bits(network, loss_of(network), mini_batch())


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"label_smoothing": 0.1}, 1),
        ({"weight": torch.tensor([1.0, 2.0, 0.0, 0.5])}, 1),
        ({"label_smoothing": 0.1, "weight": torch.tensor([1.0, 2.0, 0.3, 0.5])}, 0.25),
    ],
    ids=["smoothing", "weights", "share_of_both"],
)
def test_losses(options: dict[str, Any], share: float) -> None:
    network = mlp()
    assert_autograds_bits(network, loss_of(network, **options), mini_batch(), share)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precisions(dtype: torch.dtype) -> None:
    network = mlp(normalization="layer", dropout=0.2).to(dtype)
    assert_autograds_bits(network, loss_of(network), mini_batch(dtype))


def test_a_parameter_that_the_loss_does_not_depend_on_has_no_gradient() -> None:
    network = mlp()
    unused = nn.Parameter(torch.ones(3))
    function = traced(loss_of(network), [unused, *network.parameters()], [], *mini_batch()).passes
    with torch.no_grad():
        assert function(*mini_batch())[2] is None


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_activations_and_their_gradients_take_the_place_of_what_nobody_else_reads(name: str) -> None:
    network = mlp(activation=name)
    names = operations_of(traced(loss_of(network), [*network.parameters()], [], *mini_batch()).passes)
    backward = {"relu": "threshold"}.get(name, name)
    assert names.count(f"{name}_.default") == names.count(f"{backward}_backward.grad_input") == 2
    assert f"{name}.default" not in names


class Arithmetic(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs + 1 - inputs.mean()) * 2 / 3


def test_arithmetic_takes_the_place_of_what_nobody_reads_any_more() -> None:
    network = nn.Sequential(nn.Linear(FEATURES, 8), Arithmetic(), nn.Linear(8, CLASSES))
    names = operations_of(traced(loss_of(network), [*network.parameters()], [], *mini_batch()).passes)
    assert names.count("sub.out") == 1
    assert names.count("mul.out") == names.count("div.out") == 2
    assert_autograds_bits(network, loss_of(network), mini_batch())


class ReadsAgain(nn.Module):
    """Reads what goes into an activation and into arithmetic a second time, itself or as a view."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.view, self.first, self.last = view, nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.first(features)
        again = inner.view(-1).view(-1, 8) if self.view else inner
        return self.last(inner.tanh() * (inner * 2 - 1) * again.sigmoid())


@pytest.mark.parametrize("view", [False, True])
def test_what_is_read_again_is_not_overwritten(view: bool) -> None:
    network = ReadsAgain(view)
    assert_autograds_bits(network, loss_of(network), mini_batch())


class Noting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func).removeprefix("aten."))
        return func(*args, **(kwargs or {}))


def operations_of(passes: Any) -> list[str]:
    with torch.no_grad(), Noting() as noting:
        passes(*mini_batch())
    return noting.names


def test_a_sum_that_a_view_reshapes_keeps_its_dimensions() -> None:
    scale = nn.Parameter(torch.ones(1, 3, FEATURES))

    def loss(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        wide = features[:, None] * scale
        return wide.sum(0, keepdim=True).view(3 * FEATURES).square().mean(), features

    module = nn.Module()
    module.scale = scale
    assert_autograds_bits(module, loss, mini_batch())


def test_weights_are_read_where_they_lie() -> None:
    network = mlp()
    function = traced(loss_of(network), [*network.parameters()], [], *mini_batch()).passes
    with torch.no_grad():
        network.head.weight.mul_(2)
        assert torch.equal(function(*mini_batch())[1], network(mini_batch()[0]))


def test_a_pass_that_looks_at_a_value_is_refused() -> None:
    network = mlp()

    def loss(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        value, logits = loss_of(network)(features, targets)
        return value * 2 if value > 1 else value, logits

    with pytest.raises(RuntimeError, match="looks at a value"):
        traced(loss, [*network.parameters()], [], *mini_batch())


def test_a_pass_whose_shapes_depend_on_values_is_refused() -> None:
    network = mlp()

    def loss(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        value, logits = loss_of(network)(features, targets)
        return value + logits[targets == 0].mean(), logits

    with pytest.raises(RuntimeError, match="shape"):
        traced(loss, [*network.parameters()], [], *mini_batch())


def test_a_tensor_that_python_makes_and_a_pass_fills_is_new_in_every_pass() -> None:
    network = mlp()

    def loss(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits, weight = network(features), torch.tensor([0.1] * CLASSES)
        weight[targets[:3]] = 1.0
        return cross_entropy(logits, targets, weight=weight), logits

    function = traced(loss, [*network.parameters()], [], *mini_batch()).passes
    features, _ = mini_batch()
    for only in range(CLASSES):
        targets = torch.arange(ROWS) % CLASSES
        targets[:3] = only
        with torch.no_grad():
            assert torch.equal(function(features, targets)[0], loss(features, targets)[0])


def test_a_pass_that_reads_a_mini_batch_behind_the_back_of_torch_is_refused() -> None:
    network = mlp()

    def loss(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        value, logits = loss_of(network)(features, targets)
        return value * torch.from_dlpack(features).mean(), logits

    with pytest.raises(RuntimeError, match="other bits"):
        traced(loss, [*network.parameters()], [], *mini_batch())


def test_a_pass_that_draws_in_python_is_refused_and_costs_no_number() -> None:
    network, state = mlp(), random.getstate()

    def loss(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return loss_of(network)(features * random.random(), targets)

    with pytest.raises(RuntimeError, match="drawn in Python"):
        traced(loss, [*network.parameters()], [], *mini_batch())
    assert random.getstate() == state


def test_numbers_that_have_no_literal_are_recorded() -> None:
    network = mlp()

    def loss(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(features).masked_fill(torch.arange(CLASSES) == CLASSES, -torch.inf)
        return cross_entropy(logits, targets), logits

    assert_autograds_bits(network, loss, mini_batch())


def test_what_is_no_longer_read_is_let_go() -> None:
    """As autograd does, which keeps nothing that the passes still to come do not read."""
    network = nn.Sequential(
        *(nn.Linear(FEATURES, FEATURES, bias=False) for _ in range(6)), nn.Linear(FEATURES, CLASSES)
    )
    passes: Any = traced(loss_of(network), [*network.parameters()], [], *mini_batch()).passes
    kept = {name for name in passes.__code__.co_varnames if name not in ("features", "targets")}
    dropped = [line for line in dis.get_instructions(passes) if line.opname == "DELETE_FAST"]
    assert len(dropped) == len(kept) - len([*network.parameters()]) - 2  # all but loss, logits and gradients
