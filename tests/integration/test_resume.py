"""Interrupted, extended and finished runs, and runs from another run's weights."""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import forked
from lightning.pytorch import Trainer

import neurona
from neurona.classifier import Classifier
from neurona.data.base import Table
from neurona.data.iris import Iris
from neurona.errors import ConfigError, RunError
from neurona.inspection.loggers import TensorBoard
from neurona.steps.training import Training

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
TRAIN = Path(__file__).parents[2] / "train.py"
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


@pytest.fixture(scope="session")
def two_epochs(tmp_path_factory: pytest.TempPathFactory, newest: Any) -> Any:
    """Two epochs of iris, fitted once for all tests; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("two_epochs"))
        neurona.run(["data=iris", "trainer.max_epochs=2", "quiet=true"])
        return newest()


@pytest.fixture
def finished(two_epochs: Any, read_run: Any) -> Any:
    """A copy of that run, as ``logs/iris/…`` of the working folder."""
    copy = Path.cwd() / "logs" / "iris" / two_epochs.folder.name
    shutil.copytree(two_epochs.folder, copy)
    return read_run(copy)


def resume(run: Any, *overrides: str) -> None:
    """Continues a run as if it had stopped seconds ago: TensorBoard reads event files in the order of their names, in
    which there are whole seconds.
    """
    for file in run.folder.glob("events.out.tfevents.*"):
        seconds = file.name.split(".")[3]
        file.rename(file.with_name(file.name.replace(seconds, str(int(seconds) - 10))))
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
    newest: Any, uninterrupted: Any, scalars: Any, signal: str, number: int, exit_status: int, recorded: str
) -> None:
    loud = [setting for setting in SETTINGS if setting != "quiet=true"]
    with forked(Path.cwd(), "-c", KILLED, str(TRAIN), str(number), "100", *loud) as process:
        assert process.wait() == exit_status, process.err.read_text()
    run = newest()
    assert run.metrics["status"] == recorded
    assert STEPS_PER_EPOCH * 2 < run.checkpoint()["global_step"] <= 100
    if signal != "SIGKILL":
        assert f"python train.py run={run.folder.relative_to(Path.cwd())}" in process.out.read_text()
        assert "Traceback" not in process.err.read_text()
    resume(run)
    assert_same_run(run, uninterrupted, scalars)


class Stopped(Exception):
    pass


def stop_in(patch: pytest.MonkeyPatch, hook: str, epoch: int | None) -> None:
    """Makes a hook of the classifier raise Stopped at its end, in the epoch given; without, one of the logger."""
    owner: Any = TensorBoard if epoch is None else Classifier
    original = getattr(owner, hook)

    def stop(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        if epoch is None or self.current_epoch == epoch:
            raise Stopped("power cut")

    patch.setattr(owner, hook, stop)


@pytest.mark.parametrize(
    ("hook", "epoch"),
    [
        ("training_step", 0),
        ("validation_step", 2),
        ("on_train_epoch_end", 3),
        ("test_step", 6),
        ("log_hyperparams", None),
    ],
)
def test_a_run_that_failed_anywhere_is_continued_exactly(
    uninterrupted: Any, newest: Any, scalars: Any, monkeypatch: pytest.MonkeyPatch, hook: str, epoch: int | None
) -> None:
    with monkeypatch.context() as patch:
        stop_in(patch, hook, epoch)
        with pytest.raises(Stopped):
            neurona.run(SETTINGS)
    run = newest()
    assert (run.metrics["status"], run.metrics["error"]) == ("failed", "power cut")
    resume(run)
    assert_same_run(run, uninterrupted, scalars)


@pytest.mark.parametrize(
    "settings",
    [
        ["trainer.max_epochs=-1", "trainer.max_steps=30"],  # from the checkpoint of an epoch's end
        ["data.val_fraction=0", "trainer.max_epochs=4"],  # from the beginning: there is no checkpoint yet
    ],
)
def test_a_continued_run_has_every_epoch_once(
    fit: Any, newest: Any, scalars: Any, monkeypatch: pytest.MonkeyPatch, settings: list[str]
) -> None:
    reference = fit(*settings)
    with monkeypatch.context() as patch:
        stop_in(patch, "training_step", 2)
        with pytest.raises(Stopped):
            fit(*settings)
    run = newest()
    assert run.folder != reference.folder
    resume(run)
    assert_same_run(run, reference, scalars)


def test_what_follows_a_figure_at_the_end_of_an_epoch_goes_on_with_that_of_its_last_validation(
    fit: Any, newest: Any, scalars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is of step 221: after the last validation of an epoch, and before its last mini-batch."""
    schedule = ["optimizer=rmsprop", "optimizer/schedule=plateau", "optimizer.schedule.patience=0"]
    settings = [*schedule, "trainer.val_check_interval=0.25", "trainer.callbacks.checkpoints.every_n_steps=221"]
    overrides = ["data=digits", *settings, "trainer.max_epochs=8", "quiet=true"]
    reference = fit(*overrides)
    take = Classifier.training_step

    def training_step(self: Any, *batch: Any) -> Any:
        if self.global_step == 221:
            raise Stopped("power cut")
        return take(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", training_step)
        with pytest.raises(Stopped):
            fit(*overrides)
    run = newest()
    assert run.checkpoint()["global_step"] == 221
    resume(run)
    assert_same_run(run, reference, scalars)


def test_a_finished_run_says_so_and_stays_as_it_is(train: Any, finished: Any) -> None:
    run = finished
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


def test_an_extension_that_was_interrupted_is_continued_to_its_end(
    fit: Any, finished: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = fit("trainer.max_epochs=5")
    run = finished
    with monkeypatch.context() as patch:
        stop_in(patch, "on_train_epoch_end", 3)
        with pytest.raises(Stopped):
            neurona.run([f"run={run.folder}", "trainer.max_epochs=5"])
    neurona.run([f"run={run.folder}"])
    assert run.metrics["epochs"] == 5
    assert run.weights() == reference.weights()


def test_a_live_folder_is_refused(finished: Any) -> None:
    run = finished
    before = run.contents()
    holder = (
        "import sys, pathlib; from neurona.runs.folder import RunFolder; folder = RunFolder(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", f"{holder}; print('held', flush=True); sys.stdin.read()", str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        for stage in ("fit", "test"):
            with pytest.raises(ConfigError, match="another process is working on it"):
                neurona.run([f"run={run.folder}", f"stage={stage}", "trainer.max_epochs=3", "quiet=true"])
        process.communicate("")
    assert run.contents() == before
    neurona.run([f"run={run.folder}", "stage=test", "quiet=true"])


def test_a_new_run_starts_from_another_runs_weights(fit: Any, finished: Any, newest: Any) -> None:
    source = finished
    theirs = source.checkpoint("best")["state_dict"]
    run = fit(f"init_from={source.folder}", "optimizer=sgd", "optimizer.lr=1e-30", "seed=5")
    ours = run.checkpoint()["state_dict"]
    for name in (name for name in theirs if name.startswith("network.")):
        torch.testing.assert_close(ours[name], theirs[name])
    assert run.folder != source.folder


def test_the_head_is_made_anew_for_other_classes(finished: Any, train: Any, newest: Any) -> None:
    source = finished  # iris: 4 features, 3 classes
    theirs = source.checkpoint("best")["state_dict"]
    done = train(f"init_from={source.folder}", "data=wine", "optimizer=sgd", "optimizer.lr=1e-30", "debug=fast")
    assert done.status == 0
    assert "new, because the sizes differ: linear1.weight" in done.out  # wine: 13 features, 3 classes
    ours = newest().checkpoint()["state_dict"]
    torch.testing.assert_close(ours["network.linear2.weight"], theirs["network.linear2.weight"])
    torch.testing.assert_close(ours["network.head.weight"], theirs["network.head.weight"])
    assert ours["network.linear1.weight"].shape == (128, 13)


def test_weights_of_another_architecture_are_refused(fit: Any, finished: Any, tmp_path: Path) -> None:
    source = finished
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
    ("overrides", "message"),
    [
        (["trainer.max_epochs=1"], "trainer.max_epochs=1: the run has made 2 epochs already"),
        (["trainer.max_steps=9"], "trainer.max_steps=9: the run has made 14 steps already"),
        (["trainer.max_epochs=3", "trainer.max_steps=14"], "trainer.max_steps=14: the run has made 14 steps already"),
        (["trainer.max_epochs=3", "trainer.limit_train_batches=2"], "trainer.limit_train_batches=2: was 1.0"),
        (["trainer.callbacks.checkpoints.monitor=val/accuracy"], "checkpoints.monitor=val/accuracy: was val/loss"),
    ],
)
def test_a_limit_already_reached_or_a_setting_that_stays_is_refused(
    finished: Any, overrides: list[str], message: str
) -> None:
    run = finished  # iris: 150 - 30 - 22 rows make 7 mini-batches of 16
    before = run.contents()
    with pytest.raises(ConfigError) as caught:
        neurona.run([f"run={run.folder}", "quiet=true", *overrides])
    assert message in str(caught.value)
    assert run.contents() == before


def test_the_figures_stay_until_an_extension_has_new_ones(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished
    before = run.metrics
    with monkeypatch.context() as patch:
        stop_in(patch, "on_train_epoch_end", 3)
        with pytest.raises(Stopped):
            neurona.run([f"run={run.folder}", "trainer.max_epochs=5", "quiet=true"])
    after = run.metrics
    assert (after["status"], after["error"]) == ("failed", "power cut")
    changed = {"status", "stopped_by", "epochs", "steps"}
    assert {k: v for k, v in before.items() if k not in changed} == {
        k: v for k, v in after.items() if k not in {*changed, "error"}
    }


def test_a_run_that_has_lost_its_last_checkpoint_is_not_trained_anew(finished: Any) -> None:
    run = finished
    for name in ("last", "previous"):
        (run.folder / "checkpoints" / f"{name}.ckpt").unlink()
    before = run.contents()
    for status in ("finished", "running"):
        (run.folder / "metrics.json").write_text(f'{{"status": "{status}"}}')
        with pytest.raises(ConfigError, match=r"has no checkpoints/last\.ckpt"):
            neurona.run([f"run={run.folder}", "trainer.max_epochs=4", "quiet=true"])
    assert run.contents().keys() == before.keys()


def test_a_run_with_weights_of_another_goes_on_after_that_one_is_gone(fit: Any, finished: Any) -> None:
    source = finished
    run = fit(f"init_from={source.folder}", "seed=5")
    source.folder.rename(source.folder.with_name("moved"))
    neurona.run([f"run={run.folder}", "trainer.max_epochs=3", "quiet=true"])
    assert run.metrics["epochs"] == 3


@pytest.mark.parametrize("damage", ["", '{"status": "fini'])
def test_damaged_figures_of_a_finished_run_are_made_again(finished: Any, damage: str) -> None:
    run = finished
    before = run.metrics
    (run.folder / "metrics.json").write_text(damage)
    neurona.run([f"run={run.folder}", "quiet=true"])
    untimed = [{k: v for k, v in figures.items() if k not in TIMED} for figures in (before, run.metrics)]
    assert untimed[0] == untimed[1]


def test_a_full_disk_ends_a_run_in_one_line(fit: Any, newest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save

    def full(contents: Any, file: Any) -> None:
        if isinstance(file, io.BytesIO):
            save(contents, file)
        else:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"best\.ckpt: cannot be written \(No space left on device\); make room"):
        fit()
    run = newest()
    assert run.metrics["status"] == "failed"
    assert list((run.folder / "checkpoints").iterdir()) == []


@pytest.fixture(params=["full", "exhausted", "read-only"])
def failing_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A file system of its own, and what makes it fail: no room for another checkpoint, or anything, or no right."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("a file system can only be mounted by root")

    def fail() -> None:
        if request.param in ("full", "exhausted"):
            left = os.statvfs(disk)
            spared = 100_000 if request.param == "full" else 0
            (disk / "others").write_bytes(bytes(left.f_bavail * left.f_bsize - spared))
        else:
            folder = str(disk / "run" / "checkpoints")
            subprocess.run(["mount", "--bind", folder, folder], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)

    yield disk, fail
    subprocess.run(["umount", "--lazy", "--recursive", str(disk)], check=True)


@pytest.mark.usefixtures("_every_epoch")
def test_a_disk_that_fails_in_mid_run_ends_it_in_one_line_and_takes_no_checkpoint(
    train: Any, read_run: Any, monkeypatch: pytest.MonkeyPatch, failing_disk: tuple[Path, Callable[[], None]]
) -> None:
    disk, fail = failing_disk
    epoch_end = Training.on_train_epoch_end

    def failing(self: Training, trainer: Trainer, pl_module: Classifier) -> None:
        epoch_end(self, trainer, pl_module)
        if trainer.current_epoch == 2:
            fail()

    monkeypatch.setattr(Training, "on_train_epoch_end", failing)
    done = train("trainer.max_epochs=9", "quiet=true", f"folder={disk}/run")
    assert done.status == 1
    assert re.fullmatch(r".*/run.*: cannot be written \(.*\); make room.*\n", done.err)
    run = read_run(disk / "run")
    assert run.checkpoint()["global_step"] == 2 * STEPS_PER_EPOCH
    is_exhausted = not os.statvfs(disk).f_bavail
    assert run.metrics["status"] == ("running" if is_exhausted else "failed")
    assert not list((disk / "run" / "checkpoints").glob(".*"))


def test_a_file_that_may_not_grow_is_like_a_full_disk(fit: Any, newest: Any) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"best\.ckpt: cannot be written \(File too large\); make room"):
            fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert newest().metrics["status"] == "failed"


def damage(run: Any, *names: str) -> None:
    for name in names:
        path = run.folder / "checkpoints" / f"{name}.ckpt"
        contents = path.read_bytes()
        path.unlink()  # best.ckpt may be the same file
        path.write_bytes(contents[: len(contents) // 2])


@pytest.mark.usefixtures("_every_epoch")
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    fit: Any, newest: Any, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = fit("trainer.max_epochs=5", "model.dropout=0.2")
    with monkeypatch.context() as patch:
        stop_in(patch, "on_train_epoch_end", 3)
        with pytest.raises(Stopped):
            fit("trainer.max_epochs=5", "model.dropout=0.2")
    run = newest()
    before = run.checkpoint("previous")["global_step"]
    assert before < run.checkpoint()["global_step"]
    damage(run, "last")
    with monkeypatch.context() as patch:  # killed before there is another
        patch.setattr(Classifier, "on_train_start", lambda self: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            neurona.run([f"run={run.folder}"])
    assert run.checkpoint()["global_step"] == run.checkpoint("previous")["global_step"] == before
    damage(run, "last")
    done = train(f"run={run.folder}", "quiet=false")
    assert done.status == 0
    assert re.search(r"last\.ckpt: cannot be read .*going on from the one before, .*previous\.ckpt", done.out)
    assert run.weights() == reference.weights()


def test_two_damaged_checkpoints_are_refused_before_anything_is_written(fit: Any) -> None:
    run = fit("model.dropout=0.1")
    damage(run, "last", "previous")
    before = run.contents()
    with pytest.raises(ConfigError, match=r"last\.ckpt: cannot be read"):
        neurona.run([f"run={run.folder}", "trainer.max_epochs=3", "quiet=true"])
    assert run.contents() == before


def test_other_data_or_another_network_are_refused_with_both_values(
    finished: Any, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished
    had, before = run.checkpoint()["neurona"]["fingerprint"], run.contents()
    command = [f"run={run.folder}", "trainer.max_epochs=3", "quiet=true"]
    read = Iris.read

    def other(self: Iris) -> Table:
        table = read(self)
        table.features[-1, -1] += 1
        return table

    with monkeypatch.context() as patch:
        patch.setattr(Iris, "read", other)
        with pytest.raises(ConfigError, match=rf"^data\.fingerprint=[0-9a-f]{{16}}: .* {had};") as caught:
            neurona.run(command)
        warned = f"data.fingerprint={caught.value.value}: was {had} when the run began; the rows may include some"
        assert train("stage=test", *command[::2]).out == f"{warned} that the run was trained on\n"
    (run.folder / "metrics_test.json").unlink()
    config = run.folder / "config.yaml"
    stored = config.read_text()
    for old, new, problem in (
        ("hidden:\n  - 128\n", "hidden:\n  - 7\n", "model.hidden=[7, 64]: was [128, 64]"),
        ("sigma: 0.1", "sigma: 0.5", "embedding.sigma=0.5: was 0.1"),
    ):
        assert old in stored
        config.write_text(stored.replace(old, new))
        with pytest.raises(ConfigError, match=f"^{re.escape(problem)} when the run began"):
            neurona.run(command)
    config.write_text(stored)
    assert run.contents() == before


# Why a fit has ended.

NOISY = ["data=iris", "optimizer.lr=0.3", "model.dropout=0.5", "seed=1", "quiet=true", "logger=none"]
PATIENCE = "trainer.callbacks.early_stopping.patience"


def test_a_run_that_early_stopping_has_ended_goes_on_with_more_patience(
    fit: Any, train: Any, newest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = fit(*NOISY, "trainer.max_epochs=30", f"{PATIENCE}=4")
    assert reference.metrics["stopped_by"] == "early_stopping"
    done = train(*NOISY[:-2], "logger=none", "trainer.max_epochs=30", f"{PATIENCE}=2")
    run = newest()
    stopped = run.metrics
    assert (done.status, stopped["stopped_by"], stopped["status"]) == (0, "early_stopping", "finished")
    assert stopped["epochs"] < reference.metrics["epochs"] < 30
    best = stopped["best_epoch"] + 1
    assert f"early stopping: val/loss has not improved for 2 validations; best epoch {best}" in done.out
    done = train(f"run={run.folder}")
    assert f"is finished; to train on, give it more: {PATIENCE}=…" in done.out
    with pytest.raises(ConfigError, match="ended the run after 2 validations without improvement; give it more"):
        neurona.run([f"run={run.folder}", "trainer.max_epochs=40", "quiet=true"])
    with pytest.raises(ConfigError, match="ended the run after 2 validations without improvement; give it more"):
        neurona.run([f"run={run.folder}", f"{PATIENCE}=1", "quiet=true"])
    assert run.metrics == stopped
    done = train(f"run={run.folder}", f"{PATIENCE}=4")
    assert done.status == 0
    assert "early stopping had ended the run (patience 2); going on with patience 4" in done.out
    assert_same_figures(run, reference)
    neurona.run([f"run={run.folder}", f"{PATIENCE}=null", f"trainer.max_epochs={run.metrics['epochs'] + 1}"])
    assert (run.metrics["epochs"], run.metrics["stopped_by"]) == (reference.metrics["epochs"] + 1, "max_epochs")
    with pytest.raises(ConfigError, match="epochs already; give it more"):
        neurona.run([f"run={run.folder}", f"{PATIENCE}=9", "quiet=true"])


def test_a_run_that_was_stopped_early_and_interrupted_in_its_test_is_not_trained_on(
    fit: Any, newest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*NOISY, "trainer.max_epochs=30", f"{PATIENCE}=2"]
    reference = fit(*overrides)
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "test_step", lambda *_: pytest.fail("power cut"))
        with pytest.raises(pytest.fail.Exception):
            fit(*overrides)
    run = newest()
    neurona.run([f"run={run.folder}", "quiet=true"])
    assert_same_figures(run, reference)


def assert_same_figures(run: Any, reference: Any) -> None:
    assert (run.weights(), run.weights("best")) == (reference.weights(), reference.weights("best"))
    ours, theirs = run.metrics, reference.metrics
    assert {k: v for k, v in ours.items() if k not in TIMED} == {k: v for k, v in theirs.items() if k not in TIMED}


def test_a_time_budget_ends_a_fit_like_early_stopping(train: Any, newest: Any) -> None:
    done = train("data=iris", "trainer.max_epochs=-1", "trainer.max_time=00:00:00:01", "logger=none")
    metrics = newest().metrics
    assert (done.status, metrics["status"], metrics["stopped_by"]) == (0, "finished", "max_time")
    assert f"{metrics['epochs']:,} epochs, {metrics['steps']:,} steps in " in done.out
    assert "the time of trainer.max_time is up" in done.out
    assert {"val/loss", "test/accuracy", "best_epoch"} <= metrics.keys()
    assert "is finished" in train(f"run={newest().folder}").out


def test_a_number_of_steps_is_a_reason_of_its_own(fit: Any) -> None:
    assert fit("trainer.max_steps=9").metrics["stopped_by"] == "max_steps"


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(finished: Any) -> None:
    run = finished
    contents = run.checkpoint()
    del contents["state_dict"]["network.head.bias"]
    torch.save(contents, run.folder / "checkpoints" / "last.ckpt")
    before = run.contents()
    with pytest.raises(ConfigError, match="its weights do not fit"):
        neurona.run([f"run={run.folder}", "trainer.max_epochs=3", "quiet=true"])
    assert run.contents() == before
