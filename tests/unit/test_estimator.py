"""The estimator is one by scikit-learn's own checks, and its networks are those of ``neurona.fit``."""

from __future__ import annotations

import io
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

import neurona
from neurona.errors import ConfigError
from neurona.estimator import NeuronaClassifier

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]

EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "a row that comes twice comes in two mini-batches, one of weight"
    " 2 in one, and the encoding counts rows, not weights"
}
SHORT = (
    "check_classifiers_one_label",
    "check_classifiers_one_label_sample_weights",
    "check_complex_data",
    "check_dict_unchanged",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_sparse_matrix",
    "check_estimators_empty_data_messages",
    "check_estimators_partial_fit_n_features",
    "check_estimators_unfitted",
    "check_fit2d_1sample",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
    "check_no_attributes_set_in_init",
    "check_sample_weights_shape",
    "check_supervised_y_2d",
    "check_supervised_y_no_nan",
)
"""Of the checks, some that fit no more than a few times, and each another matter."""


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def short(**settings: Any) -> NeuronaClassifier:
    return NeuronaClassifier(**{"hidden": (16,), "max_epochs": 3, "lr": 0.01, **settings})


@pytest.mark.long
def test_it_passes_all_of_scikit_learns_checks(tmp_path: Path) -> None:
    results = check_estimator(NeuronaClassifier(), expected_failed_checks=EXPECTED, on_skip=None)
    assert len(results) > 45
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == EXPECTED.keys()
    assert not [result for result in results if result["status"] == "failed"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SHORT)
def test_it_passes_scikit_learns_check(name: str) -> None:
    estimator = NeuronaClassifier(max_epochs=5)
    of_name = [check for _, check in estimator_checks_generator(estimator) if check.func.__name__ == name]
    assert of_name
    for check in of_name:
        check(clone(estimator))


def test_the_network_is_that_of_a_run_on_the_same_rows(tmp_path: Path) -> None:
    estimator = short().fit(X, NAMES)
    assert list(tmp_path.iterdir()) == []  # the run's folder was temporary
    overrides = ["model=mlp", "model.hidden=[16]", "optimizer.lr=0.01", "trainer.max_epochs=3", "data.test_fraction=0"]
    model = neurona.fit(X, NAMES, [*overrides, "quiet=true"])
    np.testing.assert_allclose(estimator.predict_proba(X), model.predict_proba(X), atol=1e-6)
    assert estimator.predict_proba(X).dtype == np.float64
    assert (estimator.classes_.tolist(), estimator.n_iter_) == (["setosa", "versicolor", "virginica"], 3)
    assert estimator.metrics_["val/loss"] == model.metrics["val/loss"]
    assert "test/loss" not in model.metrics
    assert estimator.folder_ is None


def test_a_folder_keeps_the_run() -> None:
    estimator = short(folder="kept").fit(X, NAMES)
    assert estimator.folder_ == "kept"
    assert neurona.load("kept").predict(X).tolist() == estimator.predict(X).tolist()
    assert list(Path("kept").glob("events.*"))


def test_it_learns() -> None:
    rows, targets = load_breast_cancer(return_X_y=True)
    assert cross_val_score(NeuronaClassifier(max_epochs=15), rows, targets, cv=2).mean() > 0.95


@pytest.mark.parametrize("labels", [NAMES.astype(object), Y == 0, (Y - 1.0).tolist()])
def test_labels_come_back_as_they_were(labels: Any) -> None:
    estimator = short().fit(X, labels)
    np.testing.assert_array_equal(estimator.classes_, np.unique(labels))
    assert set(estimator.predict(X)) <= set(np.asarray(labels).tolist())


def test_settings_and_overrides() -> None:
    def layers(**settings: Any) -> tuple[list[int], str]:
        classifier = short(**settings).fit(X, Y)._rebuilt()
        linear = [module for module in classifier.network.modules() if isinstance(module, torch.nn.Linear)]
        return [module.out_features for module in linear], str(classifier.network)

    assert layers(hidden=np.array([5, 4]))[0] == [5, 4, 3]
    assert "Tanh" in layers(activation="tanh")[1]
    assert layers(overrides=["model.hidden=[7]", "model.dropout=0.5"])[0] == [7, 3]
    assert layers(overrides=["model=linear"])[0] == [3]
    assert (
        "Dropout"
        in layers(hidden=None, activation=None, lr=None, max_epochs=None, overrides=["trainer.max_epochs=1"])[1]
    )
    assert short(max_epochs=None, overrides=["trainer.max_epochs=2"]).fit(X, Y).n_iter_ == 2
    with pytest.raises(ConfigError, match=r"did you mean model\.hidden"):
        short(overrides=["model.hiden=[3]"]).fit(X, Y)
    with pytest.raises(ConfigError, match=r"model\.activation=rely"):
        short(activation="rely").fit(X, Y)


