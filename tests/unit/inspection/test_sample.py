"""Curves agree with scikit-learn's, reliability with the calibration error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics
from torchmetrics.classification import MulticlassCalibrationError

from neurona.data.digits import Digits
from neurona.data.iris import Iris
from neurona.data.spec import DataSpec
from neurona.inspection import sample
from neurona.inspection.loggers import TensorBoard
from neurona.models.mlp import MLP


@pytest.fixture
def predictions() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(400, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities, generator.integers(0, 3, 400)


def test_the_roc_curve_is_scikit_learns(predictions: Any) -> None:
    probabilities, targets = predictions
    scores, positive = probabilities[:, 1].round(2), targets == 1  # with ties
    false, true, _ = metrics.roc_curve(positive, scores)
    ours = sample.roc_curve(scores, positive)
    np.testing.assert_allclose(ours, (false, true))
    assert np.trapezoid(ours[1], ours[0]) == pytest.approx(metrics.roc_auc_score(positive, scores))


def test_reliability_adds_up_to_the_calibration_error(predictions: Any) -> None:
    probabilities, targets = predictions
    edges, accuracies = sample.reliability(probabilities, targets)
    confidences = probabilities.max(1)
    error = 0.0
    for low, high, accuracy in zip(edges, edges[1:], accuracies, strict=False):
        inside = (low < confidences) & (confidences <= high)
        assert inside.any() != np.isnan(accuracy)
        if inside.any():
            error += inside.mean() * abs(accuracy - confidences[inside].mean())
    metric = MulticlassCalibrationError(3, n_bins=15)
    assert error == pytest.approx(metric(torch.tensor(probabilities), torch.tensor(targets)).item(), abs=1e-6)


class Module(torch.nn.Module):
    """What ``take`` needs of a classifier."""

    device = torch.device("cpu")

    def __init__(self, data: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spec, self.preprocessing = data.spec, data.preprocessing
        self.network = MLP(data.spec.num_features, data.spec.num_classes, hidden=[6], dropout=0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.network(self.preprocessing(features))


def test_a_sample_is_the_part_as_the_network_sees_it_and_disturbs_no_random_numbers() -> None:
    data = Iris()
    data.setup()
    module = Module(data).eval()
    state = torch.get_rng_state()
    part = sample.take(module, data, "test", 10_000)
    assert torch.equal(torch.get_rng_state(), state)
    assert part is not None
    features = data.features[data.test_rows]
    with torch.no_grad():
        expected = module(features).softmax(1)
        hidden = module.network[:-1](module.preprocessing(features))
    np.testing.assert_allclose(part.probabilities, expected.numpy(), rtol=1e-6)
    np.testing.assert_allclose(part.embeddings, hidden.numpy(), rtol=1e-6)
    assert part.title == "test, 30 rows"
    wrong = part.most_wrong()
    predicted = expected.argmax(1)
    assert len(wrong) == min(25, int((predicted != data.targets[data.test_rows]).sum()))
    confidences = expected.max(1).values[wrong]
    assert (confidences[:-1] >= confidences[1:]).all()
    lines = part.wrong_rows(wrong).splitlines()
    assert len(lines) == 2 + len(wrong)
    row = int(data.test_rows[wrong[0]])
    assert lines[2].startswith(f"|{row}|{data.spec.class_names[data.targets[row]]}|")
    assert lines[2].endswith("|".join(f"{value:g}" for value in data.features[row].tolist()) + "|")


def test_of_many_rows_some_are_looked_at_always_the_same() -> None:
    data = Digits()
    data.setup()
    first, second = (sample.take(Module(data).eval(), data, "val", 50) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.rows.tolist() == second.rows.tolist() == sorted(set(first.rows.tolist()))
    assert set(first.rows.tolist()) < set(data.val_rows.tolist())
    assert first.title == "val, 50 of 180 rows"
    assert first.images(np.array([3])).max() <= 1


def test_an_empty_part_and_data_elsewhere_have_no_sample() -> None:
    data = Iris(val_fraction=0)
    data.setup()
    module = Module(data).eval()
    assert sample.take(module, data, "val", 10) is None
    assert sample.take(module, object(), "val", 10) is None


def test_the_projector_is_given_embeddings_labels_and_images_of_any_shape(tmp_path: Path, capfd: Any) -> None:
    """Sixteen images that are higher than wide, four of the second class; a run that goes on tells it again."""
    features = torch.arange(16 * 6).float().reshape(16, 6)
    targets = np.arange(16) // 12
    shares = np.eye(2, dtype=np.float32)[targets]
    spec = DataSpec(6, 2, ("a\tb", "c"), image_shape=(3, 2))
    embeddings = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    part = sample.Sample("val", spec, np.arange(16), features, targets, shares, embeddings, 16)
    for _ in range(2):
        part.log_embeddings(TensorBoard(save_dir=str(tmp_path)))
    assert capfd.readouterr().out == ""
    assert (tmp_path / "projector_config.pbtxt").read_text().count("embeddings {") == 1
    folder = tmp_path / "projector" / "val"
    np.testing.assert_array_equal(np.loadtxt(folder / "tensors.tsv", dtype=np.float32), embeddings)
    lines = (folder / "metadata.tsv").read_text().splitlines()
    assert lines == ["target\tprediction", *["a b\ta b"] * 12, *["c\tc"] * 4]
    sprite = np.asarray(Image.open(folder / "sprite.png"))[..., 0]
    assert sprite.shape == (12, 12)
    second = 255 * (1 - features[1].reshape(3, 2) / 95)
    np.testing.assert_allclose(sprite[:3, 3:5], second, atol=1)
