"""Sweeps: one folder for all, one for each job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SWEEP = ["-m", "data=iris", "trainer.max_epochs=2"]


def test_each_job_has_its_folder(train: Any, read_run: Any, fit: Any) -> None:
    done = train(*SWEEP, "seed=0,1")
    assert (done.status, done.err) == (0, "")
    (sweep,) = Path("logs/multirun").iterdir()
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    runs = [read_run(sweep / name) for name in ("0", "1")]
    assert [run.read("provenance.json")["seed"] for run in runs] == [0, 1]
    assert [run.weights() for run in runs] == [fit(f"seed={seed}").weights() for seed in (0, 1)]
    for run in runs:
        assert f"test accuracy {100 * run.metrics['test/accuracy']:.2f} %" in done.out
        assert "test accuracy" in (run.folder / "train.log").read_text()


def test_a_mistake_is_answered_before_the_first_job(train: Any, tmp_path: Path) -> None:
    done = train(*SWEEP, "model.hiden=[3],[4]")
    assert done.status == 2
    assert "did you mean model.hidden?" in done.err
    assert not list(tmp_path.rglob("metrics.json"))


def test_a_job_of_a_sweep_can_be_tested(train: Any, read_run: Any) -> None:
    train(*SWEEP, "seed=0,1")
    (sweep,) = Path("logs/multirun").iterdir()
    run = read_run(sweep / "1")
    done = train("stage=test", f"run={run.folder}")
    assert done.status == 0, done.err
    assert run.read("metrics_test.json")["test/loss"] == run.metrics["test/loss"]
