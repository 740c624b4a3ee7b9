"""Searches: any number of workers on one study, whatever becomes of them, and the command of the best trial."""

from __future__ import annotations

import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

TRAIN = Path(__file__).parents[2] / "train.py"
RATE = "optimizer.lr=tag(log, interval(1e-4, 1e-1))"
SEARCH = ["-m", "sweep=optuna", "data=iris", "trainer.max_epochs=2", "logger=none", "model.activation=relu,tanh", RATE]
HERE = [*SEARCH, "hydra/launcher=basic", "quiet=true"]
SWEEP = Path("logs", "s")
INTO = f"hydra.sweep.dir={SWEEP}"


def trials() -> list[FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(SWEEP / "study.journal")))
    return optuna.load_study(study_name=str(SWEEP), storage=storage).trials


def states() -> list[str]:
    return [trial.state.name for trial in trials()]


def printed(done: Any) -> str:
    """The command that trains with the best parameters."""
    (command,) = (line for line in done.out.splitlines() if line.startswith("python train.py "))
    assert (SWEEP / "best.txt").read_text().splitlines()[1] == command
    return command.removeprefix("python train.py ")


def test_a_search_goes_on_to_its_total_and_its_best_runs_as_printed(train: Any, read_job: Any, newest: Any) -> None:
    done = train(*HERE, "hydra.sweeper.trials=2", INTO, "optimizer=adamw")
    assert (done.status, done.err) == (0, "")
    first = [read_job(SWEEP, number).contents() for number in range(2)]
    named_otherwise = f"hydra.sweep.dir={SWEEP.absolute()}/"
    done = train(*HERE, "hydra.sweeper.trials=4", named_otherwise, "optimizer=adamw", "quiet=false")
    assert (done.status, done.err) == (0, "")
    assert [read_job(SWEEP, number).contents() for number in range(2)] == first
    assert states() == ["COMPLETE"] * 4
    for trial in trials():
        run = read_job(SWEEP, trial.number)
        assert run.metrics["val/loss"] == trial.value
        settings = OmegaConf.load(run.folder / "config.yaml")
        activation, rate = trial.params["model.activation"], trial.params["optimizer.lr"]
        assert (settings.model.activation, settings.optimizer.lr) == (activation, rate)
        assert run.folder.name == f"{trial.number}_{activation}_lr{float(rate):.4g}"
    best = min(trials(), key=lambda trial: trial.value or 9)
    assert f"best: trial {best.number}, val/loss {best.value:.6g}\n" in done.out
    assert f"# val/loss {best.value:.6g}, trial {best.number} of" in (SWEEP / "best.txt").read_text()
    done = train(*shlex.split(printed(done)), "quiet=true")
    assert (done.status, done.err) == (0, "")
    assert newest().metrics["val/loss"] == best.value


def test_a_space_of_ones_own(train: Any, newest: Any, read_job: Any) -> None:
    """Groups, an experiment's deltas, a folder of one's own and fixed values all reach the best trial's command."""
    Path("own", "sweep").mkdir(parents=True)
    Path("own", "optimizer").mkdir()
    Path("own", "optimizer", "slow.yaml").write_text("defaults: [adam]\nlr: 0.01\n")
    Path("own", "sweep", "mine.yaml").write_text(
        "# @package _global_\ndefaults: [optuna]\ntags: [mine]\nhydra:\n  sweeper:\n    trials: 4\n    sampler: grid\n"
        "    params: {model: 'linear,mlp', optimizer: 'slow,sgd', data: iris, seed: 7}\n"
    )
    done = train(
        "--config-dir", "own", "-m", "sweep=mine", "debug=fast", "seed=8", "logger=none", "hydra/launcher=basic", INTO
    )
    assert (done.status, done.err) == (0, "")
    assert sorted(tuple(trial.params.values()) for trial in trials()) == [
        (model, optimizer) for model in ("linear", "mlp") for optimizer in ("sgd", "slow")
    ]
    best = min(trials(), key=lambda trial: trial.value or 9)
    job = OmegaConf.load(read_job(SWEEP, best.number).folder / "config.yaml")
    assert (job.seed, job.tags, job.trainer.max_epochs) == (8, ["mine"], 1)
    done = train(*shlex.split(printed(done)), "quiet=true")
    assert (done.status, done.err) == (0, "")
    again = OmegaConf.load(newest().folder / "config.yaml")
    own = {"folder": again.folder, "quiet": True, "trainer": {"callbacks": {"checkpoints": {"keep_last": None}}}}
    assert again == OmegaConf.merge(job, own)


def test_a_trial_that_ended_before_it_was_a_run_keeps_its_folder(train: Any) -> None:
    (SWEEP / "0").mkdir(parents=True)
    for name in (".lock", "train.log", "metrics.json"):
        (SWEEP / "0" / name).write_text("{}")
    assert train(*HERE, "hydra.sweeper.trials=1", INTO).status == 0
    assert states() == ["COMPLETE"]
    assert [path.name for path in SWEEP.glob("0*")] == ["0"]


