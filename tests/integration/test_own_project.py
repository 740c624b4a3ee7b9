"""The pages on a project of one's own, notebooks and trackers: what they show runs as it stands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import neurona

ROOT = Path(__file__).parents[2]
PROJECT, NOTEBOOKS, TRACKERS = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("own_project", "notebooks", "trackers")
)
FILES = dict(
    re.findall(r"`([\w/]+\.(?:py|yaml))`[^`]*```(?:python|yaml)\n(.*?)^```$", PROJECT, re.MULTILINE | re.DOTALL)
)
BASH = re.findall(r"^```bash\n(.*?)^```$", PROJECT, re.MULTILINE | re.DOTALL)
TRAINING, TESTING, RENAMING = (block.splitlines() for block in BASH)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A copy of the checkout, as far as a run and its tests need it, with the page's files."""
    for name in ("train.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("configs", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "vision" / "__init__.py").touch()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("vision", "mine")]:
        del sys.modules[name]


def shell(folder: Path, line: str) -> str:
    """What a command prints, with the folder's own source before any that is installed."""
    python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(folder / "src")}
    identity = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **python, **identity}
    done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_a_package_its_experiment_and_its_tests(project: Path, train: Any) -> None:
    assert set(FILES) == {
        *(
            "vision/networks.py",
            "configs/model/gated.yaml",
            "configs/experiment/gated_iris.yaml",
            "tests/test_vision.py",
        )
    }
    assert len(TRAINING) == 3
    for line in TRAINING:
        done = train(*shlex.split(line)[2:], "trainer.max_epochs=1")
        assert done.status == 0, done.err
    assert len(list(Path("logs/gated_iris").glob("*/metrics.json"))) == 2
    (line,) = TESTING
    assert re.search(r"^\.\. +\[100%\]", shell(project, line), re.MULTILINE)


@pytest.mark.long
def test_another_name(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell(project, "git init -q . && git add . && git commit -q -m first")
    for line in RENAMING:
        shell(project, line)
    out = shell(project, "python train.py experiment=gated_iris && python -m mynet.report logs && ls src")
    assert "test accuracy" in out
    assert out.splitlines()[-1] == "mynet"


def test_a_notebook(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells in their order, written to a file where %%writefile says so."""
    cells = re.findall(r"^```python\n(.*?)^```$", NOTEBOOKS, re.MULTILINE | re.DOTALL)
    for module in ("neurona.cli.python", "neurona.config.own"):
        monkeypatch.setattr(f"{module}.CONFIG_DIR", project / "configs")
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in cells:
        first, _, text = cell.partition("\n")
        if first.startswith("%%writefile "):
            Path(first.split()[1]).write_text(text)
        else:
            exec(compile(cell, "notebooks.md", "exec"), names)
    assert len(list(Path("logs/iris").iterdir())) == 2
    assert sum(cell.startswith("%%writefile ") for cell in cells) == 1


def test_a_class_of_a_cell_belongs_into_a_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurona.config.own.CONFIG_DIR", project / "configs")
    remedy = "make %%writefile {}mine.py the cell's first line, run it, and name mine.Mine"
    for folder, place in ((project, ""), (project / "src", f"{project}/")):
        monkeypatch.chdir(folder)
        for more in ([], ["allow=[__main__]"]):
            with pytest.raises(neurona.errors.ConfigError) as caught:
                neurona.run(["data=iris", "classifier._target_=__main__.Mine", *more])
            assert str(caught.value).endswith(remedy.format(place))


LOGGERS = re.findall(r"`python train\.py (\S*logger[^`]*)`", TRACKERS)


@pytest.mark.parametrize("line", LOGGERS)
def test_a_tracker_is_asked_for_in_one_command(line: str, train: Any) -> None:
    """Its package may not be installed: the configuration is composed."""
    done = train(*shlex.split(line), "--cfg", "job")
    assert done.status == 0, done.err
    assert "Logger" in done.out


def test_trackers_have_a_command_each() -> None:
    assert [name for name in ("wandb", "mlflow") for line in LOGGERS if name in line.split()[0]] == [
        *("wandb", "wandb", "mlflow", "mlflow")
    ]
