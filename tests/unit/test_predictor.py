"""A loaded run predicts what its own stages wrote."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torch import nn

import neurona
from neurona.classifier import Classifier
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError, DataError
from neurona.predictor import Predictor


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    neurona.run(["trainer.max_epochs=3", "quiet=true", "logger=none", f"folder={folder}"])
    neurona.run(["stage=predict", f"run={folder}", "quiet=true"])
    return folder


def test_probabilities_and_classes_are_those_of_predictions_csv(run):
    model, data = neurona.load(run), load_digits()
    with (run / "predictions.csv").open() as file:
        written = list(csv.DictReader(file))
    rows = [int(line["row"]) for line in written]
    probabilities = model.predict_proba(data.data[rows])
    expected = np.array([[float(line[f"p({name})"]) for name in model.classes_] for line in written])
    assert probabilities.shape == (len(rows), 10)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert model.predict(data.data[rows]).tolist() == [int(line["class"]) for line in written]
    accuracy = np.mean([line["target"] == line["prediction"] for line in written])
    assert model.score(data.data[rows], data.target[rows]) == pytest.approx(accuracy)
    assert model.score(data.data[rows], data.target[rows].astype(str)) == pytest.approx(accuracy)
    assert model.score(data.data[rows], data.target[rows, None]) == pytest.approx(accuracy)


def test_images_and_rows_give_the_same(run):
    model, data = neurona.load(run), load_digits()
    np.testing.assert_array_equal(model.predict_proba(data.images[:5]), model.predict_proba(data.data[:5].tolist()))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_that_cannot_be_written_are_taken_without_a_word(run, dtype):
    images = load_digits().images[:5].astype(dtype)
    read_only = np.frombuffer(images.tobytes(), dtype).reshape(images.shape)
    np.testing.assert_array_equal(neurona.load(run).predict(read_only), neurona.load(run).predict(images))


@pytest.mark.parametrize("one", [np.zeros((8, 8)), np.zeros(64), [0.0] * 64])
def test_a_single_one_is_given_as_the_message_says(run, one):
    model = neurona.load(run)
    with pytest.raises(DataError, match=r"with \(rows, 64\) or \(rows, 8, 8\); a single one, x, is given as") as raised:
        model.predict(one)
    assert model.predict(eval(str(raised.value).rpartition(" given as ")[2], {"x": one})).shape == (1,)


def test_mistakes_are_named(run, tmp_path):
    with pytest.raises(DataError, match=r"shape \(2, 3\); the run was trained with \(rows, 64\)"):
        neurona.load(run).predict(np.zeros((2, 3)))
    with pytest.raises(DataError, match="features: must be numbers: could not convert string"):
        neurona.load(run).predict([["a"] * 64])
    holed = np.zeros((2, 64))
    holed[1, 5] = np.nan
    with pytest.raises(DataError, match="features: must be finite numbers: row 1 holds others"):
        neurona.load(run).predict(holed)
    for targets, problem in (
        ([3, 11], "hold '11'; the classes are '0', '1'"),
        ([[3, 4]], r"the shape \(1, 2\)"),
        ([3], r"\(1,\)"),
    ):
        with pytest.raises(DataError, match=problem):
            neurona.load(run).score(np.zeros((2, 64)), targets)
    with pytest.raises(ConfigError, match="is not a run folder"):
        neurona.load(tmp_path)
    with pytest.raises(ConfigError, match=f"is not a run folder.*; the latest run in it is {run}"):
        neurona.load(Path(run).parent)


def test_rows_have_the_shape_that_the_classifier_was_trained_on():
    classifier = Classifier(nn.Flatten(), nn.Linear(12, 2), DataSpec(12, 2, ("a", "b")))
    images, shapes = np.ones((5, 3, 4), dtype=np.float32), []
    classifier.preprocessing.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    first = Predictor(classifier, [1, 3, 4]).predict_proba(images)
    np.testing.assert_array_equal(Predictor(classifier).predict_proba(images), first)
    assert shapes == [(5, 1, 3, 4), (5, 12)]
