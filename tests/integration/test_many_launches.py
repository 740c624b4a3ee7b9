"""Fifty commands at once: fifty run folders. Not run by default: ``python -m pytest -n0 -m many``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = Path(__file__).parents[2] / "train.py"
LAUNCHES = 50


@pytest.mark.many
def test_fifty_launches_make_fifty_folders(tmp_path):
    command = [sys.executable, TRAIN, "data=iris", "trainer.max_epochs=1", "quiet=true"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen(command, cwd=tmp_path, env=environment) for _ in range(LAUNCHES)]
    assert [process.wait() for process in processes] == [0] * LAUNCHES
    runs = list((tmp_path / "logs" / "iris").iterdir())
    assert len(runs) == LAUNCHES
    assert {json.loads((run / "metrics.json").read_text())["status"] for run in runs} == {"finished"}
    assert len({run.name[:19] for run in runs}) < LAUNCHES  # several within one second
