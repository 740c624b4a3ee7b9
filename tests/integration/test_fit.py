"""What ``python train.py`` does, leaves behind and says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import neurona
from neurona.errors import ConfigError
from neurona.report import runs

FILES = {
    "config.yaml",
    "overrides.yaml",
    "provenance.json",
    "metrics.json",
    "train.log",
    "confusion_matrix_test.csv",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "checkpoints/previous.ckpt",
    "projector_config.pbtxt",
    *(f"projector/val/{name}" for name in ("tensors.tsv", "metadata.tsv", "sprite.png")),
}
FIGURES = ("loss", "accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision", "calibration_error")


def test_the_default_run_says_what_it_did_and_nothing_else(default_process: Any) -> None:
    done, run = default_process
    assert done.err == ""
    assert run.metrics["test/accuracy"] >= 0.97
    lines = done.out.splitlines()
    assert lines[-1] == f"test accuracy {100 * run.metrics['test/accuracy']:.2f} %"
    assert lines[-2] == "tensorboard --logdir logs/digits"
    assert lines[-3] == f"logs/digits/{run.folder.name}"
    assert "64 features, 10 classes" in done.out
    assert "17,226 parameters" in done.out  # 64·128 + 128 + 128·64 + 64 + 64·10 + 10
    for name in FIGURES:
        figures = [run.metrics.get(f"{part}/{name}") for part in ("train", "val", "test")]
        shown = " +".join(f"{figure:.4f}" for figure in figures if figure is not None)
        assert re.search(rf"^{name} +{shown}$", done.out, re.MULTILINE)
    speed = f"{run.metrics['seconds']:.1f} s ({run.metrics['samples_per_second']:,} samples/s) on cpu, 1 thread"
    best = run.metrics["best_epoch"] + 1
    assert f"30 epochs, 1,110 steps in {speed}; trainer.max_epochs is reached; best epoch {best}" in lines
    history = [line for line in lines if re.match(r"epoch \d+/30  step \d+  train/loss ", line)]
    assert len(history) == 30
    assert f"val/loss {run.metrics['val/loss']:.4f}" in history[best - 1]


def test_the_run_folder_is_complete(default_process: Any) -> None:
    _, run = default_process
    contents = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    events = {name for name in contents if name.startswith("events.out.tfevents")}
    assert [name.endswith(".end") for name in sorted(events)] == [False, True]  # the fit, and what follows
    assert contents - events - {".lock"} == FILES
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", run.folder.name)
    assert [path.name for path in run.folder.parents[2].iterdir()] == ["logs"]


def test_configuration_and_provenance_are_enough_to_run_again(default_process: Any) -> None:
    _, run = default_process
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["model"]["hidden"] == [128, 64]
    assert config["data"]["shuffle_seed"] == config["seed"] == 0  # interpolations are resolved
    begun = yaml.safe_load((run.folder / "overrides.yaml").read_text())
    assert (begun["overrides"], begun["absolute"], begun["choices"]["data"]) == ([], {}, "digits")
    provenance = run.read("provenance.json")
    assert provenance["command"][0].endswith("train.py")
    assert provenance["seed"] == 0
    assert set(provenance["versions"]) >= {"python", "torch", "lightning", "hydra-core"}
    assert provenance["hardware"]["cores"] >= 1


def test_metrics_are_those_of_the_best_epoch(default_process: Any) -> None:
    _, run = default_process
    metrics, state = run.metrics, run.checkpoint("best")
    assert (metrics["status"], metrics["stage"]) == ("finished", "fit")
    assert (metrics["epochs"], metrics["steps"]) == (30, 30 * 37)  # 37 batches hold 1,797 - 359 - 270 rows
    assert metrics["best_epoch"] == state["epoch"]
    assert state["global_step"] == 37 * (metrics["best_epoch"] + 1)
    assert metrics["num_parameters"] == 17_226
    assert {f"{part}/{name}" for part in ("val", "test") for name in FIGURES} < set(metrics)


def test_the_same_seed_gives_the_same_bits_from_python_and_in_another_process(
    default_process: Any, newest: Any
) -> None:
    _, run = default_process
    figures = neurona.run(["quiet=true"])
    assert newest().weights("last") == run.weights("last")
    assert newest().weights("best") == run.weights("best")
    assert figures.pop("folder") == str(newest().folder.relative_to(Path.cwd()))
    assert figures == newest().metrics
    of_time = {"seconds", "samples_per_second"}
    assert {k: v for k, v in figures.items() if k not in of_time} == {
        k: v for k, v in run.metrics.items() if k not in of_time
    }


def test_another_seed_gives_other_weights(fit: Any) -> None:
    assert len({fit(f"seed={seed}", "trainer.max_epochs=1").weights() for seed in (0, 1, 0)}) == 2


def test_the_seed_does_not_change_the_split(fit: Any) -> None:
    shifts = [
        fit("trainer.max_epochs=1", *overrides).checkpoint()["state_dict"]["preprocessing.shift"]
        for overrides in ([], ["seed=1"], ["data.split_seed=1"])
    ]
    assert shifts[0].equal(shifts[1])
    assert not shifts[0].equal(shifts[2])


def test_the_command_and_python_return_the_same(train: Any, iris_run: Any, newest: Any) -> None:
    assert train("data=iris", "trainer.max_epochs=2", "quiet=true").status == 0
    assert newest().folder != iris_run.folder
    assert newest().weights() == iris_run.weights()


def test_a_folder_that_is_taken_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["data=iris", "trainer.max_epochs=1", "logger=none", f"folder={tmp_path}/mine"]
    first, second = neurona.run(overrides), neurona.run(overrides)
    assert (first["folder"], second["folder"]) == (f"{tmp_path}/mine", f"{tmp_path}/mine-2")
    warnings = [line for line in capsys.readouterr().out.splitlines() if "exists already" in line]
    assert warnings == [f"{tmp_path}/mine exists already: this run's folder is {tmp_path}/mine-2"]
    assert neurona.run([f"run={tmp_path}/mine", "stage=test"])["folder"] == f"{tmp_path}/mine"


def test_mistakes_raise_from_python(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean model\.hidden\?"):
        fit("model.hiden=[3]")
    with pytest.raises(ConfigError, match=r"must be a list: neurona\.run\(\['data=iris'\]\)"):
        neurona.run("data=iris")
    assert list(tmp_path.iterdir()) == []


def test_quiet_prints_nothing(train: Any) -> None:
    done = train("data=iris", "trainer.max_epochs=2", "quiet=true")
    assert (done.status, done.out, done.err) == (0, "", "")


def test_tensorboard_shows_each_figure_once_per_step(default_process: Any, scalars: Any) -> None:
    _, run = default_process
    tags, steps = scalars(run.folder), run.metrics["steps"]
    epochs = list(range(36, steps, 37))  # steps are counted from 0
    for tag in ("train/loss", "train/accuracy", *(f"val/{name}" for name in FIGURES)):
        assert tags[tag] == epochs, tag
    assert tags["train/step_loss"] == list(range(99, steps, 100))
    for name in FIGURES:
        assert tags[f"test/{name}"] == [steps]
    for tag, seen in tags.items():
        assert seen == sorted(set(seen)), tag
        assert seen[-1] <= steps, tag


def test_tensorboard_shows_configuration_and_hyperparameters(default_process: Any) -> None:
    _, run = default_process
    events = EventAccumulator(str(run.folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    assert (run.folder / "config.yaml").read_text() in text.tensor_proto.string_val[0].decode()
    metadata = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(metadata).session_start_info
    assert start.hparams["optimizer.lr"].number_value == 1e-3
    assert start.hparams["model.hidden"].string_value == "[128, 64]"
    for part in ("val", "test"):
        (event,) = events.Scalars(f"best/{part}/accuracy")
        assert event.value == pytest.approx(run.metrics[f"{part}/accuracy"], abs=1e-7)


def test_no_file_holds_a_value_of_the_environment(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONA_TEST_SECRET", "hunter2")
    monkeypatch.setenv("NEURONA_TEST_NAME", "softsign")
    run = fit("tags=['${oc.env:NEURONA_TEST_SECRET}']", "model.activation='${oc.env:NEURONA_TEST_NAME}'")
    for name, contents in run.contents().items():
        assert b"hunter2" not in contents, name
        assert name.endswith(".ckpt") or b"softsign" not in contents, name  # a network is rebuilt from its checkpoint


def test_without_validation_the_best_is_the_last(fit: Any) -> None:
    run = fit("data.val_fraction=0")
    assert run.weights("best") == run.weights("last")
    assert run.metrics["best_epoch"] == run.metrics["epochs"] - 1
    assert not any(name.startswith("val/") for name in run.metrics)
    assert "test/accuracy" in run.metrics


def test_early_stopping_needs_a_validation_part(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.callbacks\.early_stopping\.patience=2: needs a validation part"):
        fit("data.val_fraction=0", "trainer.callbacks.early_stopping.patience=2")
    assert list(tmp_path.iterdir()) == []


def test_early_stopping_stops_patience_validations_after_the_best(fit: Any) -> None:
    run = fit("trainer.max_epochs=100", "optimizer.lr=0.1", "trainer.callbacks.early_stopping.patience=3")
    assert run.metrics["epochs"] < 100
    assert run.metrics["epochs"] == run.metrics["best_epoch"] + 1 + 3


def test_figures_belong_to_the_best_checkpoint_when_validation_is_within_the_epoch(fit: Any) -> None:
    run = fit("trainer.max_epochs=3", "trainer.val_check_interval=1", "optimizer.lr=0.05")
    figures = neurona.run([f"run={run.folder}", "stage=validate", "quiet=true"])
    for name in FIGURES:
        assert run.metrics[f"val/{name}"] == figures[f"val/{name}"], name


def test_each_fold_trains_on_rows_of_its_own(fit: Any) -> None:
    shifts = set()
    for fold in range(3):
        run = fit("data.folds=3", f"data.fold={fold}", "trainer.max_epochs=1")
        assert 0 <= run.metrics["val/accuracy"] <= 1
        shifts.add(tuple(run.checkpoint()["state_dict"]["preprocessing.shift"].tolist()))
    assert len(shifts) == 3


def test_a_loss_that_is_not_finite_names_the_step(train: Any, newest: Any) -> None:
    done = train("optimizer=sgd", "optimizer.lr=1e30")
    assert done.status == 1
    match = re.search(r"the training loss became (?:nan|inf) at optimiser step (\d+) \(epoch 0\)", done.err)
    assert match is not None
    step = int(match[1])
    assert 1 < step < 37
    metrics = newest().metrics
    assert metrics["status"] == "failed"
    assert f"at optimiser step {step}" in metrics["error"]
    assert "Traceback" not in done.err
    assert f"\nfailed: {newest().folder.relative_to(Path.cwd())}\n" in done.out


def test_max_steps_ends_in_mid_epoch(fit: Any, scalars: Any) -> None:
    run = fit("trainer.max_steps=10", "trainer.max_epochs=null")
    assert run.metrics["steps"] == 10
    assert run.checkpoint()["global_step"] == 10
    assert "test/accuracy" in run.metrics


def test_debug_fast_runs_three_mini_batches(fit: Callable[..., Any], newest: Any) -> None:
    figures = neurona.run(["debug=fast", "quiet=true"])
    assert (figures["epochs"], figures["steps"]) == (1, 3)
    assert "test/accuracy" in figures
    assert Path(figures["folder"]).parent == Path("logs/debug")
    for choice in ("overfit", "profile"):  # a folder of one's own, and still known as what it was
        mine = neurona.run(
            [f"debug={choice}", "data=iris", "trainer.max_epochs=1", "quiet=true", f"folder=logs/{choice}"]
        )
        assert mine["folder"] == f"logs/{choice}"
    fit("folder=logs/iris")
    assert {path.name: run.is_debug for path in runs.find([Path("logs")]) for run in [runs.read(path, [])]} == {
        Path(figures["folder"]).name: True,
        "iris": False,
        "overfit": True,
        "profile": True,
    }


def test_debug_profile_leaves_a_table(newest: Any) -> None:
    neurona.run(["data=iris", "debug=profile", "quiet=true"])
    assert "training_step" in (newest().folder / "fit-profile.txt").read_text()


@pytest.mark.parametrize(
    ("key", "number"), [("limit_train_batches", 2), ("limit_train_batches", 0.5), ("overfit_batches", 1)]
)
def test_an_epoch_of_some_mini_batches_is_told_at_both_ends(train: Any, key: str, number: float) -> None:
    done = train("data=iris", f"trainer.{key}={number}", "trainer.max_epochs=2")
    assert done.status == 0, done.err
    made = number if isinstance(number, int) else int(7 * number)  # 98 training rows at batch size 16
    assert f"\nepochs   each takes {made} of 7 mini-batches (trainer.{key})\n" in done.out
    assert f"\n2 epochs of {made} of 7 mini-batches each, {2 * made} steps in " in done.out
    assert "mini-batches each" not in train("data=iris", "trainer.max_epochs=1", "trainer.limit_train_batches=50").out
