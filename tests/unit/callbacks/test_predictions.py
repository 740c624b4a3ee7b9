"""The CSV has a line for every row: its index, target, class and softmax probabilities, and appears when complete."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from neurona.callbacks.predictions import CsvPredictions
from neurona.errors import ConfigError
from neurona.models.linear import Linear

NAMES = ("setosa", 'the "blue", one', "ni\u00f1a")
FEATURES = torch.randn(150, 4, generator=torch.Generator().manual_seed(1))  # predicted in batches of 64, 64 and 22
TARGETS = torch.arange(150) % 3


@pytest.fixture
def predict(rows, make_trainer, make_classifier, tmp_path):
    """Predicts with a linear network; returns the path and the softmax by numpy, in float64."""

    def run(row_indices: torch.Tensor | None = None, **trainer_arguments) -> tuple[Path, np.ndarray]:
        network = Linear(4, 3)
        path = tmp_path / "predictions.csv"
        trainer = make_trainer(CsvPredictions(path, NAMES, row_indices), **trainer_arguments)
        classifier = make_classifier(network, 4, 3)
        trainer.predict(classifier, rows(FEATURES, TARGETS, 10), return_predictions=False)
        weight, bias = (parameter.detach().double().numpy() for parameter in network.parameters())
        powers = np.exp(FEATURES.double().numpy() @ weight.T + bias)
        return path, powers / powers.sum(1, keepdims=True)

    return run


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    return header, lines


def test_every_row_has_its_class_and_probabilities(predict):
    path, expected = predict()
    header, lines = read(path)
    assert header == ["row", "target", "prediction", "class", *(f"p({name})" for name in NAMES)]
    assert [int(line[0]) for line in lines] == list(range(150))
    assert [int(line[1]) for line in lines] == TARGETS.tolist()
    assert [int(line[2]) for line in lines] == expected.argmax(1).tolist()
    assert [line[3] for line in lines] == [NAMES[label] for label in expected.argmax(1)]
    np.testing.assert_allclose(np.array([line[4:] for line in lines], dtype=float), expected, rtol=1e-5)


def test_rows_are_named_by_their_index_in_the_data_set(predict):
    indices = torch.arange(150) * 3 + 1
    path, _ = predict(indices)
    assert [int(line[0]) for line in read(path)[1]] == indices.tolist()


def test_a_limit_leaves_the_rows_that_were_predicted(predict):
    path, expected = predict(torch.arange(150) + 7, limit_predict_batches=1)
    lines = read(path)[1]
    assert [int(line[0]) for line in lines] == list(range(7, 71))
    np.testing.assert_allclose(np.array([line[4:] for line in lines], dtype=float), expected[:64], rtol=1e-5)


def test_the_file_appears_under_its_name_when_it_is_complete(predict, tmp_path, monkeypatch):
    (tmp_path / "predictions.csv").write_text("of an earlier time")
    seen = []
    write = CsvPredictions.on_predict_batch_end

    def watched(self, *arguments) -> None:
        write(self, *arguments)
        seen.append((tmp_path / "predictions.csv").read_text())

    monkeypatch.setattr(CsvPredictions, "on_predict_batch_end", watched)
    path, _ = predict()
    assert seen == ["of an earlier time"] * 3
    assert len(read(path)[1]) == 150
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize("outputs", [torch.rand(2, 3), (torch.rand(3, 2), torch.zeros(3)), torch.rand(5, 3), None])
def test_what_a_predict_step_of_ones_own_must_return_is_named(tmp_path, outputs):
    callback = CsvPredictions(tmp_path / "p.csv", NAMES)
    with pytest.raises(ConfigError, match=r"classifier=Linear: its predict_step must return two tensors"):
        callback.on_predict_batch_end(None, Linear(4, 3), outputs)
