from __future__ import annotations

import math

import pytest
import torch

from neurona.errors import ConfigError
from neurona.models.embedding import Embedding


def test_ids_become_their_vectors() -> None:
    embedding = Embedding(5, 3, (4, 3), dimension=2)
    with torch.no_grad():
        embedding.categories.copy_(torch.arange(14.0).reshape(7, 2))
    features = torch.tensor([[0.5, 1.5, 2.5, 0.0, 2.0], [0.0, 0.0, 0.0, 3.0, 0.0]])
    expected = [[0.5, 1.5, 2.5, 0.0, 1.0, 12.0, 13.0], [0.0, 0.0, 0.0, 6.0, 7.0, 8.0, 9.0]]
    assert embedding(features).tolist() == expected
    assert embedding.num_outputs == 7


def test_what_training_does_not_know_starts_as_zeros() -> None:
    embedding = Embedding(2, 0, (1000, 500), dimension=16)
    assert not embedding(torch.zeros(1, 2)).any()
    assert embedding.categories.square().sum(1).mean().item() == pytest.approx(1, abs=0.1)
    assert (embedding.categories == 0).all(1).sum() == 2


def test_periodic_numbers_are_the_papers_formula() -> None:
    embedding = Embedding(4, 2, (3,), dimension=3, numbers="periodic", frequencies=5, sigma=2.0)
    features = torch.tensor([[0.3, -1.2, 7.0, 1.0]])
    expected = []
    for number, c, weight, bias in zip(
        (0.3, -1.2), embedding.frequencies, embedding.weight, embedding.bias, strict=True
    ):
        v = 2 * math.pi * c.detach() * number
        expected += (torch.cat([v.sin(), v.cos()]) @ weight + bias).clamp(min=0).tolist()
    expected += [7.0, *embedding.categories[1].tolist()]
    torch.testing.assert_close(embedding(features), torch.tensor([expected]))
    assert embedding.num_outputs == len(expected)
    wide = Embedding(500, 500, (), numbers="periodic", frequencies=50, sigma=2.0)
    assert wide.frequencies.std().item() == pytest.approx(2, rel=0.05)


def test_pbld_is_the_papers_formula() -> None:
    embedding = Embedding(4, 2, (3,), numbers="pbld", number_dimension=4, frequencies=5, sigma=2.0)
    features = torch.tensor([[0.3, -1.2, 7.0, 1.0]])
    expected = []
    for number, c, phase, weight, bias in zip(
        (0.3, -1.2), embedding.frequencies, embedding.phases, embedding.weight, embedding.bias, strict=True
    ):
        expected += ((2 * math.pi * c.detach() * number + phase).cos() @ weight + bias).tolist()
    expected += [0.3, -1.2, 7.0, *embedding.categories[1].tolist()]
    torch.testing.assert_close(embedding(features), torch.tensor([expected]))
    assert embedding.num_outputs == len(expected) == 2 * 4 + 1 + 8
    wide = Embedding(500, 500, (), numbers="pbld", frequencies=50, sigma=2.0)
    assert wide.frequencies.std().item() == pytest.approx(2, rel=0.05)
    assert wide.phases.abs().max().item() == pytest.approx(math.pi, rel=0.01)
    assert wide.phases.std().item() == pytest.approx(math.pi / math.sqrt(3), rel=0.05)


def test_auto_is_pbld_of_a_few_numbers() -> None:
    for number in (0, 257):
        passing = Embedding(number + 2, number, (), numbers="auto")
        assert (passing.num_outputs, list(passing.parameters())) == (number + 2, [])
    torch.manual_seed(0)
    auto = Embedding(256, 256, (), numbers="auto", number_dimension=3).state_dict()
    torch.manual_seed(0)
    pbld = Embedding(256, 256, (), numbers="pbld", number_dimension=3).state_dict()
    torch.testing.assert_close(auto, pbld, rtol=0, atol=0)


def test_where_nothing_is_embedded_nothing_is_drawn_and_nothing_changes() -> None:
    before = torch.get_rng_state()
    embedding = Embedding(4, 4, ())
    assert torch.equal(before, torch.get_rng_state())
    features = torch.randn(3, 4)
    assert torch.equal(embedding(features), features)
    assert (embedding.num_outputs, list(embedding.parameters())) == (4, [])


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"dimension": 0}, "embedding.dimension"),
        ({"frequencies": 2**16}, "embedding.frequencies"),
        ({"sigma": 0.0}, "embedding.sigma"),
        ({"sigma": math.inf}, "embedding.sigma"),
        ({"numbers": "periodic"}, "embedding.numbers"),
        ({"numbers": "pbld"}, "embedding.numbers"),
        ({"numbers": "pbld", "number_dimension": 1}, "embedding.number_dimension"),
        ({"numbers": "auto", "dimension": 1}, "embedding.dimension"),
    ],
)
def test_mistakes(arguments: dict, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        Embedding(4, 0, (), **arguments)
    assert error.value.key == key
