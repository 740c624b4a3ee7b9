"""What is drawn of a decision boundary is where the network has it, when it is to be, and changes nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from PIL import Image
from torch import nn

from neurona.callbacks.boundary import Boundary, draw, predict
from neurona.data.iris import Iris
from neurona.data.plane import Plane
from neurona.errors import ConfigError
from neurona.inspection.loggers import TensorBoard

BLUE, ORANGE = (np.array(colour) / 255 for colour in ((31, 119, 180), (255, 127, 14)))  # the first of "tab10"


def noisy_network() -> nn.Module:
    """One that a careless look would change: batch normalization and dropout."""
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


@pytest.fixture
def fit(make_trainer, make_classifier, tmp_path):
    """Epochs of 22 steps with these callbacks; the network and the Trainer."""

    def run(*callbacks, data=None, network=None, **arguments):
        data = data or Plane(num_samples=1000, shuffle_seed=1)
        seed_everything(3, verbose=False)
        network = network or noisy_network()
        usual = {"max_epochs": 10, "logger": TensorBoard(save_dir=tmp_path), "log_every_n_steps": 0}
        trainer = make_trainer(*callbacks, **usual | arguments)
        trainer.fit(make_classifier(network, data.spec.num_features, data.spec.num_classes), data)
        return network, trainer

    return run


@pytest.fixture
def _blank_pictures(monkeypatch):
    """For what does not depend on what is drawn."""
    monkeypatch.setattr("neurona.callbacks.boundary.draw", lambda *_: np.zeros((4, 4, 3), dtype=np.uint8))


def frames(folder: Path) -> list[int]:
    return sorted(int(file.stem) for file in (folder / "boundary").iterdir())


def images(folder: Path) -> list[int]:
    """Steps of the pictures in TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return [event.step for event in events.Images("boundary")]


def test_the_line_and_the_colours_are_where_the_probabilities_have_them():
    x, y = torch.linspace(-1, 3, 150), torch.linspace(0, 10, 150)
    second = torch.sigmoid(4 * (x[:, None] - 1.5) + 0 * y)  # likelier to the right of 1.5
    corner = torch.tensor([[2.9, 9.8]])  # a point of the first class
    picture = draw([x, y], torch.stack((1 - second, second), 2), corner, torch.tensor([0]), "title") / 255
    panel = picture[-picture.shape[0] * 93 // 100 + 2 : -2, 2:-2]  # without the title and the frame
    height, width = panel.shape[:2]
    dark = panel.max(2) < 0.3
    assert set(np.flatnonzero(dark.mean(0) > 0.9)) <= {
        round((1.5 + 1) / 4 * width) + shift for shift in (-3, -2, -1, 0, 1)
    }
    assert dark.any(0).sum() <= 4
    left, right = panel[height // 2, width // 20], panel[height // 2, -width // 20]
    np.testing.assert_allclose(left, 1 - 0.6 * (1 - BLUE), atol=0.02)
    np.testing.assert_allclose(right, 1 - 0.6 * (1 - ORANGE), atol=0.02)
    nearest = np.abs(panel - BLUE).sum(2)
    row, column = np.unravel_index(nearest.argmin(), nearest.shape)
    assert abs(row / height - 0.02) < 0.03  # y upwards
    assert abs(column / width - 3.9 / 4) < 0.03


def test_classes_with_one_between_them_that_is_never_likely_have_their_line():
    axis = torch.linspace(0, 1, 150)
    third = (axis[:, None] > 0.5).float() + 0 * axis
    probabilities = torch.stack((0.8 - 0.6 * third, 0 * third, 0.2 + 0.6 * third), 2)
    picture = draw([axis, axis], probabilities, torch.zeros(1, 2), torch.zeros(1).long(), "")
    dark = np.flatnonzero(picture[150, 2:-2].max(1) < 80)
    assert len(dark) > 0
    assert abs(dark.mean() - 0.5 * picture.shape[1]) < 4


def test_a_prediction_is_the_evaluating_networks_and_leaves_everything_as_it_was(make_classifier):
    classifier = make_classifier(noisy_network(), 2, 2).train()
    classifier.network[1].eval()  # frozen by its owner
    features = torch.randn(5000, 2)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    modes, state = [module.training for module in classifier.modules()], torch.get_rng_state()
    probabilities = predict(classifier, features)
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in classifier.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())
    w1, b1, w2, b2 = (before[f"network.{name}"].double() for name in ("0.weight", "0.bias", "4.weight", "4.bias"))
    hidden = (features.double() @ w1.T + b1) / (1 + 1e-5) ** 0.5  # mean 0 and variance 1 so far
    exponents = (hidden.clamp(min=0) @ w2.T + b2).exp()
    torch.testing.assert_close(probabilities.double(), exponents / exponents.sum(1, keepdim=True), atol=1e-6, rtol=0)


def test_frames_come_at_their_epochs_and_change_no_bit(fit, tmp_path):
    plain, _ = fit()
    watched, trainer = fit(Boundary(every_n_epochs=4), default_root_dir=tmp_path)
    assert trainer.lightning_module.is_fast
    for name, tensor in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], tensor), name
    assert frames(tmp_path) == [0, 4, 8, 10]
    assert images(tmp_path) == [0, 4 * 22 - 1, 8 * 22 - 1, 10 * 22 - 1]
    with Image.open(tmp_path / "boundary.gif") as animation:
        assert (animation.n_frames, animation.info["loop"]) == (4, 0)
    assert (tmp_path / "boundary.png").read_bytes() == (tmp_path / "boundary" / "0010.png").read_bytes()


@pytest.mark.usefixtures("_blank_pictures")
def test_more_frames_than_are_wanted_are_spread(fit, tmp_path):
    fit(Boundary(max_frames=3), max_epochs=9)
    assert frames(tmp_path) == [0, 4, 8, 9]


@pytest.mark.usefixtures("_blank_pictures")
def test_a_fit_of_no_set_length_thins_its_frames_out(fit, tmp_path):
    fit(Boundary(max_frames=3), max_epochs=-1, max_steps=7 * 22 - 1)
    assert images(tmp_path) == [0, *(22 * epoch - 1 for epoch in (1, 2, 3, 4, 6)), 7 * 22 - 2]
    assert frames(tmp_path) == [0, 4, 7]


def test_other_data_are_left_out_with_one_line(fit, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "neurona"):
        fit(Boundary(), data=Iris(), network=nn.Linear(4, 3), max_epochs=2)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("neurona")] == [
        "no decision boundary is drawn: it needs data with two features, in memory"
    ]
    assert not list(tmp_path.glob("boundary*"))


@pytest.mark.parametrize("key", ["every_n_epochs", "max_frames"])
def test_values_out_of_range_are_refused(key):
    with pytest.raises(ConfigError, match=rf"trainer\.callbacks\.boundary\.{key}"):
        Boundary(**{key: 0})