def test_one_width_is_a_number_and_overrides_are_a_list() -> None:
    for hidden in (16, np.int64(16)):
        np.testing.assert_array_equal(short(hidden=hidden).fit(X, Y).predict(X), short().fit(X, Y).predict(X))
    for overrides in ("seed=1", {"seed": 1}):
        with pytest.raises(ConfigError, match=r"must be a list: NeuronaClassifier\(overrides=\['seed=1'\]\)"):
            short(overrides=overrides).fit(X, Y)


def test_the_seed() -> None:
    first, second, other = (short(random_state=seed).fit(X, Y).predict_proba(X) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3
    drawn = [short(random_state=np.random.RandomState(3)).fit(X, Y).predict_proba(X) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)


# What scikit-learn does with estimators.


def test_a_pickle_gives_the_same_and_holds_no_objects_of_torchs() -> None:
    estimator = short().fit(X, NAMES)
    stored = pickle.dumps(estimator)
    np.testing.assert_array_equal(pickle.loads(stored).predict_proba(X), estimator.predict_proba(X))

    modules = set[str]()

    class Noted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            modules.add(module.partition(".")[0])
            return super().find_class(module, name)

    Noted(io.BytesIO(stored)).load()
    assert modules <= {"neurona", "numpy", "builtins", "copyreg", "_codecs"}
    assert not hasattr(clone(estimator), "network_")


def test_pipelines_and_frames() -> None:
    columns = ["a", "b", "c", "d"]
    frame = pl.DataFrame(X, schema=columns)
    pipeline = make_pipeline(StandardScaler(), SelectKBest(k=2), short()).set_output(transform="polars")
    pipeline.fit(frame, NAMES)
    assert pipeline[-1].feature_names_in_.tolist() == ["c", "d"]
    assert pipeline.score(frame, NAMES) > 0.5
    plain = make_pipeline(StandardScaler(), SelectKBest(k=2), short()).fit(X, NAMES)
    np.testing.assert_allclose(pipeline.predict_proba(frame), plain.predict_proba(X), atol=1e-6)


def test_a_frame_whose_column_is_called_y() -> None:
    frame = pl.DataFrame(X, schema=["y", "y_", "c", "d"])
    assert short(max_epochs=20).fit(frame, NAMES).score(frame, NAMES) > 0.8


def test_calibration() -> None:
    calibrated = CalibratedClassifierCV(short(), cv=2).fit(X, NAMES)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(1), 1)
    assert calibrated.score(X, NAMES) > 0.5


@pytest.mark.long
def test_a_grid_in_two_processes() -> None:
    search = GridSearchCV(short(max_epochs=10), {"hidden": [(2,), (32,)], "lr": [1e-2]}, cv=2, n_jobs=2)
    search.fit(X, NAMES)
    alone = GridSearchCV(short(max_epochs=10), search.param_grid, cv=2).fit(X, NAMES)
    assert search.best_params_ == alone.best_params_ == {"hidden": (32,), "lr": 1e-2}
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


