"""Signals wherever they hit, in and out of Slurm; jobs that their scheduler starts again."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import forked

import neurona
from neurona.classifier import Classifier
from neurona.data.iris import Iris
from neurona.devices import preemption
from neurona.devices.preemption import Preemption
from neurona.steps import ways
from neurona.steps.fast import FastWay

pytestmark = pytest.mark.usefixtures("_every_epoch")

# 6 mini-batches an epoch, 3 to a step; a validation of 4 mini-batches an epoch, in the middle of a step.
SETTINGS = [
    "data=iris",
    "data.batch_size=15",
    "data.val_fraction=0.2",
    "data.eval_batch_size=8",
    "model.dropout=0.2",
    "optimizer.accumulate=3",
    "optimizer/schedule=plateau",
    "trainer.val_check_interval=4",
    "trainer.max_epochs=3",
    "logger=none",
    "quiet=true",
]
TRAIN = Path(__file__).parents[2] / "train.py"
TIMED = ("seconds", "samples_per_second")


@pytest.fixture(autouse=True)
def _no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, newest: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("uninterrupted"))
        neurona.run(SETTINGS)
        return newest()


def ended_by(
    number: int, kind: type, method: str, call: int = 0, times: int = 1, overrides: list[str] = SETTINGS
) -> Any:
    """The exit status of a run to which this process sends a signal at the end of that call of a method."""
    original, count = getattr(kind, method), 0

    def sending(self: Any, *arguments: Any) -> Any:
        nonlocal count
        result = original(self, *arguments)
        count += 1
        if count == call + 1:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return result

    before = [signal.getsignal(number) for number in preemption.SIGNALS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, method, sending)
        with pytest.raises((SystemExit, KeyboardInterrupt)) as end:
            neurona.run(overrides)
    assert [signal.getsignal(number) for number in preemption.SIGNALS] == before
    return end.value.code if isinstance(end.value, SystemExit) else end.type


def assert_same_run(run: Any, reference: Any) -> None:
    assert run.weights("last") == reference.weights("last")
    assert run.weights("best") == reference.weights("best")
    ours, theirs = run.metrics, reference.metrics
    assert {k: v for k, v in ours.items() if k not in TIMED} == {k: v for k, v in theirs.items() if k not in TIMED}


@pytest.mark.parametrize(
    ("interval", "chunked", "steps"),
    [(4, True, [2, 2, 4, 4]), (4, False, [1, 1, 1, 2, 2, 2]), (3, True, [1, 2, 3, 4])],
)
def test_a_fit_ends_at_a_whole_step_that_no_validation_follows_and_is_continued_exactly(
    newest: Any, monkeypatch: pytest.MonkeyPatch, interval: int, chunked: bool, steps: list[int]
) -> None:
    """After each of the first batches: chunks of two epochs, or the single mini-batches of one.

    interval: of validations, where chunks end too; steps: those of the checkpoints.
    """
    overrides = [*SETTINGS, f"trainer.val_check_interval={interval}"]
    if not chunked:
        monkeypatch.setattr(ways, "asked_by", lambda *_: ["a test"])
    neurona.run(overrides)
    uninterrupted, saved_steps = newest(), []
    for batch in range(len(steps)):
        assert ended_by(signal.SIGTERM, Classifier, "training_step", batch, overrides=overrides) == 143
        run = newest()
        assert (run.metrics["status"], run.metrics["error"]) == ("interrupted", "SIGTERM")
        saved_steps.append(run.checkpoint()["global_step"])
        neurona.run([f"run={run.folder}", "quiet=true"])
        assert_same_run(run, uninterrupted)
    assert saved_steps == steps


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.val_fraction=0", "trainer.max_steps=40"],
        ["trainer.max_steps=10"],
        ["trainer.max_steps=10", "trainer.callbacks.checkpoints.every_n_steps=10"],
        ["trainer.val_check_interval=0.25", "trainer.callbacks.early_stopping.patience=1", "optimizer.lr=0.9"],
    ],
    ids=str,
)
def test_a_signal_at_the_last_step_of_a_fit_that_ends_in_mid_epoch_loses_nothing(
    newest: Any, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    """After each of the last two chunks, short epochs sharing a checkpoint as they do."""
    monkeypatch.setattr("neurona.callbacks.save_timer.PAUSE_SECONDS", 3600.0)
    overrides = ["data=iris", "data.batch_size=8", "trainer.max_epochs=5", "logger=none", "quiet=true", *overrides]
    chunks = []
    record = FastWay._record
    with monkeypatch.context() as patch:
        patch.setattr(FastWay, "_record", lambda self, records: chunks.append(record(self, records)))
        neurona.run(overrides)
    uninterrupted = newest()
    for batch in range(max(0, len(chunks) - 2), len(chunks)):
        assert ended_by(signal.SIGTERM, Classifier, "training_step", batch, overrides=overrides) == 143
        neurona.run([f"run={newest().folder}", "quiet=true"])
        assert_same_run(newest(), uninterrupted)


def test_without_validation_the_best_is_the_last_that_an_epoch_ended_with(
    newest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurona.callbacks.save_timer.PAUSE_SECONDS", 3600.0)
    overrides = ["data=iris", "data.val_fraction=0", "trainer.max_epochs=9", "logger=none", "quiet=true"]
    assert ended_by(signal.SIGTERM, Classifier, "training_step", 5, overrides=overrides) == 143
    run = newest()
    remembered = run.checkpoint("last")["callbacks"]["BestAndLast"]["best"]
    assert run.checkpoint("best")["global_step"] == remembered["step"]


def test_a_failure_after_a_signal_is_called_by_its_name(newest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("the loss is a fish")

    monkeypatch.setattr(Classifier, "training_step", fail)
    with pytest.raises(RuntimeError, match="fish"):
        neurona.run(SETTINGS)
    assert (newest().metrics["status"], newest().metrics["error"]) == ("failed", "the loss is a fish")


@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 4), (-1.0, 2)])
def test_a_validation_that_takes_long_is_cut_off(
    uninterrupted: Any, newest: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int
) -> None:
    """In the validation of the second epoch: it ends, and with it the step and the epoch; or step 2 is the last."""
    monkeypatch.setattr(preemption, "VALIDATION_SECONDS", seconds)
    assert ended_by(signal.SIGTERM, Classifier, "validation_step", 5) == 143
    run = newest()
    assert run.checkpoint()["global_step"] == steps
    neurona.run([f"run={run.folder}", "quiet=true"])
    assert_same_run(run, uninterrupted)


def test_a_second_ctrl_c_stops_at_once(newest: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert ended_by(signal.SIGINT, Classifier, "training_step", 3, times=2) is KeyboardInterrupt
    assert newest().checkpoint()["global_step"] == 2
    assert newest().metrics["status"] == "interrupted"
    assert "stopping at the next step; Ctrl-C again stops at once" in capfd.readouterr().err
    assert ended_by(signal.SIGINT, Classifier, "training_step", 3) is KeyboardInterrupt
    assert newest().checkpoint()["global_step"] == 4


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR2, 143), (signal.SIGINT, 130)])
def test_while_data_are_read_a_signal_ends_the_command_at_once(
    train: Any, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    monkeypatch.setattr(Iris, "read", lambda self: os.kill(os.getpid(), number))
    done = train("data=iris")
    assert (done.status, done.out, done.err) == (status, "", "")
    assert not Path("logs").exists()


PACKED = """
import runpy, sys
from neurona.tables import reading

