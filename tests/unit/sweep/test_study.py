"""Workers on one study: who runs which trial, and what becomes of those whose worker has died."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from neurona.errors import ConfigError
from neurona.sweep import study
from neurona.sweep.study import Worker

SETTINGS = {
    "study": "s",
    "storage": None,
    "metric": "val/loss",
    "direction": "minimize",
    "pruner": "none",
    "pruner_arguments": {},
}
SPACE = {"x": FloatDistribution(0.0, 1.0)}
COMPLETE, FAIL, PRUNED, RUNNING = TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING


@pytest.fixture(params=["journal", "database"])
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """A new worker of the sweep in ``tmp_path``, as a process of its own would make it."""
    url = None if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"

    with contextlib.ExitStack() as on_exit:

        def make(fixed: tuple[str, ...] = (), **settings: Any) -> Worker:
            return on_exit.enter_context(Worker(tmp_path, SETTINGS | {"storage": url} | settings, SPACE, fixed))

        yield make


def claim(worker: Worker, total: int = 9, points: float = 99) -> int | None:
    claimed = worker.claim(total, points, RandomSampler)
    return claimed and claimed[0]


def states(worker: Worker) -> list[TrialState]:
    return [trial.state for trial in worker.study.trials]


def test_trials_are_told_apart_and_counted(worker: Callable[..., Worker]) -> None:
    one, other = worker(), worker()
    assert [claim(one, 5), claim(other, 5), claim(one, 5), claim(other, 5), claim(one, 5)] == [0, 1, 2, 3, 4]
    assert claim(one, 5) is claim(other, 5) is None
    one.tell(0, {"status": "finished", "val/loss": 0.25})
    other.tell(1, {"status": "pruned", "val/loss": 7.0})
    one.tell(2, {"status": "failed", "error": "the loss became nan"})
    other.tell(3, {"status": "finished", "val/loss": None})
    assert states(one) == [COMPLETE, PRUNED, FAIL, FAIL, RUNNING]
    assert [trial.user_attrs.get("error") for trial in one.study.trials[1:4]] == [
        None,
        "the loss became nan",
        "no val/loss",
    ]
    assert one.best is not None
    assert (one.best.number, one.best.value) == (0, 0.25)
    assert [claim(other, 5), claim(one, 5), claim(one, 5)] == [5, 6, None]  # for the two that failed


def test_a_search_of_failures_ends(worker: Callable[..., Worker]) -> None:
    one = worker()
    for number in range(10):
        assert claim(one, 3) == number
        one.tell(number, {"status": "failed", "error": "no"})
    assert claim(one, 3) is None
    assert one.best is None


def test_a_grid_ends_with_its_points(worker: Callable[..., Worker]) -> None:
    one = worker()
    assert [claim(one, points=2), claim(one, points=2), claim(one, points=2)] == [0, 1, None]


def test_what_was_interrupted_is_for_the_next_worker(worker: Callable[..., Worker]) -> None:
    one, other = worker(), worker()
    params = one.claim(9, 99, RandomSampler)
    one.tell(0, {"status": "interrupted"})
    assert claim(one) == 1
    assert other.claim(9, 99, RandomSampler) == params
    assert states(one) == [RUNNING, RUNNING]


def test_a_killed_workers_trial_is_run_again(worker: Callable[..., Worker], tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from optuna.samplers import RandomSampler
from optuna.distributions import FloatDistribution
from neurona.sweep.study import Worker
one = Worker(Path({str(tmp_path)!r}), {worker().settings!r}, {{"x": FloatDistribution(0.0, 1.0)}}, ())
one.claim(9, 99, RandomSampler), one.claim(9, 99, RandomSampler)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == -9
    one, other = worker(), worker()
    drawn = [trial.params for trial in one.study.trials]
    assert [one.claim(9, 99, RandomSampler), other.claim(9, 99, RandomSampler)] == [(0, drawn[0]), (1, drawn[1])]
    assert claim(one) == 2


def test_a_line_of_the_journal_that_was_cut_short_is_taken_off(tmp_path: Path) -> None:
    with Worker(tmp_path, SETTINGS, SPACE, ()) as one:
        assert claim(one) == 0
        one.tell(0, {"status": "finished", "val/loss": 0.25})
    with (tmp_path / "study.journal").open("a") as journal:
        journal.write('{"op_code": 4, "wor')
    for number in (1, 2):
        with Worker(tmp_path, SETTINGS, SPACE, ()) as other:
            assert claim(other) == number
            other.tell(number, {"status": "finished", "val/loss": 0.5})
            assert states(other) == [COMPLETE] * (number + 1)


def test_a_database_without_a_shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a worker elsewhere is not to be seen: its heartbeat counts."""
    settings = SETTINGS | {"storage": f"sqlite:///{tmp_path}/study.db"}
    with Worker(tmp_path / "a", settings, SPACE, ()) as here, Worker(tmp_path / "b", settings, SPACE, ()) as there:
        assert [claim(here), claim(there)] == [0, 1]
        monkeypatch.setattr(there._storage, "grace_period", -1)
        assert claim(there) == 2
        assert states(there) == [FAIL, FAIL, RUNNING]
        here.tell(0, {"status": "finished", "val/loss": 1.0})  # too late
        assert states(there)[0] == FAIL


