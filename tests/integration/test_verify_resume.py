"""The proof of exact resume, small: it holds for a run that is killed, and fails for a run that differs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import neurona

sys.path.append(str(Path(__file__).parents[1]))

import verify_resume

SETTINGS = ["model.dropout=0.2", "optimizer/schedule=one_cycle", "trainer.max_epochs=80"]


def fit_uninterrupted(folder: Path, *overrides: str) -> None:
    """Makes the run that others are compared with, where the proof looks for it."""
    neurona.run([f"folder={folder / 'yours' / 'uninterrupted'}", "quiet=true", *overrides])


@pytest.mark.long
def test_killed_runs_end_with_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit_uninterrupted(tmp_path, *SETTINGS)
    # This seed draws SIGTERM in the fit, then a power cut while a checkpoint is written: one run, three processes.
    status = verify_resume.main(["--kills", "2", "--seed", "99", "--folder", str(tmp_path), *SETTINGS])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "2 kills: 2 identical hashes, 0 lost runs" in printed
    assert [path.name for path in (tmp_path / "yours").iterdir() if path.is_dir()] == ["uninterrupted"]


def test_a_run_that_differs_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["data=iris", "trainer.max_epochs=2"]
    fit_uninterrupted(tmp_path, *settings, "seed=1")
    assert verify_resume.main(["--kills", "0", "--folder", str(tmp_path), *settings]) == 1
    printed = capsys.readouterr().out
    assert f"{tmp_path}/yours/1 differs from the uninterrupted run in best.ckpt, last.ckpt, " in printed
    assert "0 kills: 0 identical hashes, 0 lost runs" in printed