scan = reading._scan_csv

def scanning(*arguments):
    print("reads", flush=True)
    return scan(*arguments)

reading._scan_csv = scanning
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 143), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_while_a_library_reads_data_a_signal_ends_the_command(tmp_path: Path, number: int, status: int) -> None:
    """Polars, which unpacks 22 MB to 3 GB and does not hear of signals meanwhile, nor does Python."""
    rows = gzip.compress(b"1,a\n2,b\n" * 2**20)
    Path("rows.csv.gz").write_bytes(gzip.compress(b"x,y\n") + rows * (22 * 2**20 // len(rows)))
    with forked(tmp_path, "-c", PACKED, str(TRAIN), "data=table", "data.path=rows.csv.gz", "data.target=y") as process:
        deadline = time.monotonic() + 60
        while not (process.out.exists() and process.out.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        started = time.monotonic()
        assert process.process.pid
        os.kill(process.process.pid, number)
        assert process.wait() == status
    assert time.monotonic() - started < 4, process.err.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv.gz"]


def test_a_closed_terminal_ends_a_fit_as_a_preemption_does(uninterrupted: Any, newest: Any) -> None:
    assert ended_by(signal.SIGHUP, Classifier, "training_step") == 143
    assert newest().metrics["error"] == "SIGHUP"
    neurona.run([f"run={newest().folder}", "quiet=true"])
    assert_same_run(newest(), uninterrupted)


def test_during_the_test_a_signal_ends_the_run_at_once(uninterrupted: Any, newest: Any) -> None:
    assert ended_by(signal.SIGTERM, Classifier, "test_step") == 143
    run = newest()
    assert "test/loss" not in run.metrics
    neurona.run([f"run={run.folder}", "quiet=true"])
    assert_same_run(run, uninterrupted)
    assert ended_by(signal.SIGTERM, Classifier, "test_step", overrides=[f"run={run.folder}", "stage=test"]) == 143


def test_what_comes_after_the_last_step_is_not_lost(uninterrupted: Any, newest: Any) -> None:
    assert ended_by(signal.SIGTERM, Classifier, "on_train_end") == 143
    assert newest().metrics["status"] == "interrupted"
    neurona.run([f"run={newest().folder}", "quiet=true"])
    assert_same_run(newest(), uninterrupted)


def test_lightning_has_no_handlers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = []
    for method in ("training_step", "test_step"):
        original = getattr(Classifier, method)

        def noting(self: Any, *arguments: Any, original: Any = original) -> Any:
            handlers.extend(getattr(signal.getsignal(number), "__func__", None) for number in preemption.SIGNALS)
            return original(self, *arguments)

        monkeypatch.setattr(Classifier, method, noting)
    neurona.run(SETTINGS)
    assert set(handlers) == {Preemption._handle}


# Slurm.


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], str]:
    """Makes this a task of an array job, and gives what ``scontrol`` has been asked."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    # It sees a whole checkpoint: the run is asked to be started again after it has been written.
    scontrol.write_text(f'#!/bin/sh\necho "$@" $(ls logs/iris/*/checkpoints) >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    shutil.copy(scontrol, scontrol.with_name("srun"))  # of which Lightning would warn, as it is not used
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    for name, value in {"JOB_ID": "71", "ARRAY_JOB_ID": "70", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return lambda: (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_preempted_job_is_requeued_and_goes_on_with_its_run(
    uninterrupted: Any, newest: Any, slurm: Callable[[], str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert ended_by(number, Classifier, "training_step", 1) == 143
    assert slurm() == "requeue 70_3 best.ckpt last.ckpt\n"
    run = newest()
    assert run.checkpoint()["global_step"] == 2
    assert run.read("provenance.json")["job"] == "slurm 70_3"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    neurona.run([*SETTINGS, "seed=1"])  # another command of the same job
    assert len(list(Path("logs/iris").iterdir())) == 2
    neurona.run(SETTINGS)
    assert len(list(Path("logs/iris").iterdir())) == 2
    assert_same_run(run, uninterrupted)


def test_in_a_job_that_is_not_to_be_requeued_nothing_is_asked(slurm: Callable[[], str]) -> None:
    assert ended_by(signal.SIGTERM, Classifier, "training_step") == 143
    assert slurm() == ""


def test_a_job_whose_data_are_read_is_requeued_at_once(
    slurm: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ended_by(signal.SIGUSR1, Iris, "read") == 143
    assert slurm() == "requeue 70_3\n"


def test_a_restarted_job_that_had_finished_says_so(
    train: Any, newest: Any, slurm: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*SETTINGS[:-1], "tags=[mine]"]
    assert train(*overrides).status == 0
    before = newest().contents()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    done = train(*overrides)
    assert done.status == 0
    assert f"this job was restarted and continues its run logs/iris/{newest().folder.name}" in done.out
    assert "is finished" in done.out
    assert newest().contents() == before


def test_a_restarted_job_of_a_sweep_goes_on_in_its_folder(
    train: Any, read_job: Any, uninterrupted: Any, slurm: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = "trainer.callbacks.checkpoints.keep_last=true"
    overrides = ["-m", "hydra/launcher=basic", "hydra.sweep.dir=sweep", "seed=0,1", keep, *SETTINGS]
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_end", lambda self: os.kill(os.getpid(), signal.SIGUSR2))
        assert train(*overrides).status == 143
    run = read_job("sweep", 0)
    assert run.metrics["status"] == "interrupted"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert train(*overrides).status == 0
    folders = sorted(path.name for path in Path("sweep").iterdir() if path.is_dir())
    assert folders == ["0_seed0", "1_seed1", "sweep_configs"]
    assert_same_run(run, uninterrupted)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads process ids from /proc")
def test_all_processes_stop_at_one_step_whichever_gets_the_signal(read_run: Any, slurm: Callable[[], str]) -> None:
    overrides = ["data=digits", "trainer=ddp_cpu", "trainer.max_epochs=9999", "folder=logs/iris/run"]
    command = [sys.executable, str(TRAIN), *overrides]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not Path("logs/iris/run/checkpoints/previous.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(ranks[1]), signal.SIGUSR1)
        begun = time.monotonic()
        out, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5  # it takes half a second where nothing else is running
    assert (process.returncode, err) == (143, "")
    assert "Slurm has requeued job 70_3\ninterrupted; to continue: python train.py run=logs/iris/run\n" in out
    assert slurm().startswith("requeue 70_3 ")
    run = read_run("logs/iris/run")
    assert (run.metrics["status"], run.metrics["error"]) == ("interrupted", "SIGUSR1")
    assert run.metrics["steps"] == run.checkpoint()["global_step"]
