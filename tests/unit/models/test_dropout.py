"""Masks drawn four at once are as good as ``nn.Dropout``'s: their statistics and gradients, what they leave alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurona.models import dropout
from neurona.models.dropout import LEAST_NUMBERS, LEVELS, Dropout, drawn_by_torch

SIGMAS = 5
"""Of a binomial; further off is one of two million masks of independent numbers."""


@pytest.mark.parametrize("dropped", [1, 2, 3277, LEVELS // 2, LEVELS - 1])
def test_of_all_numbers_exactly_as_many_drop(dropped: int) -> None:
    """Of 16 bits, and of the even ones that every fourth number is."""
    all_numbers = torch.arange(-LEVELS, LEVELS, dtype=torch.int16)
    masks = dropout.kept(all_numbers.view(torch.int64).bitwise_right_shift(1), dropped)
    assert masks.unique().tolist() == [0, 1]
    assert (masks == 0).sum() == 2 * dropped
    even = torch.arange(-LEVELS, LEVELS, 2, dtype=torch.int16)
    assert (dropout.kept(even.view(torch.int64).bitwise_right_shift(1), dropped) == 0).sum() == dropped


def kept(probability: float, shape: tuple[int, ...]) -> Tensor:
    torch.manual_seed(0)
    return Dropout(probability)(torch.ones(shape)) != 0


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.2, 0.5, 0.9])
def test_each_number_is_dropped_as_often_as_asked_independently_of_its_neighbours(probability: float) -> None:
    masks = kept(probability, (1001, 1000)).double().flatten()
    expected, size = 1 - probability, masks.numel()
    for place in range(4):  # of a number in the 64 bits that are drawn at once
        deviation = masks[place::4].mean().item() - expected
        assert abs(deviation) < SIGMAS * math.sqrt(probability * expected / (size / 4))
    for distance in (1, 2, 3, 4, 1000):
        products = (masks[:-distance] - expected) * (masks[distance:] - expected)
        assert abs(products.mean().item()) < SIGMAS * probability * expected / math.sqrt(size)


@pytest.mark.parametrize("shape", [(64, 64), (4097,), (33, 5, 41)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_kept_grows_and_has_that_gradient(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    inputs = torch.randn(shape, dtype=dtype, requires_grad=True)
    outputs = Dropout(0.25)(inputs)
    assert outputs.dtype == dtype
    factors = (outputs != 0).to(dtype) * (4 / 3)
    torch.testing.assert_close(outputs, inputs * factors)
    outputs.sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, factors)
    assert 0 < (factors == 0).double().mean().item() < 0.5


def test_a_seed_gives_a_mask_and_the_next_is_another() -> None:
    assert torch.equal(kept(0.5, (64, 64)), kept(0.5, (64, 64)))
    layer, ones = Dropout(0.5), torch.ones(64, 64)
    assert not torch.equal(layer(ones), layer(ones))


@pytest.mark.parametrize("probability", [0.0, 1e-6, 0.3, 1 - 1e-6, 1.0])
def test_few_numbers_and_extreme_probabilities_are_torchs(probability: float) -> None:
    for size in (LEAST_NUMBERS - 1, LEAST_NUMBERS):
        if size == LEAST_NUMBERS and probability == 0.3:
            continue
        outcomes = []
        for layer in (Dropout(probability), nn.Dropout(probability)):
            torch.manual_seed(2)
            outcomes.append(layer(torch.ones(size)))
        assert torch.equal(*outcomes)


def test_evaluation_changes_and_draws_nothing() -> None:
    inputs, before = torch.randn(64, 64), torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(inputs), inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_compiler_is_given_torchs() -> None:
    inputs, outcomes = torch.ones(64, 64), []
    for kind in (Dropout, nn.Dropout):
        torch.manual_seed(3)
        with drawn_by_torch():
            outcomes.append(kind(0.5)(inputs))
    assert torch.equal(*outcomes)
    torch.manual_seed(3)
    assert not torch.equal(Dropout(0.5)(inputs), outcomes[0])


def test_a_probability_is_taken_to_the_nearest_level() -> None:
    """1.6 of 32,768 are 2, and what is kept grows accordingly."""
    outputs = Dropout(1.6 / LEVELS)(torch.ones(LEAST_NUMBERS))
    assert outputs.max().item() == pytest.approx(LEVELS / (LEVELS - 2), abs=1e-7)
    assert outputs.max().item() != pytest.approx(LEVELS / (LEVELS - 1), abs=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "translate",
    [
        torch.jit.script,
        lambda layer: torch.jit.trace(layer, torch.ones(64, 64), check_trace=False),
        lambda layer: torch.compile(layer, backend="eager"),
        lambda layer: torch.export.export(layer, (torch.ones(64, 64),)).module(),
    ],
    ids=["script", "trace", "compile", "export"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch")
def test_what_torch_translates_is_torchs(translate: Any, training: bool) -> None:
    layer = translate(Dropout(0.5).train(training))
    values = layer(torch.ones(64, 64)).unique().tolist()
    assert values == ([0, 2] if training else [1])


def test_in_place_stays_in_place() -> None:
    inputs = torch.ones(64, 64)
    assert Dropout(0.5, inplace=True)(inputs) is inputs
    assert 0 in inputs


def test_another_p_is_used_from_then_on() -> None:
    layer, inputs = Dropout(0.5), torch.ones(64, 64)
    layer.p = torch.tensor(0.75)  # type: ignore[assignment]
    assert layer(inputs).unique().tolist() == [0, 4]
    layer.p = math.nan
    with pytest.raises(RuntimeError, match="nan"):
        layer(inputs)
