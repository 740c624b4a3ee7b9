"""A tracker's run is one run's, from its beginning to its end, and goes on where that does.

Lightning's loggers write into stand-ins for the packages, which keep what they are told as W&B and MLflow do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import neurona
from neurona.errors import RunError
from neurona.inspection import trackers
from neurona.steps.diagnosis import NonFiniteLoss

SHORT = ("data=iris", "quiet=true", "inspect=none", "trainer.max_epochs=2")
DIVERGES = ("optimizer=sgd", "optimizer.lr=1e30")


class WandbRun:
    """One of W&B's: a process has one at a time, and whoever begins another gets that one."""

    def __init__(self, wandb: Any, id: str) -> None:
        self.wandb, self.id, self.name = wandb, id, id
        self.parameters: dict[str, Any] = {}
        self.figures: list[str] = []
        self.exit_codes: list[int] = []
        self.config = SimpleNamespace(update=lambda params, **_: self.parameters.update(params))

    def log(self, figures: dict[str, Any], **_: Any) -> None:
        assert self.wandb.run is self
        self.figures += figures

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)
        self.wandb.run = None


class MlflowClient:
    """MLflow's: runs by their ids, whose parameters keep their values."""

    runs: dict[str, Any]

    def __init__(self, uri: str) -> None: ...

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="1", lifecycle_stage="active")

    def create_run(self, experiment_id: str, tags: Any) -> Any:
        info = SimpleNamespace(run_id=f"run-{len(self.runs)}", experiment_id=experiment_id)
        self.runs[info.run_id] = SimpleNamespace(info=info, status=["RUNNING"], parameters={}, figures=[])
        return self.runs[info.run_id]

    def get_run(self, run_id: str) -> Any:
        if run_id not in self.runs:
            raise ValueError(f"Run '{run_id}' not found")
        return self.runs[run_id]

    def log_batch(self, run_id: str, params: Any = (), metrics: Any = ()) -> None:
        run = self.runs[run_id]
        for param in params:
            assert run.parameters.setdefault(param.key, param.value) == param.value, "changing values is not allowed"
        run.figures += [metric.key for metric in metrics]

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].status.append(status)

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id].status.append(status)


def module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(contents)
    return made


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its runs, by id: ``begun``."""
    begun: dict[str, WandbRun] = {}
    made: Any = module("wandb", run=None, begun=begun)

    def init(id: str | None, **_: Any) -> WandbRun:
        id = id or f"id-{len(begun)}"
        made.run = begun.setdefault(id, WandbRun(made, id))
        return made.run

    made.init = init
    for name, contents in (
        ("wandb.sdk", {}),
        ("wandb.sdk.lib", {"RunDisabled": type(None)}),
        ("wandb.wandb_run", {"Run": type(None)}),
    ):
        monkeypatch.setitem(sys.modules, name, module(name, **contents))
    monkeypatch.setitem(sys.modules, "wandb", made)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", True)
    return made


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Its runs, by id."""
    client = type("Client", (MlflowClient,), {"runs": {}})
    for name, contents in (
        ("mlflow", {"set_tracking_uri": lambda uri: None}),
        ("mlflow.tracking", {"MlflowClient": client}),
        ("mlflow.entities", {"Param": SimpleNamespace, "Metric": SimpleNamespace}),
    ):
        monkeypatch.setitem(sys.modules, name, module(name, **contents))
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", True)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._get_resolve_tags", lambda: lambda tags: tags)
    return client.runs


def test_two_runs_in_one_process_are_two_of_wandbs_and_one_that_goes_on_is_one(wandb: Any) -> None:
    first, second = (neurona.run([*SHORT, "logger=wandb", f"seed={seed}"]) for seed in (1, 2))
    assert [run.parameters["seed"] for run in wandb.begun.values()] == [1, 2]
    for run in wandb.begun.values():
        assert ("test/accuracy" in run.figures, run.exit_codes) == (True, [0])
    neurona.run([f"run={second['folder']}", "trainer.max_epochs=3", "quiet=true"])
    assert len(wandb.begun) == 2
    one, other = wandb.begun.values()
    assert (one.exit_codes, other.exit_codes) == ([0], [0, 0])
    assert (one.parameters["max_epochs"], other.parameters["max_epochs"]) == (2, 3)
    assert first["folder"] != second["folder"]


def test_a_run_that_fails_has_its_parameters_and_ends(wandb: Any, mlflow: dict[str, Any]) -> None:
    with pytest.raises(NonFiniteLoss):
        neurona.run([*SHORT, "logger=[wandb,mlflow]", *DIVERGES])
    (of_wandb,), (of_mlflow,) = wandb.begun.values(), mlflow.values()
    assert (of_wandb.parameters["optimizer.lr"], of_wandb.exit_codes, wandb.run) == (1e30, [1], None)
    assert (of_mlflow.parameters["optimizer.lr"], of_mlflow.status[-1]) == ("1e+30", "FAILED")


@pytest.mark.filterwarnings("ignore:There is a wandb run already in progress")
def test_a_run_of_wandbs_that_was_there_before_stays_open(wandb: Any) -> None:
    mine = wandb.init(id="mine")
    done = neurona.run([*SHORT, "logger=wandb"])
    assert (wandb.run, mine.exit_codes) == (mine, [])
    assert "test/accuracy" in mine.figures
    assert not Path(done["folder"], trackers.FILE).exists()


def test_mlflow_goes_on_with_its_run_whose_parameters_stay(mlflow: dict[str, Any]) -> None:
    folder = neurona.run([*SHORT, "logger=mlflow"])["folder"]
    assert trackers.of_run(Path(folder)) == {"mlflow": {"run_id": "run-0"}}
    neurona.run([f"run={folder}", "trainer.max_epochs=3", "quiet=true"])
    (run,) = mlflow.values()
    assert run.figures.count("test/accuracy") == 2
    assert run.parameters["max_epochs"] == "2"
    assert "RUNNING" in run.status[1:]
    assert run.status[-1] == "FINISHED"
    mlflow.clear()
    with pytest.raises(RunError, match=r"^logger.mlflow: MLflow run run-0 cannot be continued .*trackers.json"):
        neurona.run([f"run={folder}", "trainer.max_epochs=4", "quiet=true"])
    Path(folder, trackers.FILE).unlink()  # the remedy
    neurona.run([f"run={folder}", "trainer.max_epochs=4", "quiet=true"])
    assert [run.parameters["max_epochs"] for run in mlflow.values()] == ["4"]


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"a": 1}', '{"a": {"id": 1}}', '{"a": {"id": "a/b"}}', '{"a": {"project": "x"}}']
)
def test_what_a_file_has_else_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / trackers.FILE).write_text(text)
    assert trackers.of_run(tmp_path) == {}
