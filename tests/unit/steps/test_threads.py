"""Half of the threads are trusted only with operations whose bits do not depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from neurona.models.dropout import Dropout
from neurona.models.mlp import MLP
from neurona.steps import threads
from neurona.steps.trace import Recording, traced

FEATURES, CLASSES = 12, 4


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def mlp(**options: Any) -> MLP:
    return MLP(FEATURES, CLASSES, **options)


def mini_batch(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, FEATURES, generator=generator), torch.randint(0, CLASSES, (rows,), generator=generator)


def recording_of(network: nn.Module, rows: int, dtype: torch.dtype = torch.float32) -> Recording:
    def loss(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(features.to(dtype))
        return cross_entropy(logits, targets), logits

    return traced(loss, [*network.parameters()], [*network.buffers()], *mini_batch(rows))


def will_do(network: nn.Module, recording: Recording, rows: int) -> bool:
    tensors = [*network.parameters()], [*network.buffers()]
    return threads.half_will_do(recording, *mini_batch(rows), *tensors)


@pytest.mark.parametrize(
    ("options", "rows", "expected"),
    [
        ({"hidden": [8]}, 16, True),
        ({"hidden": [8], "dropout": 0.2}, 16, True),
        ({"hidden": [8], "activation": "silu"}, 16, True),
        ({"hidden": [8], "activation": "swiglu", "dropout": 0.2}, 16, True),
        ({"hidden": [49], "activation": "silu"}, 701, False),  # the share of a thread ends within a vector
        ({"hidden": [8], "normalization": "layer"}, 16, False),  # each thread adds up the gradients of some rows
        ({"hidden": [8], "normalization": "batch"}, 16, False),
    ],
    ids=str,
)
def test_what_is_trusted(options: dict[str, Any], rows: int, expected: bool) -> None:
    network = mlp(**options)
    assert will_do(network, recording_of(network, rows), rows) == expected


def test_nothing_of_low_precision() -> None:
    network = mlp(hidden=[8]).bfloat16()
    assert not will_do(network, recording_of(network, 16, torch.bfloat16), 16)


def test_one_thread_has_no_half() -> None:
    network = mlp(hidden=[8])
    recording = recording_of(network, 16)
    torch.set_num_threads(1)
    assert not will_do(network, recording, 16)


def test_products_are_tried_with_other_parameters_than_those_of_the_fit() -> None:
    """Which may be 0 at its beginning, when nothing shows in what order they are added up."""
    network = mlp(hidden=[8])
    nn.init.zeros_(network.head.weight)
    recording = recording_of(network, 16)
    assert will_do(network, recording, 16)

    def dependent(features: Tensor, targets: Tensor) -> list[Any]:
        loss, *others = recording.passes(features, targets)
        return [loss + network.head.weight.sum() * torch.get_num_threads(), *others]

    assert not will_do(network, recording._replace(passes=dependent), 16)


def test_a_trial_changes_and_draws_nothing() -> None:
    network = nn.Sequential(nn.Linear(FEATURES, 512), Dropout(0.5), nn.Linear(512, CLASSES))
    recording, state = recording_of(network, 16), torch.get_rng_state()
    before = [tensor.clone() for tensor in network.parameters()]
    assert will_do(network, recording, 16)
    assert all(map(torch.equal, before, network.parameters()))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("shape", "number", "expected"),
    [
        ((1024, 100), 2, True),
        ((701, 49), 2, False),
        ((1000, 50), 2, False),
        ((512, 256), 4, True),
        ((512, 256), 6, False),
    ],
)
def test_where_shares_end(shape: tuple[int, ...], number: int, expected: bool) -> None:
    assert threads._is_aligned(torch.Size(shape), number) == expected
