"""The report of a real sweep."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from neurona.report import curves
from neurona.report.__main__ import main

PROGRAM = """
import runpy, sys
sys.argv = ["neurona.report", "logs"]
try:
    runpy.run_module("neurona.report", run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""


def test_of_a_sweep(train: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Path("logs", "sweep")
    settings = ["data=iris", "trainer.max_epochs=3", "quiet=true", f"hydra.sweep.dir={sweep}", "hydra/launcher=basic"]
    assert train("-m", *settings, "seed=0,1", "model.activation=relu,tanh").status == 0
    monkeypatch.setattr(sys, "argv", ["neurona.report", "logs"])
    capsys.readouterr()
    assert main() == 0
    terminal = capsys.readouterr()
    assert terminal.err == ""
    assert "What varies: model.activation (relu, tanh)." in terminal.out
    assert all(f"activation={name}  2  " in terminal.out for name in ("relu", "tanh"))
    with Path("logs/report/report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["model.activation"]) for row in rows] == [
        *(("0", "relu"), ("0", "tanh"), ("1", "relu"), ("1", "tanh"))
    ]
    assert "seed=1 model.activation=tanh" in rows[3]["command"]
    assert {path.name for path in Path("logs/report").iterdir()} == {
        *("report.csv", "report.md", "report.html", "results.png", "curves.png")
    }
    events = EventAccumulator(str(sweep / "0_seed0_relu"), size_guidance={"scalars": 0})
    events.Reload()
    recorded = curves.read(sweep / "0_seed0_relu")
    for tag in curves.TAGS:
        assert list(recorded[tag]) == [1.0, 2.0, 3.0]
        assert list(recorded[tag].values()) == pytest.approx([event.value for event in events.Scalars(tag)], rel=1e-7)


def test_torch_is_not_imported_and_a_reader_may_leave(tmp_path: Path) -> None:
    run = tmp_path / "logs" / "0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text('{"status": "failed", "error": "no"}')
    nobody, terminal = os.pipe()
    os.close(nobody)
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=terminal, stderr=subprocess.PIPE, text=True)
    os.close(terminal)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "logs" / "report" / "report.html").exists()
