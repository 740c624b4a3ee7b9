"""Tab completion: what Hydra answers a shell that asks, and bash's own way to ask it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("model.act", {"model.activation="}),
        ("optimizer/schedule=c", {"optimizer/schedule=constant", "optimizer/schedule=cosine"}),
        ("-m data=wine seed=0,1 lr_find.s", {"lr_find.steps=", "lr_find.stop_at=", "lr_find.smoothing="}),
        ("'model.hidden=[1, 2]' mod", set()),  # Hydra takes the line apart at every space
    ],
)
def test_keys_and_choices(monkeypatch: pytest.MonkeyPatch, train: Any, line: str, words: set[str]) -> None:
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # put back afterwards
    monkeypatch.setenv("COMP_LINE", f"python train.py {line}")
    done = train("-sc", "query=bash")
    assert set(done.out.split()) == words
    assert done.err == "", "nothing is written into the line that is being typed"


def test_bash_asks_and_completes() -> None:
    script = """
        eval "$(python train.py -sc install=bash)"
        COMP_LINE="python train.py data=fas" COMP_CWORD=2 COMP_POINT=24 hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("data=fashion_mnist\n", "")


def test_fish_takes_train_py_for_a_script_of_hydra() -> None:
    assert "@hydra.main" in (ROOT / "train.py").read_text()