def test_another_search_is_refused(worker: Callable[..., Worker]) -> None:
    worker(fixed=("data=iris",))
    worker(fixed=("data=iris",))
    for change, problem in (
        ({"fixed": ("data=wine",)}, "data=iris, not data=wine"),
        ({"metric": "val/auroc"}, "metric"),
        ({"study": "other"}, "whose study is s, not other"),
        ({"storage": "sqlite:///elsewhere.db"}, "whose storage is .*, not sqlite:///elsewhere.db"),
    ):
        with pytest.raises(ConfigError, match=problem):
            worker(**{"fixed": ("data=iris",)} | change)


def test_a_metric_that_the_runs_lack(worker: Callable[..., Worker]) -> None:
    one = worker()
    claim(one)
    with pytest.raises(ConfigError, match="they have val/accuracy"):
        one.tell(0, {"status": "finished", "val/accuracy": 1.0})
    assert states(one) == [FAIL]


def test_secrets_stay_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_URL", f"sqlite:///{tmp_path}/secret.db")
    Worker(tmp_path, SETTINGS | {"storage": "${oc.env:STUDY_URL}"}, SPACE, ())
    assert (tmp_path / "secret.db").exists()
    assert "secret" not in (tmp_path / "search.yaml").read_text()
    monkeypatch.setenv("STUDY_URL", "sqlite:////nowhere/secret.db")
    with pytest.raises(ConfigError, match=r"oc\.env") as refused:
        Worker(tmp_path, SETTINGS | {"storage": "${oc.env:STUDY_URL}"}, SPACE, ())
    assert "secret" not in str(refused.value)


def test_only_a_run_that_is_waited_for_reports(worker: Callable[..., Worker], tmp_path: Path) -> None:
    one = worker(pruner="median", pruner_arguments={"n_startup_trials": 1})
    assert study.reporter(tmp_path / "0") is None
    runs: list[tuple[float, ...]] = [(3.0, 2.0), (3.0, 1.0), (4.0,)]
    for number, values in enumerate(runs):
        claim(one)
        reporter = study.reporter(tmp_path / str(number))
        assert reporter is not None
        verdicts = [reporter.is_hopeless(value, epoch) for epoch, value in enumerate(values)]
        assert verdicts == ([False, False] if number < 2 else [True])
        one.tell(number, {"status": "finished" if number < 2 else "pruned", "val/loss": values[-1]})
    assert one.study.trials[2].intermediate_values == {0: 4.0}
    assert study.reporter(tmp_path / "2") is None
