"""Sweeps: each job a process of its own, its folder telling what became of it; nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky import get_reusable_executor

from neurona.cli import command
from neurona.runs.folder import is_held
from neurona.sweep import launcher

TRAIN = Path(__file__).parents[2] / "train.py"
SWEEP = ["-m", "data=iris", "trainer.max_epochs=2"]
TIMED = ("seconds", "samples_per_second")

MODULE = """
import gc, multiprocessing, os, signal, time
from pathlib import Path
from lightning.pytorch import Callback


class Breaks(Callback):
    '''Does, once in a working folder, what ``how`` says, at the end of an epoch.'''

    def __init__(self, *, how: str, epoch: int = 3) -> None:
        self.how, self.epoch = how, epoch
        assert gc.isenabled()  # it is off in the process that jobs are forked from
        Path(f"gpu {how}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        if how in ("hang", "hang on"):
            if how == "hang on":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch < self.epoch or Path(self.how).exists():
            return
        if self.how == "nothing":
            return
        Path(self.how).touch()
        launcher = multiprocessing.parent_process().pid
        if self.how == "raise":
            raise ValueError("the loss is a fish\\nof the sea")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(0)
        if self.how == "launcher":
            os.kill(launcher, signal.SIGKILL)
        if self.how == "group":
            os.killpg(launcher, signal.SIGKILL)
        if self.how in ("SIGINT", "SIGTERM"):
            os.kill(launcher, getattr(signal, self.how))
        time.sleep(0.5)
"""
BREAKS = ["allow=[breaks]", "+trainer.callbacks.breaks._target_=breaks.Breaks"]


@pytest.fixture(autouse=True)
def breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def how(*kinds: str) -> str:
    return f"+trainer.callbacks.breaks.how={','.join(kinds)}"


def states(sweep: Path | str) -> dict[str, str]:
    files = sorted(Path(sweep).glob("*/metrics.json"))
    return {file.parent.name.split("_")[0]: json.loads(file.read_text())["status"] for file in files}


def folders(sweep: Path | str) -> list[str]:
    return sorted(path.name for path in Path(sweep).iterdir() if path.is_dir() and path.name != "sweep_configs")


def logs(sweep: Path | str) -> list[str]:
    return sorted(path.name for path in Path(sweep).glob("*.log"))


def figures(run: Any) -> dict[str, Any]:
    return {name: value for name, value in run.metrics.items() if name not in TIMED}


def test_each_job_has_its_folder(train: Any, read_run: Any, fit: Any) -> None:
    done = train(*SWEEP, "seed=0,1")
    assert (done.status, done.err) == (0, "")
    (sweep,) = Path("logs/iris").iterdir()
    assert folders(sweep) == ["0_seed0", "1_seed1"]
    assert logs(sweep) == []
    runs = [read_run(sweep / name) for name in folders(sweep)]
    assert [run.read("provenance.json")["seed"] for run in runs] == [0, 1]
    assert [run.weights("best") for run in runs] == [fit(f"seed={seed}").weights("best") for seed in (0, 1)]
    for run in runs:
        assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["best.ckpt"]
        assert "test accuracy" in (run.folder / "train.log").read_text()

    before = {run.folder: run.contents() for run in runs}
    assert train(*SWEEP, "seed=0,1,2", f"hydra.sweep.dir={sweep}").status == 0
    assert {run.folder: run.contents() for run in runs} == before
    assert states(sweep) == {"0": "finished", "1": "finished", "2": "finished"}
    assert folders(sweep) == ["0_seed0", "1_seed1", "2_seed2"]

    done = train("stage=test", f"run={sweep}/1")
    assert f"; did you mean {sweep}/1_seed1?" in done.err
    done = train("stage=test", f"run={runs[1].folder}")
    assert done.status == 0, done.err
    assert runs[1].read("metrics_test.json")["test/loss"] == runs[1].metrics["test/loss"]


def test_failures_leave_the_others_alone_and_are_taken_up_again_if_asked(
    train: Any, read_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jobs at a time, and with them the threads of each, are another number when they are taken up again."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    arguments = ["-m", "data=iris", "model.hidden=[1024,1024]", "trainer=cpu", "trainer.max_epochs=6", "logger=none"]
    arguments += [*BREAKS, how("nothing", "raise", "kill", "exit"), "hydra.sweep.dir=sweep"]
    share = max(1, launcher._cores() // 2)

    done = train(*arguments, "hydra.launcher.jobs=2")
    assert (done.status, done.err) == (1, "")
    assert states("sweep") == {"0": "finished", "1": "failed", "2": "failed", "3": "failed"}
    runs = [read_job("sweep", number) for number in range(4)]
    assert [run.metrics.get("error") for run in runs] == [
        None,
        "the loss is a fish",
        "was killed by SIGKILL; the machine may have run out of memory",
        "ended with status 0",
    ]
    assert logs("sweep") == ["1.log", "2.log", "3.log"]
    assert "of the sea" in Path("sweep/1.log").read_text()
    assert [run.read("provenance.json")["hardware"]["threads"] for run in runs] == [share] * 4
    assert {Path("gpu nothing").read_text(), Path("gpu raise").read_text()} == {"5", "7"}

    before = [run.contents() for run in runs]
    assert train(*arguments).status == 1
    assert train(*arguments, "optimizer.lr=0.1").err.startswith("hydra.sweep.dir=sweep/0_nothing: was begun with ")
    assert [run.contents() for run in runs] == before

    done = train("run=sweep/1_raise", BREAKS[0], "quiet=true")
    assert done.err.startswith("trainer.callbacks.breaks.how=raise: is stored with the run")
    assert train("run=sweep/1_raise", BREAKS[0], "quiet=true", "trainer.callbacks.breaks.how=raise").status == 0
    assert train(*arguments, "retry_failed=true", "hydra.launcher.jobs=1").status == 0
    assert set(states("sweep").values()) == {"finished"}
    assert logs("sweep") == []
    assert [figures(run) for run in runs] == [figures(runs[0])] * 4
    assert [run.weights("best") for run in runs] == [runs[0].weights("best")] * 4
    for run in runs[1:]:
        lines = [line for line in (run.folder / "train.log").read_text().splitlines() if line.startswith("device ")]
        assert lines[-1].endswith(f", {share} thread{'s' * (share > 1)}")


@pytest.mark.long
def test_a_job_that_hangs_is_ended(train: Any, read_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that ignores SIGTERM; both hang before they are a run."""
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 0.5)
    arguments = [
        *SWEEP,
        *BREAKS,
        how("hang", "hang on"),
        "hydra.launcher.jobs=2",
        "hydra.launcher.timeout_minutes=0.04",
    ]
    assert train(*arguments, "hydra.sweep.dir=sweep").status == 1
    figures_of_jobs = [read_job("sweep", number).metrics for number in range(2)]
    late = {"stage": "fit", "status": "failed", "error": "took longer than hydra.launcher.timeout_minutes=0.04"}
    assert figures_of_jobs == [late, late]


