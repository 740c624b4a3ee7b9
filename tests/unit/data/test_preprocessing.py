from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from neurona.data import preprocessing
from neurona.data.preprocessing import Standardize, fit
from neurona.errors import DataError

ROWS = torch.arange(0, 3000, 3)


def columns() -> torch.Tensor:
    """3,000 rows of several scales and offsets; the last two columns are constant."""
    features = torch.randn(3000, 6, generator=torch.Generator().manual_seed(0))
    spread, offset = torch.tensor([[1.0, 1e-4, 1e4, 3.0, 0.0, 0.0], [0.0, 1e-4, -2e4, 20.0, 0.1, 0.0]])
    features = features * spread + offset
    features[:, 0] = features[:, 0].exp()
    return features


def test_identity_until_fitted() -> None:
    features = columns()
    torch.testing.assert_close(Standardize(6)(features), features, rtol=0, atol=0)


def test_standard_equals_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    features = columns()
    reference = StandardScaler().fit(features[ROWS].double().numpy())
    expected = reference.transform(features.double().numpy())
    for block in (1, 6 * 7, 2**18):  # rows one by one, seven by seven with a rest, all at once
        monkeypatch.setattr(preprocessing, "_BLOCK_ELEMENTS", block)
        fitted = fit(features, ROWS, "standard")
        np.testing.assert_allclose(fitted.scale.double(), 1 / reference.scale_, rtol=1e-6)
        np.testing.assert_allclose(fitted.shift.double(), -reference.mean_ / reference.scale_, rtol=1e-6, atol=1e-7)
        assert fitted(features).dtype == torch.float32
        np.testing.assert_allclose(fitted(features), expected, atol=2e-6)


def test_mean_far_from_zero_does_not_cancel() -> None:
    features = 1e6 + torch.randint(0, 2, (4000, 1), generator=torch.Generator().manual_seed(0)).float()
    fitted = fit(features, torch.arange(4000), "standard")
    np.testing.assert_allclose(fitted.scale[0], 1 / features.double().std(correction=0), rtol=1e-6)


def test_constant_columns_are_only_centred() -> None:
    fitted = fit(columns(), ROWS, "standard")
    assert fitted.scale[4:].tolist() == [1, 1]
    assert fitted(columns())[:, 4:].abs().max() == 0


def test_unit_of_floats_equals_scikit_learn() -> None:
    features = columns()
    expected = MinMaxScaler().fit(features[ROWS].double().numpy()).transform(features.double().numpy())
    np.testing.assert_allclose(fit(features, ROWS, "unit")(features), expected, atol=2e-6)


def test_bytes() -> None:
    features = torch.arange(256, dtype=torch.uint8).repeat(2, 1).T.contiguous()
    features[:, 1] //= 2
    rows = torch.arange(256)
    unit = fit(features, rows, "unit")(features)
    torch.testing.assert_close(unit, features.float() / 255, rtol=1e-6, atol=0)
    assert unit.max() == 1
    np.testing.assert_allclose(
        fit(features, rows, "standard")(features), StandardScaler().fit_transform(features.double().numpy()), atol=1e-6
    )
    assert torch.equal(fit(features, rows, "none")(features), features.float())


@pytest.mark.parametrize("scaling", ["standard", "unit"])
def test_only_the_rows_given_count(scaling: preprocessing.Scaling) -> None:
    features = columns()
    first = fit(features, ROWS, scaling)
    features[1::3] = torch.inf
    second = fit(features, ROWS, scaling)
    assert torch.equal(first.shift, second.shift)
    assert torch.equal(first.scale, second.scale)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    features = columns()
    features[3, 2] = value
    with pytest.raises(DataError, match="in column 2 "):
        fit(features, ROWS, "standard")


def test_travels_with_the_state() -> None:
    fitted, loaded = fit(columns(), ROWS, "standard"), Standardize(6)
    loaded.load_state_dict(fitted.state_dict())
    assert torch.equal(loaded(columns()), fitted(columns()))