def test_threads_fit_side_by_side() -> None:
    results: dict[int, Any] = {}

    def work(seed: int) -> None:
        results[seed] = short(random_state=seed).fit(X + seed, Y).predict_proba(X + seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(2):
        np.testing.assert_array_equal(results[seed], short(random_state=seed).fit(X + seed, Y).predict_proba(X + seed))


# Going on.


def test_partial_fits_go_on_from_the_weights_there_are() -> None:
    estimator = short(lr=0.03).partial_fit(X[::2], NAMES[::2], classes=np.unique(NAMES))
    before = estimator._rebuilt().state_dict()
    losses = [estimator.metrics_["train/loss"]]
    for part in [1, 0] * 4:
        estimator.partial_fit(X[part::2], NAMES[part::2])
        losses.append(estimator.metrics_["train/loss"])
    assert losses[-1] < 0.5 * losses[0]
    assert estimator.score(X, NAMES) > 0.9
    after = estimator._rebuilt().state_dict()
    for name, tensor in before.items():
        is_left = name.startswith("preprocessing.") or name == "calibration"  # which only a validation sets
        assert torch.equal(tensor, after[name]) == is_left, name


def test_partial_fits_start_where_a_fit_has_ended() -> None:
    fitted = short(lr=0.0 + 1e-12).fit(X, Y)
    went_on = pickle.loads(pickle.dumps(fitted)).partial_fit(X[:40] + 1, Y[:40])  # of one class alone
    np.testing.assert_allclose(went_on.predict_proba(X), fitted.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(went_on.classes_, [0, 1, 2])


def test_a_partial_fit_takes_all_mini_batches_of_many_rows() -> None:
    """An epoch of a table has 500 mini-batches at most (128,000 rows at 256 a mini-batch); one of these has all."""
    rows, labels = np.tile(X, (5, 1)), np.tile(Y, 5)
    estimator = short(overrides=["data.batch_size=1", "trainer.max_epochs=1"])
    assert estimator.fit(rows, labels).metrics_["steps"] == 500
    assert estimator.partial_fit(rows, labels).metrics_["steps"] == len(rows) == 750


@pytest.mark.parametrize(
    ("first", "arguments", "message"),
    [
        (False, {}, "classes must be passed on the first call to partial_fit"),
        (False, {"classes": [0, 1]}, "y has 2, which is none of the classes"),
        (True, {"classes": [0, 1]}, r"classes=\[0, 1\] is not the same as on the first call"),
        (True, {"y": Y + 7}, "y has 7, which is none of the classes"),
        (True, {"X": X[:, 1:]}, "X has 3 features, but NeuronaClassifier is expecting 4"),
    ],
)
def test_mistakes_of_partial_fits(first: bool, arguments: dict[str, Any], message: str) -> None:
    estimator = short()
    if first:
        estimator.fit(X, Y)
    with pytest.raises(ValueError, match=message):
        estimator.partial_fit(**{"X": X, "y": Y, **arguments})


# Weights.


def test_weights_of_rows() -> None:
    weights = np.random.default_rng(0).integers(0, 3, len(Y)).astype(float)
    weighted, plain = short().fit(X, Y, sample_weight=weights), short().fit(X, Y)
    assert np.abs(weighted.predict_proba(X) - plain.predict_proba(X)).max() > 1e-3
    scaled, without = short().fit(X, Y, 4 * weights), short().fit(X[weights > 0], Y[weights > 0], weights[weights > 0])
    np.testing.assert_array_equal(weighted.predict_proba(X), scaled.predict_proba(X))
    np.testing.assert_array_equal(weighted.predict_proba(X), without.predict_proba(X))
    heavy = short(max_epochs=20).fit(X, Y, sample_weight=np.where(Y == 1, 100.0, 1.0))
    light = short(max_epochs=20).fit(X, Y, sample_weight=np.where(Y == 1, 0.01, 1.0))
    assert (heavy.predict(X) == 1).sum() > 50 > (light.predict(X) == 1).sum()
    expected = np.average(heavy.predict(X) == Y, weights=weights)
    assert heavy.score(X, Y, sample_weight=weights) == pytest.approx(expected)


def test_weights_of_the_rows_of_a_frame() -> None:
    weights = np.arange(150) % 3
    frame = pl.DataFrame(X, schema=["x0", "x1", "x2", "x3"])
    of_frame, of_array = short().fit(frame, Y, weights), short().fit(X, Y, weights)
    np.testing.assert_array_equal(of_frame.predict_proba(frame), of_array.predict_proba(X))


# Bad input, in scikit-learn's words.


def test_missing_and_infinite_numbers_are_imputed() -> None:
    rows = X.copy()
    rows[::5, 1], rows[::7, 2] = np.nan, np.inf
    estimator = short(max_epochs=20).fit(rows, Y)
    one = np.where(np.isinf(rows), np.nan, rows)
    with pytest.warns(
        UserWarning, match="'x2': 22 of 150 values are not numbers, such as 'inf'; they count as missing"
    ):
        infinite = estimator.predict_proba(rows)
    np.testing.assert_array_equal(infinite, estimator.predict_proba(one))
    assert estimator.score(one, Y) > 0.8


@pytest.mark.parametrize(
    ("X", "y", "kind", "message"),
    [
        (X, Y[1:], ValueError, "inconsistent numbers of samples"),
        (X[:0], Y[:0], ValueError, "0 sample"),
        (X[0], Y, ValueError, "Expected 2D array, got 1D array"),
        (scipy.sparse.csr_array(X), Y, TypeError, "Sparse data was passed"),
        (np.array([["a", "b"]] * 150), Y, ValueError, "could not convert string to float|dtype='numeric'"),
        (X, X[:, 0], ValueError, "Unknown label type: continuous"),
        (X, np.where(Y > 0, Y, np.nan), ValueError, "Input y contains NaN"),
        (X, np.ones(150), ValueError, "at least 2 classes in the data, but the data contains only one class: 1.0"),
        (X, None, ValueError, "requires y to be passed"),
        (pl.DataFrame(X), Y[1:], ValueError, "inconsistent numbers of samples"),
        (pl.DataFrame(X), [None, *Y[1:]], ValueError, "y contains NaN|Unknown label type"),
    ],
)
def test_what_cannot_be_fitted(X: Any, y: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        short().fit(X, y)


def test_what_cannot_be_predicted() -> None:
    with pytest.raises(NotFittedError):
        short().predict_proba(X)
    frame = pl.DataFrame(X, schema=["a", "b", "c", "d"])
    estimator = short().fit(frame, Y)
    for other in (frame.rename({"a": "e"}), frame[["b", "a", "c", "d"]], frame.with_columns(e=1)):
        with pytest.raises(ValueError, match="feature names should match"):
            estimator.predict(other)
    with pytest.raises(ValueError, match="X has 5 features, but NeuronaClassifier is expecting 4 features"):
        short().fit(X, Y).predict(np.c_[X, Y])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        np.testing.assert_array_equal(estimator.predict(X), estimator.predict(frame))


def test_numbers_that_look_like_an_identifier_are_numbers() -> None:
    rows = np.arange(150)[:, None]
    assert short(max_epochs=30).fit(rows, Y).score(rows, Y) > 0.8


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "neurona.estimator")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"pip install 'scikit-learn>=1.9'"):
        neurona.NeuronaClassifier  # noqa: B018