def test_a_mistake_that_a_job_makes_can_end_the_sweep(train: Any, fit: Any, read_job: Any) -> None:
    arguments = [*SWEEP, "model.hidden=[0],[8],[9]", "hydra.launcher.jobs=1", "hydra.sweep.dir=sweep"]
    done = train(*arguments, "hydra.launcher.fail_fast=true")
    assert done.status == 1
    assert "job 0 has failed, which ended the sweep (hydra.launcher.fail_fast): model.hidden=[0]" in done.err
    assert folders("sweep") == ["0_hidden0"]
    error = read_job("sweep", 0).metrics["error"]
    assert error.startswith("model.hidden=[0]")
    assert Path("sweep/0.log").read_text() == f"{error}\n"

    assert train(*arguments).status == 1
    assert states("sweep") == {"0": "failed", "1": "finished", "2": "finished"}
    assert read_job("sweep", 2).weights("best") == fit("model.hidden=[9]").weights("best")


DISTURBED = ["-m", "data=iris", "trainer.max_epochs=9", "model.dropout=0.2", "logger=none", *BREAKS]


def assert_undisturbed(sweep: Path | str, jobs: str, fit: Any, read_job: Any) -> None:
    """That all jobs came to what a run of its own does."""
    assert states(sweep) == dict.fromkeys(jobs, "finished")
    assert logs(sweep) == []
    undisturbed = fit("trainer.max_epochs=9", "model.dropout=0.2", "logger=none")
    for number in jobs:
        job = read_job(sweep, int(number))
        assert figures(job) == figures(undisturbed)
        assert job.weights("best") == undisturbed.weights("best")


