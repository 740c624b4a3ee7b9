"""Runs on arrays in memory, ``neurona.fit``: the same as on a file, and going on with them."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import neurona
from neurona.classifier import Classifier
from neurona.cli import python
from neurona.config.hints import CONFIG_DIR
from neurona.data import embedded
from neurona.errors import ConfigError, UserError

QUIET = ["quiet=true", "trainer.max_epochs=3"]
IRIS, CLASSES = (part.numpy() for part in embedded.read("iris"))
NAMES = np.array(["setosa", "versicolor", "virginica"])[CLASSES]


def test_a_run_is_the_very_one_from_a_file(tmp_path: Path, read_run: Any) -> None:
    lines = [f"{','.join(map(repr, row))},{name}" for row, name in zip(IRIS.tolist(), NAMES, strict=True)]
    (tmp_path / "iris.csv").write_text("\n".join(["x0,x1,x2,x3,y", *lines]))
    of_file = neurona.run(["data=table", "data.path=iris.csv", "data.target=y", *QUIET])
    model = neurona.fit(IRIS.astype(np.float64), NAMES, QUIET)
    run, other = read_run(model.folder), read_run(of_file["folder"])
    assert run.folder.parts[:2] == ("logs", "arrays")
    assert run.weights() == other.weights()
    assert run.checkpoint()["neurona"]["fingerprint"] == other.checkpoint()["neurona"]["fingerprint"]
    assert model.metrics.keys() == of_file.keys()
    assert model.metrics["test/accuracy"] == run.metrics["test/accuracy"] == of_file["test/accuracy"]
    assert {file.name for file in run.folder.glob("*.json")} == {file.name for file in other.folder.glob("*.json")}
    loaded = neurona.load(run.folder)
    np.testing.assert_array_equal(
        model.predict_proba(IRIS), loaded.predict_proba({f"x{i}": IRIS[:, i] for i in range(4)})
    )
    assert loaded.metrics == run.metrics
    assert set(model.predict(IRIS)) <= set(NAMES)


def test_a_run_goes_on_exactly_with_the_same_arrays_and_with_no_others(read_run: Any) -> None:
    run = f"run={neurona.fit(IRIS, NAMES, QUIET).folder}"
    more = ["quiet=true", "trainer.max_epochs=5"]
    for X in (IRIS * 2, IRIS[:-1]):
        for overrides in ([run, *more], [run]):  # finished too
            with pytest.raises(ConfigError, match=r"data.fingerprint=\w+: the run was trained on data with"):
                neurona.fit(X, NAMES[: len(X)], overrides)
    once, whole = neurona.fit(IRIS, NAMES, [run, *more]), neurona.fit(IRIS, NAMES, more)
    assert read_run(once.folder).weights() == read_run(whole.folder).weights()
    assert once.metrics["epochs"] == 5
    assert neurona.fit(IRIS, NAMES, [run]).metrics["epochs"] == 5  # finished, and stays so


def test_the_command_line_is_told_what_has_the_data(train: Any) -> None:
    folder = neurona.fit(IRIS, NAMES, QUIET).folder
    for stage in ("fit", "test"):
        done = train(f"run={folder}", *([] if stage == "fit" else ["stage=test"]))
        words = "" if stage == "fit" else ', "stage=test"'
        assert (done.status, done.out) == (2, "")
        assert f'is in memory, in Python: neurona.fit(X, y, ["run={folder}"{words}])' in done.err
    assert "neurona.fit(X, y)" in train("data=arrays").err
    tested = neurona.fit(IRIS, NAMES, [f"run={folder}", "stage=test", "quiet=true"])  # as it says
    assert tested.metrics["test/accuracy"] == neurona.load(folder).metrics["test/accuracy"]


def test_a_trained_network_takes_files_from_the_command_line(train: Any, tmp_path: Path) -> None:
    folder = neurona.fit(IRIS, NAMES, QUIET).folder
    rows = "\n".join(f"{','.join(map(str, row))},{name}" for row, name in zip(IRIS, NAMES, strict=True))
    (tmp_path / "new.csv").write_text(f"x0,x1,x2,x3,y\n{rows}\n")
    done = train("stage=test", f"run={folder}", "data.path=new.csv")
    assert (done.status, done.err) == (0, "")


def test_images(read_run: Any) -> None:
    features, targets = embedded.read("digits")
    pixels = features.numpy().reshape(-1, 8, 8)
    model = neurona.fit(pixels, targets, QUIET)
    assert (model.spec.image_shape, model.folder.parts[:2]) == ((8, 8), ("logs", "images"))
    assert model.score(pixels, targets) > 0.5
    went_on = neurona.fit(pixels, targets, [f"run={model.folder}", "trainer.max_epochs=4", "quiet=true"])
    whole = neurona.fit(pixels, targets, ["trainer.max_epochs=4", "quiet=true"])
    assert read_run(went_on.folder).weights() == read_run(whole.folder).weights()


def test_ones_own_rows_validate() -> None:
    model = neurona.fit(IRIS, NAMES, QUIET, X_val=IRIS[:30], y_val=NAMES[:30])
    assert model.metrics["val/accuracy"] == pytest.approx(np.mean(model.predict(IRIS[:30]) == NAMES[:30]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=digits"], "data=digits: does not go with X and y"),
        (["data.path=x.csv"], "data.path=x.csv: does not go with X and y"),
        (["stage=lr_find"], "stage=lr_find: leaves no network"),
        (["stage=test"], "works on an earlier run"),
        (["model.hiden=[3]"], "did you mean model.hidden"),
        ("quiet=true", r"must be a list: neurona.fit\(X, y, \['quiet=true'\]\)"),
    ],
)
def test_mistakes(overrides: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        neurona.fit(IRIS, NAMES, overrides)
    assert list(tmp_path.iterdir()) == []


def test_a_keyword_of_keras_is_answered_with_the_override(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^epochs: .* neurona\.fit\(X, y, \['trainer\.max_epochs=3'\]\)$"):
        neurona.fit(IRIS, NAMES, epochs=3)
    with pytest.raises(UserError, match=r"neurona\.fit\(X, y, \['model\.hidden=\[64\]'\]\)$"):
        neurona.fit(IRIS, NAMES, hidden=[64])
    with pytest.raises(UserError, match=r"^validation_data: fit has no such argument; .* as X_val= and y_val=$"):
        neurona.fit(IRIS, NAMES, validation_data=(IRIS, NAMES))
    assert not list(tmp_path.iterdir())


def test_what_a_caller_drops_between_two_runs_is_freed() -> None:
    class Box:
        me: Box

    alive, is_frozen = [], gc.get_freeze_count() > 0
    for _ in range(3):
        box = Box()
        box.me = box
        alive.append(weakref.ref(box))
        del box
        neurona.run(["data=iris", "trainer.max_epochs=1", "quiet=true", "logger=none"])
    assert [reference() for reference in alive] == [None] * 3
    assert (gc.get_freeze_count() > 0) == is_frozen


def test_an_experiment_with_a_file_does_not_go_with_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = shutil.copytree(CONFIG_DIR, tmp_path / "configs")
    (configs / "experiment" / "mine.yaml").write_text("# @package _global_\ndata:\n  path: f.csv\n")
    monkeypatch.setattr(python, "CONFIG_DIR", configs)
    with pytest.raises(ConfigError, match=r"data\.path=f\.csv: does not go with X and y"):
        neurona.fit(IRIS, NAMES, ["experiment=mine", *QUIET])


def test_labels_without_rows_to_validate() -> None:
    with pytest.raises(ConfigError, match="X_val"):
        neurona.fit(IRIS, NAMES, y_val=NAMES)


def test_a_run_of_other_data_takes_no_arrays(fit: Any) -> None:
    with pytest.raises(ConfigError, match="data=arrays: belongs to the run"):
        neurona.fit(IRIS, NAMES, [f"run={fit().folder}"])


WEIGHTS = np.random.default_rng(0).uniform(0, 3, len(IRIS))


def test_weights_count_in_the_training_loss_alone_and_the_same_either_way(read_run: Any, tmp_path: Path) -> None:
    lines = [
        f"{','.join(map(repr, row))},{name},{w!r}"
        for row, name, w in zip(IRIS.tolist(), NAMES, WEIGHTS.tolist(), strict=True)
    ]
    (tmp_path / "iris.csv").write_text("\n".join(["x0,x1,x2,x3,y,w", *lines]))
    of_file = neurona.run(["data=table", "data.path=iris.csv", "data.target=y", "data.weight=w", *QUIET])
    model, plain = neurona.fit(IRIS, NAMES, QUIET, sample_weight=WEIGHTS), neurona.fit(IRIS, NAMES, QUIET)
    weights = read_run(model.folder).weights()
    assert weights == read_run(of_file["folder"]).weights() != read_run(plain.folder).weights()
    every = ["+trainer.callbacks.own._target_=lightning.pytorch.callbacks.LearningRateMonitor", *QUIET]
    assert read_run(neurona.fit(IRIS, NAMES, every, sample_weight=WEIGHTS).folder).weights() == weights
    right = model.predict(IRIS) == NAMES
    assert model.score(IRIS, NAMES) == pytest.approx(right.mean())
    with pytest.raises(ConfigError, match=r"data\.fingerprint"):
        neurona.fit(IRIS, NAMES, [f"run={model.folder}"], sample_weight=WEIGHTS + 1)
    tested = neurona.fit(IRIS, NAMES, [f"run={model.folder}", "stage=test", "quiet=true"], sample_weight=WEIGHTS)
    assert tested.metrics["test/loss"] == model.metrics["test/loss"]


@pytest.mark.parametrize(
    ("arrays", "overrides", "message"),
    [
        ({"sample_weight": WEIGHTS[1:]}, [], "sample_weight: has 149 for the 150 rows of X"),
        ({"sample_weight": -WEIGHTS}, [], "needs a number of 0 or more"),
        ({"sample_weight": WEIGHTS}, ["data.weight=x0"], "data.weight=x0: does not go with sample_weight"),
        (
            {"sample_weight": WEIGHTS, "X": IRIS.reshape(-1, 2, 2)},
            [],
            "sample_weight: works with tables, not with images",
        ),
        (
            {"sample_weight": WEIGHTS},
            [f"allow=[{__name__}]", f"classifier._target_={__name__}.Own"],
            "has a loss of its own",
        ),
    ],
)
def test_mistakes_with_weights(arrays: dict[str, Any], overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        neurona.fit(**{"X": IRIS, "y": NAMES, "overrides": [*QUIET, *overrides], **arrays})


class Own(Classifier):
    def loss(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return super().loss(features, targets)


def test_a_run_without_a_test_part(fit: Any, train: Any) -> None:
    run = fit("data.test_fraction=0")
    assert not [name for name in run.metrics if name.startswith("test/")]
    assert run.metrics["status"] == "finished"
    assert not (run.folder / "confusion_matrix_test.csv").exists()
    for stage in ("test", "predict"):
        done = train(f"run={run.folder}", f"stage={stage}")
        assert (done.status, done.out) == (2, "")
        assert "this run has no test part (data.test_fraction=0)" in done.err
    done = train(f"run={run.folder}", "stage=export")
    assert (done.status, done.err) == (0, "")
    assert run.read("metrics_export.json")["rows"] > 0
