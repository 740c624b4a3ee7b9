"""What is decided of a composed configuration before its stage begins."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.types import RunMode

from neurona.errors import ConfigError
from neurona.stages import job


@pytest.fixture
def hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Hydra's own node, of a job of a sweep; the stage returns the configuration that it is executed with."""
    runtime = SimpleNamespace(choices={"data": "iris"}, output_dir=str(tmp_path / "0"))
    node = SimpleNamespace(mode=RunMode.MULTIRUN, runtime=runtime)
    monkeypatch.setattr(job.HydraConfig, "get", lambda: node)
    monkeypatch.setattr(job, "task_overrides", lambda hydra: ["data=iris"])
    monkeypatch.setattr("neurona.stages.execute.execute", lambda cfg, *_: {"cfg": cfg})
    yield node
    gc.unfreeze()


def test_the_jobs_of_a_sweep_are_fits(composed: Any, hydra: Any) -> None:
    with pytest.raises(ConfigError, match=r"^stage=test: cannot be used in a sweep"):
        job.run(composed({"stage": "test"}), [])


@pytest.mark.parametrize(("keep_last", "kept"), [(None, False), (True, True)])
def test_a_job_has_its_folder_and_keeps_its_best_checkpoint_alone(
    composed: Any, hydra: Any, tmp_path: Path, keep_last: bool | None, kept: bool
) -> None:
    figures = job.run(composed({"trainer.callbacks.checkpoints.keep_last": keep_last}), [])
    assert figures is not None
    assert figures["cfg"].folder == str(tmp_path / "0")
    assert figures["cfg"].trainer.callbacks.checkpoints.keep_last is kept
    assert gc.isenabled()


def test_a_job_that_is_over_is_left_as_it_is(composed: Any, hydra: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.jobs, "take_up", lambda *_: {"status": "finished"})
    assert job.run(composed({}), []) == {"status": "finished"}


def test_a_run_of_its_own_is_no_job_of_a_sweep(composed: Any, hydra: Any) -> None:
    hydra.mode = RunMode.RUN
    figures = job.run(composed({"stage": "test"}), [])
    assert figures is not None
    assert figures["cfg"].folder is None


def test_of_several_processes_this_one_starts_them(composed: Any, hydra: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(job.processes, "count", lambda cfg: 3)
    monkeypatch.setattr(job.processes, "run", lambda number, *_: started.append(number))
    assert job.run(composed({}), []) is None
    assert started == [3]