@pytest.mark.long
def test_a_sweep_that_is_interrupted_goes_on(train: Any, fit: Any, read_job: Any) -> None:
    """By Ctrl-C and by SIGTERM. Each job disturbs the sweep once."""
    arguments = [*DISTURBED, how("SIGINT", "SIGTERM"), "hydra.launcher.jobs=1"]
    done = train(*arguments)
    assert (done.status, done.err) == (130, "")
    (sweep,) = map(str, Path("logs/iris").iterdir())
    assert states(sweep) == {"0": "interrupted"}
    done = train(*arguments, f"hydra.sweep.dir={sweep}")
    assert (done.status, done.err) == (143, "")
    assert states(sweep) == {"0": "finished", "1": "interrupted"}
    again = shlex.split(done.out.splitlines()[-1].removeprefix("to continue: python train.py "))
    assert again == [*arguments, f"hydra.sweep.dir={sweep}"]
    assert train(*again).status == 0
    assert_undisturbed(sweep, "01", fit, read_job)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="has no process groups")
def test_a_sweep_that_is_killed_goes_on(train: Any, fit: Any, read_job: Any) -> None:
    """The launcher with -9, then all of its process group. Each job disturbs the sweep once."""
    arguments = [*DISTURBED, how("launcher", "group"), "hydra.launcher.jobs=1"]
    sweep = ""
    for job in (0, 1):
        command = [sys.executable, str(TRAIN), *arguments, *([f"hydra.sweep.dir={sweep}"] if sweep else [])]
        path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
        # In a session of its own, for the group that is to be killed.
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, start_new_session=True, timeout=120)
        assert done.returncode == -signal.SIGKILL
        (sweep,) = map(str, Path("logs/iris").iterdir())
        deadline = time.monotonic() + 60
        while is_held(read_job(sweep, job).folder):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert states(sweep) == {**dict.fromkeys(map(str, range(job)), "finished"), str(job): "interrupted"}
    assert train(*arguments, f"hydra.sweep.dir={sweep}").status == 0
    assert_undisturbed(sweep, "01", fit, read_job)


def test_another_launcher_keeps_the_same_folders_and_states(train: Any, read_job: Any) -> None:
    arguments = ["-m", "data=iris", "trainer.max_epochs=5", "logger=none", *BREAKS, how("raise", "nothing")]
    arguments += ["hydra.sweep.dir=sweep"]
    assert train(*arguments, "hydra/launcher=basic").status == 1
    assert states("sweep") == {"0": "failed", "1": "finished"}
    before = read_job("sweep", 1).contents()
    assert train(*arguments, "retry_failed=true").status == 0
    assert states("sweep") == {"0": "finished", "1": "finished"}
    assert read_job("sweep", 1).contents() == before
    assert read_job("sweep", 0).weights("best") == read_job("sweep", 1).weights("best")
    assert train(*arguments, "hydra/launcher=basic").status == 0


@pytest.mark.long
def test_joblib_leaves_what_was_killed_to_be_continued(train: Any, read_job: Any) -> None:
    arguments = ["-m", "data=iris", "trainer.max_epochs=5", "logger=none", *BREAKS, how("raise", "nothing", "kill")]
    arguments += ["hydra.sweep.dir=sweep", "hydra/launcher=joblib"]
    get_reusable_executor().shutdown()  # whose processes another test may have left in its own working folder
    done = train(*arguments, how("raise", "nothing"))
    assert done.status == 1
    done = train(*arguments)
    assert (done.status, done.err) == (1, f"{command.KILLED}\n")
    assert "to continue: python train.py -m data=iris" in done.out
    assert states("sweep") == {"0": "failed", "1": "finished", "2": "running"}
    before = read_job("sweep", 1).contents()
    done = train(*arguments, "retry_failed=true")
    assert done.status == 0, done.err
    assert states("sweep") == {"0": "finished", "1": "finished", "2": "finished"}
    assert read_job("sweep", 1).contents() == before
    assert read_job("sweep", 0).weights("best") == read_job("sweep", 1).weights("best")


