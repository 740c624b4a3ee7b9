"""What is to be done with a job, by what its folder says."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from neurona.errors import ConfigError
from neurona.runs import jobs
from neurona.runs.folder import RunFolder

OVERRIDES = ["data=iris", "seed=1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "1"


def configuration(retry_failed: bool = False) -> DictConfig:
    return OmegaConf.create({"folder": None, "run": None, "retry_failed": retry_failed})


def begun(folder: Path, status: str) -> None:
    folder.mkdir()
    (folder / "overrides.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create({"overrides": OVERRIDES})))
    (folder / "metrics.json").write_text(json.dumps({"status": status}))


def test_a_new_job_gets_its_folder(folder: Path) -> None:
    folder.mkdir()  # as Hydra's own launchers do
    cfg = configuration()
    assert jobs.take_up(cfg, folder, OVERRIDES) is None
    assert (cfg.folder, cfg.run) == (str(folder), None)
    assert not folder.exists()


def test_a_folder_with_something_else_in_it_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "train.log").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt and no run"):
        jobs.take_up(configuration(), folder, OVERRIDES)
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "train.log"]


@pytest.mark.parametrize(
    ("status", "retry_failed", "goes_on"),
    [
        ("finished", True, False),
        ("pruned", True, False),
        ("failed", False, False),
        ("failed", True, True),
        ("interrupted", False, True),
        ("running", False, True),  # nobody holds it
    ],
)
def test_a_job_goes_on_unless_it_is_over(folder: Path, status: str, retry_failed: bool, goes_on: bool) -> None:
    begun(folder, status)
    cfg = configuration(retry_failed)
    assert jobs.take_up(cfg, folder, OVERRIDES) == (None if goes_on else {"status": status})
    assert (cfg.folder, cfg.run) == (None, str(folder) if goes_on else None)


def test_a_job_that_still_runs_is_waited_for(folder: Path) -> None:
    begun(folder, "running")
    held = RunFolder(folder)

    def finish() -> None:
        held.write_metrics({"status": "finished"}, "fit")
        held.__exit__()

    threading.Timer(0.3, finish).start()
    assert jobs.take_up(configuration(), folder, OVERRIDES) == {"status": "finished"}


def test_one_that_does_not_end_is_left_to_the_run_to_refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PATIENCE_SECONDS", 0.2)
    begun(folder, "running")
    cfg = configuration()
    with RunFolder(folder):
        assert jobs.take_up(cfg, folder, OVERRIDES) is None
        with pytest.raises(ConfigError, match="another process is working on it"):
            RunFolder.open(Path(cfg.run))
        assert jobs.mark_failed(folder, "no", OVERRIDES) == {"status": "failed", "error": "no"}
        assert jobs.read_metrics(folder) == {"status": "running"}


def test_a_job_with_other_overrides_is_refused(folder: Path) -> None:
    begun(folder, "interrupted")
    assert jobs.check_same(folder, ["seed=1", "data=iris", "quiet=true", "threads=2"])
    with pytest.raises(ConfigError, match="was begun with data=iris seed=1, not data=iris seed=2"):
        jobs.check_same(folder, ["data=iris", "seed=2"])
    (folder / "overrides.yaml").write_text("[")
    with pytest.raises(ConfigError, match="damaged"):
        jobs.check_same(folder, OVERRIDES)


def test_a_job_that_failed_before_it_was_a_run_becomes_one(folder: Path) -> None:
    figures = jobs.mark_failed(folder, "no data", OVERRIDES)
    assert figures == jobs.read_metrics(folder) == {"stage": "fit", "status": "failed", "error": "no data"}
    cfg = configuration()
    assert jobs.take_up(cfg, folder, OVERRIDES) == figures
    assert jobs.take_up(configuration(retry_failed=True), folder, OVERRIDES) is None


def test_a_failure_keeps_the_figures_there_are(folder: Path) -> None:
    begun(folder, "running")
    (folder / "metrics.json").write_text('{"status": "running", "steps": 8}')
    assert jobs.mark_failed(folder, "killed", OVERRIDES)["steps"] == 8
    assert jobs.read_metrics(folder) == {"stage": "fit", "status": "failed", "steps": 8, "error": "killed"}


def test_a_failure_that_cannot_be_written_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert jobs.mark_failed(tmp_path / "file" / "1", "no", OVERRIDES) == {"status": "failed", "error": "no"}
