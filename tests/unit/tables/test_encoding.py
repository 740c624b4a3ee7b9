from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, RobustScaler, StandardScaler

from neurona.tables.encoding import Encoding, fit, suited

TRAIN = torch.arange(0, 2000, 2)
METHODS = ("standard", "robust", "quantile", "piecewise", "standard_piecewise")


def numbers() -> torch.Tensor:
    """2,000 rows: normal, heavy-tailed, nine tenths zeros, small integers, constant."""
    generator = torch.Generator().manual_seed(0)
    columns = 3 * torch.randn(2000, 5, generator=generator) + 7
    columns[:, 1] = columns[:, 1].exp()
    columns[:, 2] = torch.where(torch.rand(2000, generator=generator) < 0.9, 0.0, columns[:, 2])
    columns[:, 3] = columns[:, 3].round()
    columns[:, 4] = 0.1
    return columns


def table() -> torch.Tensor:
    """2,000 rows: two numbers, of which the second is missing in places, and three columns of 3, 4 and 20 categories.
    Of the last 100 rows, which do not train, the categories of the first are unknown and a first number is missing.
    """
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2000, 5, generator=generator)
    features[torch.rand(2000, generator=generator) < 0.2, 1] = torch.nan
    for column, ids in ((2, (1, 4)), (3, (0, 5)), (4, (0, 21))):
        features[:, column] = torch.randint(*ids, (2000,), generator=generator).float()
    features[1900:, 2] = 0.0
    features[1950, 0] = torch.nan
    return features


CARDINALITIES = (4, 5, 21)
ROWS = torch.arange(1900)


def test_standard_and_robust_equal_scikit_learn() -> None:
    features = numbers()
    for method, reference in (("standard", StandardScaler()), ("robust", RobustScaler())):
        reference.fit(features[TRAIN].double().numpy())
        encoded = fit(features, TRAIN, (), numeric=method)(features)
        assert encoded.dtype == torch.float32
        np.testing.assert_allclose(encoded, reference.transform(features.double().numpy()), rtol=1e-5, atol=1e-5)


def test_standard_piecewise_is_one_beside_the_other() -> None:
    for features, cardinalities, rows in ((numbers()[:, :3], (), TRAIN), (table(), CARDINALITIES, ROWS)):
        count = features.shape[1] - len(cardinalities)
        both, one, other = (
            fit(features, rows, cardinalities, numeric=numeric, max_pieces=7, max_one_hot=10)
            for numeric in ("standard_piecewise", "standard", "piecewise")
        )
        features = features.nan_to_num(0.5)  # the mean takes the place of a missing one, not the median
        standard, piecewise = one(features), other(features)
        assert torch.equal(both(features), torch.cat([standard[:, :count], piecewise], dim=1))
        assert (both.num_numbers, both.num_outputs) == (count, count + other.num_outputs)
        assert torch.equal(both.sources, torch.cat([one.sources[:count], other.sources]))


def test_a_number_of_few_values_gets_no_pieces_beside_the_standard_one() -> None:
    features = torch.stack([torch.arange(330.0) % 33, torch.arange(330.0) % 32, torch.zeros(330)], 1)
    encoding = fit(features, torch.arange(330), (), numeric="standard_piecewise", max_pieces=50)
    assert encoding.settings["pieces"] == [1 + 32, 1, 1]
    standard = StandardScaler().fit_transform(features)
    np.testing.assert_allclose(encoding(features)[:, :3], standard, rtol=1e-5, atol=1e-6)


def test_pieces_go_by_the_training_rows_unless_they_are_set() -> None:
    assert suited("standard_piecewise", 639, None) == ("standard", 1)
    assert suited("standard_piecewise", 640, None) == ("standard_piecewise", 2)
    assert suited("standard_piecewise", 10**6, None) == ("standard_piecewise", 32)
    assert suited("standard_piecewise", 20, 5) == ("standard_piecewise", 5)
    assert suited("piecewise", 20, None) == ("piecewise", 32)
    assert suited("quantile", 20, 128) == ("quantile", 128)


def piecewise_reference(x: float, edges: NDArray[np.float64]) -> list[float]:
    """Gorishniy et al. 2022 (arXiv:2203.05556), eq. 1, as printed."""
    count = len(edges) - 1
    code = []
    for t in range(1, count + 1):
        if x < edges[t - 1] and t > 1:
            code.append(0.0)
        elif x >= edges[t] and t < count:
            code.append(1.0)
        else:
            code.append((x - edges[t - 1]) / (edges[t] - edges[t - 1]))
    return code


def test_piecewise_is_the_papers_formula() -> None:
    features = numbers()
    features[1] = torch.tensor([1e3, -1e3, -5.0, 99.0, 3.0])  # beyond what has trained
    trained = features[TRAIN].double().numpy()
    edges = [np.unique(np.quantile(column, np.linspace(0, 1, 17))) for column in trained.T]
    encoding = fit(features, TRAIN, (), numeric="piecewise", max_pieces=16)
    assert encoding.settings["pieces"] == [16, 16, len(edges[2]) - 1, len(edges[3]) - 1, 0]  # a constant tells nothing
    expected = [
        [number for x, places in zip(row, edges, strict=True) for number in piecewise_reference(x, places)]
        for row in features[:50].tolist()
    ]
    assert encoding.num_outputs == len(expected[0])
    np.testing.assert_allclose(encoding(features[:50]), expected, rtol=1e-4, atol=1e-4)


