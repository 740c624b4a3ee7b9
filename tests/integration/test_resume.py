"""Interrupted, extended and finished runs, and runs from another run's weights."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import neurona
from neurona.classifier import Classifier
from neurona.config import ConfigError, RunError

# Dropout draws from the random generator, the rate of the schedule and Adam's moments depend on every step before.
SETTINGS = [
    "data=digits",
    "model.dropout=0.2",
    "optimizer=adamw",
    "optimizer/schedule=one_cycle",
    "trainer.max_epochs=6",
    "trainer.callbacks.checkpoints.every_n_steps=10",
    "quiet=true",
]
STEPS_PER_EPOCH = 37
TIMED = ("seconds", "samples_per_second")

# Starts train.py, its own arguments after the first two: sends itself a signal after the optimiser step given.
KILLED = """
import os, runpy, signal, sys
from neurona.classifier import Classifier
train, number, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.argv = [train, *sys.argv[4:]]
take = Classifier.training_step
def training_step(self, batch, batch_idx):
    take(self, batch, batch_idx)
    if self.trainer.global_step >= step and not hasattr(self, 'sent'):
        self.sent = True
        os.kill(os.getpid(), number)
Classifier.training_step = training_step
runpy.run_path(train, run_name='__main__')
"""


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, newest: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("uninterrupted"))
        neurona.run(SETTINGS)
        return newest()


def resume(run: Any, *overrides: str) -> None:
    """Continues a run, no sooner than in the next second: TensorBoard reads event files in the order of their names."""
    time.sleep(1.01)
    neurona.run([f"run={run.folder}", "quiet=true", *overrides])


def assert_same_run(run: Any, reference: Any, scalars: Any) -> None:
    assert run.weights("last") == reference.weights("last")
    assert run.weights("best") == reference.weights("best")
    ours, theirs = run.metrics, reference.metrics
    assert {k: v for k, v in ours.items() if k not in TIMED} == {k: v for k, v in theirs.items() if k not in TIMED}
    assert scalars(run.folder) == scalars(reference.folder)


@pytest.mark.parametrize(
    ("signal", "number", "exit_status", "recorded"),
    [("SIGKILL", 9, -9, "running"), ("SIGINT", 2, 130, "interrupted"), ("SIGTERM", 15, 143, "interrupted")],
)
def test_a_stopped_run_is_continued_exactly(
    train_process: Any, newest: Any, uninterrupted: Any, scalars: Any, signal: str, number: int, exit_status: int,
    recorded: str,
) -> None:  # fmt: skip
    loud = [setting for setting in SETTINGS if setting != "quiet=true"]
    done = train_process(str(number), "100", *loud, program=KILLED)
    assert done.status == exit_status, done.err
    run = newest()
    assert run.metrics["status"] == recorded
    assert STEPS_PER_EPOCH * 2 < run.checkpoint()["global_step"] <= 100
    if signal != "SIGKILL":
        assert f"python train.py run={run.folder.relative_to(Path.cwd())}" in done.out
        assert "Traceback" not in done.err
    resume(run)
    assert_same_run(run, uninterrupted, scalars)


class Stopped(Exception):
    pass


def stop_in(patch: pytest.MonkeyPatch, hook: str, epoch: int) -> None:
    """Makes a hook of the classifier raise Stopped at its end, in the epoch given."""
    original = getattr(Classifier, hook)

    def stop(self: Classifier, *arguments: Any) -> None:
        original(self, *arguments)
        if self.current_epoch == epoch:
            raise Stopped("power cut")

    patch.setattr(Classifier, hook, stop)


@pytest.mark.parametrize(
    ("hook", "epoch"), [("training_step", 0), ("validation_step", 2), ("on_train_epoch_end", 3), ("test_step", 6)]
)
def test_a_run_that_failed_anywhere_is_continued_exactly(
    uninterrupted: Any, newest: Any, scalars: Any, monkeypatch: pytest.MonkeyPatch, hook: str, epoch: int
) -> None:
    with monkeypatch.context() as patch:
        stop_in(patch, hook, epoch)
        with pytest.raises(Stopped):
            neurona.run(SETTINGS)
    run = newest()
    assert (run.metrics["status"], run.metrics["error"]) == ("failed", "power cut")
    resume(run)
    assert_same_run(run, uninterrupted, scalars)


def test_a_finished_run_says_so_and_stays_as_it_is(train: Any, fit: Any) -> None:
    run = fit()
    before = run.contents()
    done = train(f"run={run.folder}", "quiet=false")
    assert (done.status, done.err) == (0, "")
    assert "is finished" in done.out
    assert "trainer.max_epochs=" in done.out
    assert run.contents() == before


def test_an_extended_run_equals_one_of_that_length(fit: Any, scalars: Any, train: Any) -> None:
    reference = fit("data=digits", "model.dropout=0.2", "trainer.max_epochs=4")
    run = fit("data=digits", "model.dropout=0.2")
    assert run.metrics["epochs"] == 2
    resume(run, "trainer.max_epochs=4")
    assert run.weights("last") == reference.weights("last")
    assert run.weights("best") == reference.weights("best")
    assert run.metrics["val/loss"] == reference.metrics["val/loss"]
    assert run.metrics["epochs"] == 4
    for tag, steps in scalars(run.folder).items():
        assert steps == sorted(set(steps)), tag
    before = run.contents()
    done = train(f"run={run.folder}", "trainer.max_epochs=4", "quiet=false")
    assert "is finished" in done.out
    assert run.contents() == before


def test_an_extension_that_was_interrupted_is_continued_to_its_end(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = fit("trainer.max_epochs=5")
    run = fit()
    with monkeypatch.context() as patch:
        stop_in(patch, "on_train_epoch_end", 3)
        with pytest.raises(Stopped):
            neurona.run([f"run={run.folder}", "trainer.max_epochs=5"])
    neurona.run([f"run={run.folder}"])
    assert run.metrics["epochs"] == 5
    assert run.weights() == reference.weights()


def test_a_live_folder_is_refused(fit: Any, train_process: Any) -> None:
    run = fit()
    before = run.contents()
    holder = (
        "import sys, pathlib; from neurona.run_folder import RunFolder; folder = RunFolder(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", f"{holder}; print('held', flush=True); sys.stdin.read()", str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        for stage in ("fit", "test"):
            with pytest.raises(ConfigError, match="another process is working on this run"):
                neurona.run([f"run={run.folder}", f"stage={stage}", "trainer.max_epochs=3", "quiet=true"])
        process.communicate("")
    assert run.contents() == before
    neurona.run([f"run={run.folder}", "stage=test", "quiet=true"])


def test_a_new_run_starts_from_another_runs_weights(fit: Any, newest: Any) -> None:
    source = fit()
    given = source.checkpoint("best")["state_dict"]
    run = fit(f"init_from={source.folder}", "optimizer=sgd", "optimizer.lr=1e-30", "seed=5")
    taken = run.checkpoint()["state_dict"]
    for name in (name for name in given if name.startswith("network.")):
        torch.testing.assert_close(taken[name], given[name])
    assert run.folder != source.folder


def test_the_head_is_made_anew_for_other_classes(fit: Any, train: Any, newest: Any) -> None:
    source = fit()  # iris: 4 features, 3 classes
    given = source.checkpoint("best")["state_dict"]
    done = train(f"init_from={source.folder}", "data=wine", "optimizer=sgd", "optimizer.lr=1e-30", "debug=fast")
    assert done.status == 0
    assert "made anew, as the sizes differ: linear1.weight" in done.out  # wine: 13 features, 3 classes
    taken = newest().checkpoint()["state_dict"]
    torch.testing.assert_close(taken["network.linear2.weight"], given["network.linear2.weight"])
    torch.testing.assert_close(taken["network.head.weight"], given["network.head.weight"])
    assert taken["network.linear1.weight"].shape == (128, 13)


def test_weights_of_another_architecture_are_refused(fit: Any, tmp_path: Path) -> None:
    source = fit()
    runs = len(list(tmp_path.rglob("metrics.json")))
    with pytest.raises(ConfigError, match="init_from"):
        fit(f"init_from={source.folder}", "model.hidden=[7,7,7]", "data=digits")
    assert len(list(tmp_path.rglob("metrics.json"))) == runs


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_schedule_laid_out_for_its_length_is_not_extended(fit: Any, schedule: str) -> None:
    run = fit("trainer.max_epochs=2", f"optimizer/schedule={schedule}")
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=3: the run's learning-rate schedule was laid out"):
        neurona.run([f"run={run.folder}", "trainer.max_epochs=3", "quiet=true"])
    assert run.metrics["status"] == "finished"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["trainer.max_epochs=1"], "trainer.max_epochs=1: the run has made 2 epochs already"),
        (["trainer.max_steps=9"], "trainer.max_steps=9: the run has made 14 steps already"),
        (["trainer.max_epochs=3", "trainer.max_steps=14"], "trainer.max_steps=14: the run has made 14 steps already"),
        (["trainer.max_epochs=3", "trainer.limit_train_batches=2"], "trainer.limit_train_batches=2: was 1.0"),
        (["trainer.callbacks.checkpoints.monitor=val/accuracy"], "checkpoints.monitor=val/accuracy: was val/loss"),
    ],
)
def test_a_limit_already_reached_or_a_setting_that_stays_is_refused(fit: Any, given: list[str], message: str) -> None:
    run = fit()  # iris: 150 - 30 - 22 rows make 7 mini-batches of 16
    before = run.contents()
    with pytest.raises(ConfigError) as caught:
        neurona.run([f"run={run.folder}", "quiet=true", *given])
    assert message in str(caught.value)
    assert run.contents() == before


def test_the_figures_stay_until_an_extension_has_new_ones(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fit()
    before = run.metrics
    with monkeypatch.context() as patch:
        stop_in(patch, "on_train_epoch_end", 3)
        with pytest.raises(Stopped):
            neurona.run([f"run={run.folder}", "trainer.max_epochs=5", "quiet=true"])
    after = run.metrics
    assert (after["status"], after["error"]) == ("failed", "power cut")
    changed = {"status", "epochs", "steps"}
    assert {k: v for k, v in before.items() if k not in changed} == {
        k: v for k, v in after.items() if k not in {*changed, "error"}
    }


def test_a_run_that_has_lost_its_last_checkpoint_is_not_trained_anew(fit: Any) -> None:
    run = fit()
    (run.folder / "checkpoints" / "last.ckpt").unlink()
    before = run.contents()
    for status in ("finished", "running"):
        (run.folder / "metrics.json").write_text(f'{{"status": "{status}"}}')
        with pytest.raises(ConfigError, match=r"has lost its checkpoints/last\.ckpt"):
            neurona.run([f"run={run.folder}", "trainer.max_epochs=4", "quiet=true"])
    assert run.contents().keys() == before.keys()


def test_a_run_with_weights_of_another_goes_on_after_that_one_is_gone(fit: Any) -> None:
    source = fit()
    run = fit(f"init_from={source.folder}", "seed=5")
    source.folder.rename(source.folder.with_name("moved"))
    neurona.run([f"run={run.folder}", "trainer.max_epochs=3", "quiet=true"])
    assert run.metrics["epochs"] == 3


@pytest.mark.parametrize("damage", ["", '{"status": "fini'])
def test_damaged_figures_of_a_finished_run_are_made_again(fit: Any, damage: str) -> None:
    run = fit()
    before = run.metrics
    (run.folder / "metrics.json").write_text(damage)
    neurona.run([f"run={run.folder}", "quiet=true"])
    untimed = [{k: v for k, v in figures.items() if k not in TIMED} for figures in (before, run.metrics)]
    assert untimed[0] == untimed[1]


def test_a_full_disk_ends_a_run_in_one_line(fit: Any, newest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(contents: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"best\.ckpt: cannot be written \(No space left on device\); make room"):
        fit()
    run = newest()
    assert run.metrics["status"] == "failed"
    assert list((run.folder / "checkpoints").iterdir()) == []


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(fit: Any) -> None:
    run = fit()
    contents = run.checkpoint()
    del contents["state_dict"]["network.head.bias"]
    torch.save(contents, run.folder / "checkpoints" / "last.ckpt")
    before = run.contents()
    with pytest.raises(ConfigError, match="its weights do not fit"):
        neurona.run([f"run={run.folder}", "trainer.max_epochs=3", "quiet=true"])
    assert run.contents() == before
