from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

from neurona.data.lesson import Lesson
from neurona.errors import ConfigError


def test_sizes() -> None:
    data = Lesson(num_samples=1003)
    assert (data.spec.num_features, data.spec.num_classes, data.spec.image_shape) == (100, 10, None)
    assert data.features.shape == (1003, 100)
    assert data.targets.tolist() == [row % 10 for row in range(1003)]


def test_rows_are_clusters_in_a_ten_dimensional_subspace_plus_noise() -> None:
    table = Lesson(num_samples=40_000, noise=0.3, seed=5).read()
    clusters = table.features.reshape(1000, 40, 100)  # row i: cluster i mod 40
    centres = clusters.mean(0)
    singular = torch.linalg.svdvals(centres)
    assert singular[9] > 2
    assert singular[10] < 0.3 * (40**0.5 + 100**0.5) / 1000**0.5 * 1.1  # the largest of pure noise, and 10 % of margin
    torch.testing.assert_close((clusters - centres).std(), torch.tensor(0.3), rtol=0.01, atol=0)


def test_deterministic_by_its_own_seed() -> None:
    torch.manual_seed(1)
    first, state = Lesson(num_samples=500, seed=3).read(), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first.features, Lesson(num_samples=500, seed=3).read().features)
    assert not torch.equal(first.features, Lesson(num_samples=500, seed=4).read().features)
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_classes_need_more_than_a_linear_model() -> None:
    data = Lesson()
    data.setup()
    features, targets = data.preprocessing(data.features).numpy(), data.targets.numpy()
    train, test = data.train_rows.numpy(), data.test_rows.numpy()
    linear = LinearDiscriminantAnalysis().fit(features[train], targets[train])
    assert 0.4 < linear.score(features[test], targets[test]) < 0.7
    clusters = NearestCentroid().fit(data.features[train].numpy(), train % 40)  # told the clusters: near the optimum
    accuracy = (clusters.predict(data.features[test].numpy()) % 10 == targets[test]).mean()
    assert 0.97 < accuracy < 1


def test_without_noise_only_the_centres_are_left() -> None:
    features = Lesson(num_samples=400, noise=0.0).read().features
    assert torch.equal(features[:40], features[360:])


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"num_samples": 9}, "data.num_samples"),
        ({"noise": -0.1}, "data.noise"),
        ({"noise": float("nan")}, "data.noise"),
        ({"noise": float("inf")}, "data.noise"),
        ({"seed": -1}, "data.seed"),
        ({"batch_size": 0}, "data.batch_size"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Lesson(**settings)
    assert caught.value.key == key
