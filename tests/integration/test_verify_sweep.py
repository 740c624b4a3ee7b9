"""The proof that sweeps survive, small. Not run by default: ``python -m pytest -n0 -m many``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

import verify_sweep


@pytest.mark.many
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_killed_sweeps_end_with_the_same_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["data=iris", "seed=0,1,2", "model.dropout=0.2", "trainer.max_epochs=200"]
    status = verify_sweep.main(["--kills", "3", "--folder", str(tmp_path), *settings])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "3 kills of " in printed