@pytest.mark.long
def test_jobs_of_two_processes_each(train: Any, read_job: Any, fit: Any) -> None:
    done = train(*SWEEP, "trainer=ddp_cpu", "trainer.devices=2", "seed=0,1", "hydra.sweep.dir=sweep")
    assert (done.status, done.err) == (0, "")
    rows = [line.split()[:3] for line in done.out.splitlines()]
    assert all([str(seed), f"seed={seed}", "finished"] in rows for seed in (0, 1))
    assert folders("sweep") == ["0_seed0", "1_seed1"]
    assert states("sweep") == {"0": "finished", "1": "finished"}
    for seed in (0, 1):
        run, alone = read_job("sweep", seed), fit(f"seed={seed}")
        assert run.read("provenance.json")["seed"] == seed
        assert run.metrics["steps"] == alone.metrics["steps"]
        assert run.metrics["test/loss"] == pytest.approx(alone.metrics["test/loss"], abs=1e-5)


BAD = {
    "seed=range(3,3)": "gives no job",
    "seed=0,,1": "cannot be read",
    "model.dropout=interval(0,1)": "is for a search: add sweep=optuna",
    "hydra.sweep.dir=breaks.py": "cannot be made",
    "model.hiden=[3],[4]": "did you mean model.hidden?",
    "hydra.launcher.jobs=0": "hydra.launcher.jobs=0: must be 1 or more",
    "hydra.launcher.jobs=abc": "hydra.launcher.jobs=abc: must be 1 or more",
    "hydra.launcher.timeout_minutes=0": "hydra.launcher.timeout_minutes=0: must be above 0",
    "hydra.launcher.job=2": "did you mean hydra.launcher.jobs?",
    "hydra.sweep.subdir=a": "the sweep names the folders",
    "hydra.sweep.dir=": "must name a folder",
    "data=irs": "did you mean iris?",
    "run=logs/0": "cannot be used in a sweep",
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_answered_before_the_first_job(train: Any, mistake: str) -> None:
    done = train(*SWEEP, "optimizer.lr=0.1,0.2", mistake)
    assert (done.status, done.out) == (2, "")
    assert BAD[mistake] in done.err
    assert len(done.err.splitlines()) == 1
    assert {path.name for path in Path().iterdir()} <= {"breaks.py", "logs"}
    assert not list(Path("logs").rglob("*"))


def test_the_folder_of_a_run_or_of_a_sweep_is_left_alone(train: Any, fit: Any) -> None:
    run = fit("folder=logs/run")
    contents = run.contents()
    done = train(*SWEEP, "seed=0,1", "hydra.sweep.dir=logs/run")
    assert (done.status, "is a run's folder" in done.err) == (2, True)
    assert train(*SWEEP, "seed=0,1", "quiet=true", "hydra/launcher=basic", "hydra.sweep.dir=sweep").status == 0
    before = {path: path.read_bytes() for path in Path("sweep").rglob("*") if path.is_file()}
    search = ["-m", "sweep=optuna", "data=iris", "model.activation=relu,tanh", "hydra/launcher=basic"]
    done = train(*search, "hydra.sweep.dir=sweep")
    assert (done.status, "holds a sweep that is not a search" in done.err) == (2, True)
    assert {path: path.read_bytes() for path in Path("sweep").rglob("*") if path.is_file()} == before
    assert run.contents() == contents


@pytest.mark.skipif(find_spec("submitit") is not None, reason="submitit is installed")
def test_a_launcher_that_is_not_installed(train: Any) -> None:
    done = train(*SWEEP, "seed=0,1", "hydra/launcher=submitit_slurm")
    assert done.status == 2
    assert "is not installed; pip install -c constraints.txt -e '.[slurm]'" in done.err
