"""The shipped command line, given mistakes: one line, exit status 2, no torch, no run folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


SERVER = """
import json, os, runpy, sys
import neurona.cli.command
assert "torch" not in sys.modules
for line in sys.stdin:
    folder, train, arguments = json.loads(line)
    if (child := os.fork()) == 0:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}.{name}", os.O_WRONLY | os.O_CREAT), number)
        os.chdir(folder)
        sys.argv = [train, *arguments]
        try:
            runpy.run_path(train, run_name="__main__")
        finally:
            print("torch imported:", "torch" in sys.modules)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs train.py in one forked process after the other, each telling whether it has imported torch by its end."""


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, env=inherited, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def call(server: subprocess.Popen[str], tmp_path: Path) -> Callable[..., Any]:
    """train.py in an empty folder, without torch; status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        assert server.stdin is not None
        assert server.stdout is not None
        folder = tmp_path / "empty"
        folder.mkdir()
        server.stdin.write(json.dumps([str(folder), str(ROOT / "train.py"), arguments]) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        return status, *(folder.with_suffix(f".{name}").read_text() for name in ("out", "err"))

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.hiden=[3]"], "did you mean model.hidden?"),
        (["data.path=my.csv"], "data.path=my.csv: no such key here; it belongs to data=table"),
        (["model=linear", "model.hidden=[3]"], "it belongs to model=mlp, model=tabm and model=tabular"),
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
        (["model.activation=tahn"], "did you mean tanh?"),
        (["model=tabm", "model.activation=Relu"], "did you mean relu?"),
        (["model.activation=[relu,tahn]"], "did you mean tanh?"),
        (["model.normalization=bach"], "did you mean batch?"),
        (["data.scaling=unity"], "must be one of standard, unit, none; did you mean unit?"),
        (["model.hidden=[a]"], "must be a list (each entry a whole number)"),
        (["trainer.max_epochs=many"], "must be a whole number or null"),
        (["trainer.precision=bf16mixed"], "did you mean bf16-mixed?"),
        (["run=logs/none"], "run=logs/none: is not a run folder"),
    ],
)
def test_mistakes_are_answered_before_torch_is_imported(call: Any, arguments: list[str], message: str) -> None:
    status, out, err = call(*arguments)
    assert status == 2, err
    assert message in err
    assert len(err.splitlines()) == 1
    assert out == "torch imported: False\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["seed=0,1", "model.activation=relu,tahn"],
        ["model.activation=relu,tahn", "seed=range(0,200)"],
        ["hydra/launcher=basic", "model.activation=relu,tahn"],
        ["sweep=optuna", "model.activation=relu,tahn"],
    ],
)
def test_a_sweep_answers_for_every_job_before_torch_is_imported(call: Any, arguments: list[str]) -> None:
    status, out, err = call("-m", *arguments)
    assert status == 2, err
    assert "did you mean tanh?" in err
    assert len(err.splitlines()) == 1
    assert out.splitlines() == ["torch imported: False"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.schedule=cosine"], "a choice is made with a slash: optimizer/schedule=cosine"),
        (["optimizer.lr=abc"], "optimizer.lr=abc: must be a number"),
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


def test_help_names_the_choices_without_torch(call: Any) -> None:
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    assert "model: linear, mlp" in out
    assert out.endswith("torch imported: False\n")