def test_few_values_are_the_ends_of_the_pieces() -> None:
    features = torch.tensor([[1.0], [2.0], [2.0], [5.0], [9.0]])
    encoded = fit(features, torch.arange(5), (), numeric="piecewise", max_pieces=3)(features)
    assert encoded.tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_quantile_gives_the_normal_scores_of_the_mid_distribution() -> None:
    features = numbers()[:, :4]
    encoded = fit(features, TRAIN, (), numeric="quantile", max_pieces=1000)(features[TRAIN]).double().numpy()
    for column, scores in zip(features[TRAIN].double().numpy().T, encoded.T, strict=True):
        below = (column < column[:, None]).mean(1)
        middle = below + (column == column[:, None]).mean(1) / 2
        np.testing.assert_allclose(scores, norm.ppf(middle), atol=2e-3)
    assert np.ptp(encoded[:, 1]) < 7  # however heavy the tail


def test_quantile_with_few_pieces_is_close_to_scikit_learns() -> None:
    features = numbers()[:, :2]
    reference = QuantileTransformer(n_quantiles=1000, output_distribution="normal").fit(features[TRAIN].numpy())
    expected = reference.transform(features.numpy())
    encoded = fit(features, TRAIN, (), numeric="quantile", max_pieces=100)(features).numpy()
    middle = np.abs(expected) < 2
    assert np.abs(encoded - expected)[middle].max() < 0.05
    assert np.abs(encoded).max() < 3.5  # where scikit-learn's goes to 5.2


def test_quantile_is_constant_beyond_the_training_rows() -> None:
    features = torch.tensor([[1.0], [2.0], [3.0], [-1e30], [1e30]])
    encoded = fit(features, torch.arange(3), (), numeric="quantile")(features).flatten()
    np.testing.assert_allclose(encoded, norm.ppf([1 / 6, 0.5, 5 / 6, 1 / 6, 5 / 6]), atol=1e-6)


def test_large_offsets_keep_their_digits() -> None:
    features = 1e6 + torch.arange(100.0).unsqueeze(1) / 4
    for method in METHODS:
        encoded = fit(features, torch.arange(100), (), numeric=method)(features)
        assert len(encoded.sum(1).unique()) == 100, method


def test_missing_numbers_are_filled_and_indicated() -> None:
    features = table()
    present = features[ROWS][~features[ROWS, 1].isnan(), 1].double().numpy()
    median = np.median(present)
    for method, fill in (("standard", present.mean()), ("robust", median), ("piecewise", median)):
        encoding = fit(features, ROWS, CARDINALITIES, numeric=method)
        same = features.clone()
        same[:, 1] = features[:, 1].nan_to_num(float(fill))
        encoded, filled = encoding(features), encoding(same)
        place = sum(encoding.settings["pieces"])
        assert torch.equal(encoded[:, place], features[:, 1].isnan().float())
        assert not filled[:, place].any()
        encoded[:, place] = filled[:, place] = 0
        torch.testing.assert_close(encoded[:1900], filled[:1900])
        assert encoded.isfinite().all()  # a number that had not been missing before is filled, not indicated


def test_one_hot_equals_scikit_learn() -> None:
    features = table()
    encoding = fit(features, ROWS, CARDINALITIES, numeric="standard", max_one_hot=20)
    reference = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(features[ROWS, 2:].numpy())
    expected = reference.transform(features[:, 2:].numpy())
    assert torch.equal(encoding(features)[:, 3:], torch.from_numpy(expected).float())
    assert not encoding(features)[1900:, 3:6].any()  # what training did not know
    assert encoding.embedded == []


def test_many_categories_stay_ids() -> None:
    features = table()
    encoding = fit(features, ROWS, CARDINALITIES, numeric="standard", max_one_hot=19)
    assert encoding.embedded == [21]
    assert torch.equal(encoding(features)[:, -1], features[:, 4])
    assert encoding(features).shape[1] == encoding.num_outputs == 2 + 1 + 3 + 5 + 1
    assert encoding.num_numbers == 2
    assert fit(features, ROWS, CARDINALITIES, numeric="piecewise").num_numbers == 0


@pytest.mark.parametrize("method", METHODS)
def test_rebuilt_from_plain_data_it_gives_the_same_bits(method: str) -> None:
    features = table()
    encoding = fit(features, ROWS, CARDINALITIES, numeric=method)
    rebuilt = Encoding(**encoding.settings)
    rebuilt.load_state_dict(encoding.state_dict())
    assert torch.equal(rebuilt(features), encoding(features))
    assert rebuilt(features[:1]).equal(encoding(features)[:1])


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_odd_columns_are_encoded_finitely(method: str, flushed: bool, request: pytest.FixtureRequest) -> None:
    torch.set_flush_denormal(flushed)  # as in a run
    request.addfinalizer(lambda: torch.set_flush_denormal(False))
    nan = torch.nan
    features = torch.tensor([[nan, 1e-40, 5.0, 3e38], [nan, 0.0, nan, 0.0], [nan, 2e-40, nan, -3e38]])
    encoded = fit(features, torch.arange(3), (), numeric=method)(features)
    assert encoded.isfinite().all()


@pytest.mark.parametrize("method", ["quantile", "piecewise"])  # the others are piecewise ones of one piece
def test_it_passes_torch_export(method: str) -> None:
    features = table()
    encoding = fit(features, ROWS, CARDINALITIES, numeric=method).eval()
    exported = torch.export.export(encoding, (features[:3],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    assert torch.equal(exported(features), encoding(features))
