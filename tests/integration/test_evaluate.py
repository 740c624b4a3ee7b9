"""Validate, test and predict with an earlier run, and the runs and data they refuse."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

import neurona
from neurona.errors import ConfigError


def part(figures: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key.startswith(f"{name}/")}


def test_stage_test_repeats_the_runs_own_figures(train: Any, default_run: Any) -> None:
    before = default_run.contents()
    done = train("stage=test", f"run={default_run.folder}")
    assert (done.status, done.err) == (0, "")
    again = default_run.read("metrics_test.json")
    assert part(again, "test") == part(default_run.metrics, "test") != {}
    assert (again["status"], again["stage"]) == ("finished", "test")
    after = default_run.contents()
    assert set(after) - set(before) == {"metrics_test.json"}
    assert {name: after[name] for name in before} == before
    assert f"{again['test/accuracy']:.4f}" in done.out


def test_stage_validate_repeats_the_best_epochs_figures(default_run: Any) -> None:
    figures = neurona.run([f"run={default_run.folder}", "stage=validate", "quiet=true"])
    assert figures == {**default_run.read("metrics_validate.json"), "folder": str(default_run.folder)}
    assert part(figures, "val") == part(default_run.metrics, "val") != {}


def test_an_existing_run_is_found_from_another_folder(
    default_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    figures = neurona.run([f"run={tmp_path / default_run.folder}", "stage=test", "quiet=true"])
    monkeypatch.chdir(tmp_path)
    assert part(figures, "test") == part(default_run.metrics, "test")
    assert list(elsewhere.iterdir()) == []


def test_predictions_give_scikit_learn_the_same_figures(train: Any, default_run: Any) -> None:
    assert train("stage=predict", f"run={default_run.folder}").status == 0
    with (default_run.folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["row", "target", "prediction", "class", *(f"p({digit})" for digit in range(10))]
    rows, targets, predictions = np.array([line[:3] for line in lines], dtype=int).T
    probabilities = np.array([line[4:] for line in lines], dtype=float)
    assert len(set(rows)) == len(lines) == 359  # a fifth of 1,797
    assert [line[3] for line in lines] == [str(prediction) for prediction in predictions]
    np.testing.assert_array_equal(probabilities.argmax(1), predictions)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    figures = default_run.metrics
    assert figures["test/accuracy"] == pytest.approx(np.mean(targets == predictions), abs=1e-7)
    assert figures["test/balanced_accuracy"] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(targets, predictions), abs=1e-6
    )
    assert figures["test/macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(targets, predictions, average="macro"), abs=1e-6
    )
    normalised = probabilities / probabilities.sum(1, keepdims=True)
    assert figures["test/loss"] == pytest.approx(sklearn.metrics.log_loss(targets, normalised), abs=1e-5)
    assert figures["test/auroc"] == pytest.approx(
        sklearn.metrics.roc_auc_score(targets, normalised, multi_class="ovr"), abs=1e-5
    )
    recalls = sklearn.metrics.recall_score(targets, predictions, average=None)
    assert [figures[f"test/accuracy_of/{digit}"] for digit in range(10)] == pytest.approx(recalls, abs=1e-6)


def test_predicted_rows_are_those_of_the_data_set(iris_run: Any) -> None:
    neurona.run([f"run={iris_run.folder}", "stage=predict", "quiet=true"])
    with (iris_run.folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    from sklearn.datasets import load_iris

    iris = load_iris()
    assert [iris.target[int(line["row"])] for line in lines] == [int(line["target"]) for line in lines]
    assert [line["class"] for line in lines] == [str(iris.target_names[int(line["prediction"])]) for line in lines]


def test_data_of_other_sizes_is_refused(train: Any, iris_run: Any) -> None:
    before = iris_run.contents()
    for stage in ("test", "validate", "predict", "export"):
        done = train(f"stage={stage}", f"run={iris_run.folder}", "data=digits")
        assert done.status == 2
        assert "num_features is 64, but the run was trained with 4" in done.err
        assert len(done.err.splitlines()) == 1
    assert iris_run.contents() == before


def test_a_stage_needs_a_run(train: Any, tmp_path: Path) -> None:
    done = train("stage=test")
    assert done.status == 2
    assert done.err.startswith("stage=test: works on an earlier run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_a_run_is_refused(train: Any, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for stage in ("fit", "test"):
        done = train(f"stage={stage}", "run=notes")
        assert done.status == 2
        assert done.err.startswith("run=notes: is not a run folder")
    assert list((tmp_path / "notes").iterdir()) == []


def test_a_run_without_a_checkpoint_is_refused(train: Any, iris_run: Any) -> None:
    for checkpoint in ("best", "last"):
        (iris_run.folder / "checkpoints" / f"{checkpoint}.ckpt").unlink()
    for stage in ("test", "export"):
        done = train(f"stage={stage}", f"run={iris_run.folder}")
        assert done.status == 2
        assert "has lost its checkpoints/best.ckpt" in done.err
    done = train(f"init_from={iris_run.folder}", "data=iris")
    assert done.status == 2
    assert done.err.startswith("init_from=")
    assert not (iris_run.folder / "metrics_test.json").exists()


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
@pytest.mark.parametrize("stage", ["test", "fit"])
def test_a_damaged_checkpoint_is_refused(train: Any, iris_run: Any, damage: str, stage: str) -> None:
    for file in (iris_run.folder / "checkpoints").glob("*.ckpt"):
        whole = file.read_bytes()
        file.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"no checkpoint", "empty": b""}[damage])
    metrics = iris_run.metrics
    done = train(f"stage={stage}", f"run={iris_run.folder}", *(["trainer.max_epochs=3"] if stage == "fit" else []))
    assert done.status == 2, done.err
    assert "cannot be read" in done.err
    assert ".ckpt" in done.err
    assert len(done.err.splitlines()) == 1
    assert iris_run.metrics == metrics


def test_validate_without_a_validation_part_is_refused(fit: Any) -> None:
    run = fit("data.val_fraction=0")
    with pytest.raises(ConfigError, match="has no validation part"):
        neurona.run([f"run={run.folder}", "stage=validate", "quiet=true"])
    figures = neurona.run([f"run={run.folder}", "stage=test", "quiet=true"])
    assert part(figures, "test") == part(run.metrics, "test")


def test_what_belongs_to_the_run_cannot_be_changed(train: Any, iris_run: Any) -> None:
    before = iris_run.contents()
    done = train(f"run={iris_run.folder}", "model.hidden=[3]")
    assert done.status == 2
    assert f"init_from={iris_run.folder}" in done.err
    assert iris_run.contents() == before
