"""The shipped command line, given mistakes: one line, exit status 2, no torch, no run folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """train.py in an empty folder, naming on stderr the modules of torch it has imported by then."""
    program = "import runpy, sys; sys.argv = sys.argv[1:]\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    program += "finally: print('torch imported:', 'torch' in sys.modules)"
    inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    command = [sys.executable, "-c", program, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=inherited, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.hiden=[3]"], "did you mean model.hidden?"),
        (["data.path=my.csv"], "data.path=my.csv: no such key here; it belongs to data=table"),
        (["model=linear", "model.hidden=[3]"], "it belongs to model=mlp and model=tabular"),
        (["epochs=3"], "here it is trainer.max_epochs"),
        (["model.units=3"], "here it is model.hidden"),
        (["optimizer.schedul.x=1"], "did you mean optimizer.schedule?"),
        (["trainer.max_epohcs=3"], "did you mean trainer.max_epochs?"),
        (["model=mlpp"], "model=mlpp: no such choice; did you mean mlp?"),
        (["data=mnits"], "did you mean mnist?"),
        (["experiment=leson"], "experiment=leson: no such choice"),
        (["hydra.run.dir=logs/mine"], "hydra.run.dir=logs/mine: has no meaning here: a run's folder is folder=…"),
        (["+sede=1"], "sede=1: no such key; did you mean seed?"),
        (["+trainer.max_epocs=1"], "did you mean trainer.max_epochs?"),
        (["+model.hiden=[3]"], "did you mean model.hidden?"),
        (["stage=tset"], "did you mean test?"),
        (["run=logs/none"], "run=logs/none: is not a run folder"),
    ],
)
def test_mistakes_are_answered_before_torch_is_imported(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = call(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == "torch imported: False\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.schedule=cosine"], "a choice is made with a slash: optimizer/schedule=cosine"),
        (["optimizer.lr=abc"], "optimizer.lr=abc: must be a number"),
        (["model.hidden=[a]"], "must be a list (each entry a whole number)"),
        (["trainer.max_epochs=many"], "must be a whole number or null"),
        (["model.normalization=bach"], "did you mean batch?"),
        (["model.hidden=[-3]"], "model.hidden"),
        (["model.dropout=1.5"], "model.dropout=1.5"),
        (["optimizer.lr=-1"], "optimizer.lr=-1: must be above 0"),
        (["data.val_fraction=2"], "data.val_fraction=2"),
        (["trainer.accelerator=quantum"], "quantum"),
    ],
)
def test_values_of_another_type_or_out_of_range_leave_no_run_folder(
    train: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = train(*arguments)
    assert done.status == 2, done.err
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_choices_without_torch(tmp_path: Path) -> None:
    done = call(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "model: linear, mlp" in done.stdout
    assert done.stdout.endswith("torch imported: False\n")
