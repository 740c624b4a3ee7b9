from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_circles, make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from neurona.data.plane import Plane
from neurona.errors import ConfigError

SHAPES = ("moons", "circles", "spirals")


def in_turn(points: np.ndarray) -> np.ndarray:
    """scikit-learn's rows, one class after the other, as they stand here: one of each in turn."""
    return points.reshape(2, -1, 2).swapaxes(0, 1).reshape(-1, 2)


def test_moons_and_circles_are_scikit_learns() -> None:
    for shape, points in (
        ("moons", make_moons(200, shuffle=False)[0]),
        ("circles", 2 * make_circles(200, shuffle=False, factor=0.5)[0]),
    ):
        table = Plane(shape=shape, num_samples=200, noise=0).read()
        np.testing.assert_allclose(table.features.numpy(), in_turn(points), atol=1e-6)
        assert table.targets.tolist() == [0, 1] * 100


def test_spirals_are_archimedean_and_each_is_the_other_turned_by_half_a_turn() -> None:
    points = Plane(shape="spirals", num_samples=2000, noise=0).read().features.double().numpy()
    first, second = points[::2], points[1::2]
    np.testing.assert_array_equal(first, -second)
    angle = np.unwrap(np.arctan2(first[:, 1], first[:, 0]))
    np.testing.assert_allclose(angle[[0, -1]], [np.pi / 2, 3 * np.pi], atol=1e-6)
    np.testing.assert_allclose(np.hypot(*first.T), angle / np.pi, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_line_separates_the_classes_but_their_neighbours_tell(shape: str) -> None:
    data = Plane(shape=shape)
    data.setup()
    features, targets = data.features.numpy(), data.targets.numpy()
    train, test = data.train_rows.numpy(), data.test_rows.numpy()
    assert LogisticRegression().fit(features[train], targets[train]).score(features[test], targets[test]) < 0.9
    assert KNeighborsClassifier(9).fit(features[train], targets[train]).score(features[test], targets[test]) > 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_is_normal_and_drawn_by_the_seed_of_its_own(shape: str) -> None:
    settings: dict[str, Any] = {"shape": shape, "num_samples": 20_001}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    noisy = Plane(**settings, noise=0.3, seed=3).read()
    assert torch.equal(state, torch.get_rng_state())
    assert noisy.features.shape == (20_001, 2)
    noise = noisy.features - Plane(**settings, noise=0).read().features
    assert noise.mean(0).abs().max() < 4 * 0.3 / 20_001**0.5  # four standard errors
    torch.testing.assert_close(noise.std(0), torch.tensor([0.3, 0.3]), rtol=0.03, atol=0)
    torch.manual_seed(2)
    assert torch.equal(noisy.features, Plane(**settings, noise=0.3, seed=3).read().features)
    assert not torch.equal(noisy.features, Plane(**settings, noise=0.3, seed=4).read().features)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"num_samples": 1}, "data.num_samples"),
        ({"noise": -0.1}, "data.noise"),
        ({"noise": float("nan")}, "data.noise"),
        ({"seed": -1}, "data.seed"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plane(**settings)
    assert caught.value.key == key