def test_failed_trials_are_replaced(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train(*HERE, "model.dropout=choice(0.1,1.5)", "hydra.sweeper.trials=2", INTO)
    counts = Counter(states())
    assert counts["COMPLETE"] == 2
    assert counts["FAIL"] > 0
    for trial in trials():
        failed = float(trial.params["model.dropout"]) == 1.5
        assert (trial.state.name == "FAIL") is failed
        assert ("1.5" in trial.user_attrs.get("error", "")) is failed
    monkeypatch.setattr("neurona.sweep.study.LEAST_FAILURES", 2)
    done = train(*HERE, "model.dropout=choice(1.5,2.5)", "hydra.sweeper.trials=2", "hydra.sweep.dir=logs/none")
    assert done.status == 1
    assert "no trial of logs/none has finished: model.dropout=" in done.err


def test_pruned_runs_are_marked(train: Any, read_job: Any) -> None:
    pruner = ["hydra.sweeper.pruner=median", "+hydra.sweeper.pruner_arguments.n_startup_trials=2"]
    rate = "optimizer.lr=tag(log, interval(1e-5, 1))"
    done = train(*HERE, *pruner, rate, "trainer.max_epochs=4", "hydra.sweeper.trials=6", INTO, "quiet=false")
    assert (done.status, done.err) == (0, "")
    counts = Counter(states())
    assert counts["PRUNED"] > 0
    assert counts["COMPLETE"] + counts["PRUNED"] == 6
    for trial in trials():
        run = read_job(SWEEP, trial.number)
        assert sorted(trial.intermediate_values) == list(range(run.metrics["epochs"]))
        if trial.state.name == "PRUNED":
            assert (run.metrics["status"], run.metrics["stopped_by"]) == ("pruned", "pruning")
            assert not any(name.startswith("test/") for name in run.metrics)
            assert run.metrics["epochs"] < 4
            before = [other for other in trials()[: trial.number] if other.state.name == "COMPLETE"]
            step = trial.last_step or 0
            median = statistics.median(other.intermediate_values[step] for other in before)
            assert min(trial.intermediate_values.values()) > median
        else:
            assert (run.metrics["status"], run.metrics["epochs"]) == ("finished", 4)
            assert min(trial.intermediate_values.values()) == trial.value


@pytest.mark.long
def test_workers_that_are_killed_lose_nothing(train: Any, tmp_path: Path) -> None:
    """Two at once, one of them killed during a trial and begun again: the trials are those of a search left alone."""
    search = [*SEARCH, "hydra.sweeper.sampler=random", "hydra.sweeper.trials=5", "trainer.max_epochs=20"]
    search += ["model.dropout=choice(1.5,0.1,0.2)"]  # 1.5 fails

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(TRAIN), *search, "hydra.launcher.jobs=1", INTO]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

    workers = [start(), start()]
    deadline = time.monotonic() + 60
    while not any(SWEEP.glob("[01]_*/metrics.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers[0].send_signal(signal.SIGKILL)
    workers.append(start())
    assert [worker.wait(120) for worker in workers] == [-9, 0, 0]
    begun = [file.read_text().count("network ") for file in SWEEP.glob("*/train.log")]
    assert len(begun) == 5
    assert sum(begun) <= 6  # one was begun again, unless it had come to its end
    ends = [(trial.state, trial.params, trial.value) for trial in trials()]
    SWEEP.rename("disturbed")
    train(*search, "hydra/launcher=basic", "quiet=true", INTO)
    assert ends == [(trial.state, trial.params, trial.value) for trial in trials()]
    assert Counter(states()) == {"COMPLETE": 5, "FAIL": len(ends) - 5}
    assert len(ends) > 5


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["model.activation=relu"], "has nothing to search"),
        (["model.activaton=relu,tanh"], "did you mean model.activation?"),
        (["optimizer=adam,adamm"], "did you mean adam?"),
        (["optimizer.lr=interval(1,0)"], "low <= high"),
        (["optimizer.lr=interval(0,1)", "hydra.sweeper.sampler=grid"], "sampler=grid needs"),
        (["seed=0,1", "hydra.sweeper.sampler=ranom"], "did you mean random?"),
        (["seed=0,1", "hydra.sweeper.pruner=mean"], "must be one of none, median"),
        (["seed=0,1", "+hydra.sweeper.sampler_arguments.x=1"], "unexpected keyword argument 'x'"),
        (["seed=0,1", "hydra.sweeper.metric=val/los"], "val/loss, val/accuracy"),
        (["seed=0,1", "hydra.sweeper.metric=val/auroc"], "direction=maximize"),
        (["seed=0,1", "hydra.sweeper.trials=0"], "must be 1 or more"),
        (["seed=0,1", "hydra.sweeper.storage=sqlite:////nowhere/s.db"], "unable to open database file"),
        (["seed=0,1", "hydra.sweeper.storage=study.db"], "hydra.sweeper.storage=study.db: cannot be used"),
    ],
)
def test_a_mistake_is_answered_before_the_first_job(train: Any, overrides: list[str], problem: str) -> None:
    done = train("-m", "sweep=optuna", "data=iris", *overrides)
    assert (done.status, done.out) == (2, "")
    assert len(done.err.strip().splitlines()) == 1
    assert problem in done.err
    assert not list(Path().rglob("metrics.json"))
    assert not list(Path().glob("logs/*/*"))
