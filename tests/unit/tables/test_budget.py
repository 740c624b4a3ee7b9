"""How much importance there is time for, by clocks that are handed in."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from torch import nn

from neurona.classifier import Classifier
from neurona.data.spec import DataSpec
from neurona.tables import encoding
from neurona.tables.budget import Extent, affordable, by_promise, promise, seconds_each

WHOLE = Extent(repeats=5, rows=10_000, columns=300)


@pytest.mark.parametrize(
    ("seconds", "extent"),
    [
        (1e9, WHOLE),
        (1875, WHOLE),  # 1,500 shuffles of a second, and a quarter more time than that
        (1874, (4, 10_000, 300)),
        (750, (2, 10_000, 300)),
        (749, (2, 9_900, 300)),
        (80, (2, 1_000, 300)),
        (0.001, (2, 1_000, 300)),
    ],
)
def test_first_repeats_then_rows_are_cut(seconds: float, extent: tuple[int, int, int]) -> None:
    assert affordable(seconds, WHOLE, each=1.0) == extent


@pytest.mark.parametrize("whole", [Extent(1, 90, 5000), Extent(2, 1_000, 5000)])
def test_what_is_little_already_is_not_cut(whole: Extent) -> None:
    assert affordable(10, whole, each=0.01) == whole


def test_what_was_left_out_in_words() -> None:
    whole = Extent(5, 10_000, 5_000)
    assert Extent(2, 1_000, 400).beside(whole) == "400 of 5,000 columns, 2 of 5 repeats, 1,000 of 10,000 rows"
    assert Extent(2, 10_000, 5_000).beside(whole) == "5,000 columns, 2 of 5 repeats, 10,000 rows"


def test_the_first_is_not_timed_and_no_more_than_enough() -> None:
    items = count()
    times = iter([7.0, 8.0, 9.0, 10.0, 11.0, 12.0])
    assert seconds_each(items, enough=4.0, clock=lambda: next(times)) == 1.0
    assert next(items) == 5
    assert seconds_each([0, 1], enough=4.0, clock=iter([0.0, 3.0]).__next__) == 3.0
    assert seconds_each([0, 1], enough=4.0, clock=lambda: 0.0) > 0


@pytest.fixture
def fitted() -> tuple[Classifier, torch.Tensor, torch.Tensor]:
    """Raw columns: numbers a, b, c of different scales, a category of three and one of many, which is embedded."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(500, 3, generator=generator) * torch.tensor([1.0, 1000.0, 1.0])
    numbers[::7, 2] = torch.nan
    categories = torch.randint(0, 4, (500, 2), generator=generator)
    features = torch.cat([numbers, categories.float()], dim=1)
    preprocessing = encoding.fit(features, torch.arange(500), [4, 9], numeric="standard", max_one_hot=5)
    network = nn.Linear(preprocessing.num_outputs, 2)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[0, :3] = torch.tensor([3.0, 1.0, 0.0])
        network.weight[0, 4] = 4.0  # of the category's first code
    classifier = Classifier(preprocessing, network, DataSpec(preprocessing.num_outputs, 2, ("no", "yes")))
    return classifier.eval(), features, torch.randint(0, 2, (500,), generator=generator)


def test_the_promise_is_that_of_the_formula_by_hand(fitted) -> None:
    classifier, features, targets = fitted
    encoded = classifier.preprocessing(features)
    wrong = classifier.network(encoded).softmax(1) - torch.nn.functional.one_hot(targets, 2)
    owed = ((wrong @ classifier.network.weight) * (encoded - encoded.mean(0))).abs().mean(0)
    # Outputs: three numbers, whether the third is missing, four codes of the category, the id.
    wanted = torch.stack([owed[0], owed[1], owed[2] + owed[3], owed[4:8].sum(), torch.tensor(torch.inf)])
    with torch.inference_mode():  # as in a test
        torch.testing.assert_close(promise(classifier, features, targets), wanted)
        columns = {"a": [0], "b": [1], "c": [2], "d": [3], "e": [4]}
        assert by_promise(classifier, features, targets, columns) == ["e", "a", "d", "b", "c"]


@pytest.mark.parametrize("numeric", ["standard", "quantile", "piecewise", "standard_piecewise"])
def test_every_output_has_the_column_that_it_moves_with(numeric: encoding.Numeric) -> None:
    features = torch.cat([torch.randn(60, 3), torch.randint(0, 5, (60, 2)).float()], dim=1)
    features[::5, 1] = torch.nan
    module = encoding.fit(features, torch.arange(60), [5, 9], numeric=numeric, max_pieces=4, max_one_hot=6)
    before = module(features)
    for column in range(5):
        changed = features.clone()
        changed[:, column] = features[:, column].roll(1)
        moved = (module(changed) != before).any(0)
        assert set(module.sources[moved].tolist()) == {column}
    assert len(module.sources) == module.num_outputs
