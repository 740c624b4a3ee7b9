"""Every command of README and docs is run by a test: here those that need a run, a table or a sweep of the reader's.

Other tests run the rest: test_readme.py the blocks fenced as bash of README, commands and Keras' page and the lesson,
test_own_code.py those of extending, test_own_project.py those of its three pages, test_errors.py those of errors.
"""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import neurona
from neurona.report import __main__ as report

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {  # pages whose blocks fenced as bash other tests run
    "bash": ("README.md", "commands.md", "keras.md", "lesson.md", "leccion.md", "extending.md", "own_project.md"),
    "console": ("errors.md",),
}
COMPOSED_ALONE = {  # words of commands that need more than this machine has, which are composed and checked
    "fashion_mnist": "a download",
    "experiment=activation_study": "110 runs",
    "logger=wandb": "Weights & Biases",
    "submitit_slurm": "Slurm",
    "-sc install": "a shell to install it in",
}
OTHER_PROGRAMS = {  # by their first words, and the test or script that runs them
    "make": "test_readme.py and continuous integration",
    ".": "the shell",
    "python3 -m venv": "the shell",
    "pip install": "its extra is looked up below",
    "pip uninstall": "the shell",
    "tensorboard": "test_inspection.py reads what it reads",
    "mlflow ui": "a server",
    "sbatch": "tests/cluster",
    "tests/cluster/": "tests/cluster",
    "python -m pytest": "tests/cluster",
    "python tests/verify_": "test_verify_resume.py and test_verify_sweep.py",
    "eval": "test_completion.py",
    "python -m benchmarks": "test_benchmarks.py",
    "python benchmarks": "test_benchmarks.py",
}


def shown() -> list[str]:
    """The commands that are not run elsewhere, without their comments."""
    lines = []
    for page, (language, names) in itertools.product(PAGES, ELSEWHERE.items()):
        if page.name not in names:
            blocks = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
            lines += [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = (re.sub(r"\s+#.*", "", line).strip() for line in lines)
    return [*dict.fromkeys(line for line in commands if line and not line.startswith("#"))]


TRAINING = [line for line in shown() if line.startswith("python train.py")]
REPORTS = [line for line in shown() if line.startswith("python -m neurona.report")]


def test_every_command_is_run_here_or_elsewhere() -> None:
    assert len(TRAINING) > 20
    others = [line for line in shown() if line not in (*TRAINING, *REPORTS)]
    assert [line for line in others if not line.startswith(tuple(OTHER_PROGRAMS))] == []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in others:
        if match := re.search(r"\.\[(\w+)\]", line):
            assert match[1] in extras, line


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands name: a table, the run of it, new rows of it."""
    folder = tmp_path_factory.mktemp("pages")
    rows = [f"{number % 7},{number % 5},{'yes' if number % 7 > 3 else 'no'}" for number in range(80)]
    (folder / "my.csv").write_text("\n".join(["a,b,label", *rows]) + "\n")
    (folder / "labelled.csv").write_text("\n".join(["a,b,label", *rows[:20]]) + "\n")
    (folder / "new.csv").write_text("a,b\n1,2\n6,3\n")
    table = ["data=table", f"data.path={folder}/my.csv", "data.target=label"]
    neurona.run([*table, f"folder={folder}/logs/table/run", "trainer.max_epochs=1", "quiet=true"])
    return folder


@pytest.mark.parametrize("line", [pytest.param(line, marks=[pytest.mark.long] * (" -m " in line)) for line in TRAINING])
def test_a_command_runs(
    line: str, train: Any, iris_run: Any, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MY_SEED", "3")
    monkeypatch.setenv("PROJECT", "mine")
    arguments = shlex.split(line.replace("logs/table/…", "logs/table/run").replace("logs/…", str(iris_run.folder)))[2:]
    if any(words in line for words in COMPOSED_ALONE):
        arguments = [argument for argument in arguments if argument != "-m"]
        arguments = ["--cfg", "job", *arguments] if "submitit" not in line and "-sc" not in line else ["--help"]
    elif "-m" in arguments:
        arguments += ["data=iris", "trainer.max_epochs=1", "model.hidden=[4]"] * ("model.hidden" not in line)
        arguments += ["hydra.sweeper.trials=2"] * ("sweep=optuna" in arguments) + ["trainer.max_epochs=1"]
    elif "run=" not in line and "stage=" not in line:
        arguments += ["trainer.max_epochs=1"]
    else:
        arguments = [re.sub("max_epochs=.*", "max_epochs=3", argument) for argument in arguments]
        arguments += ["trainer.max_epochs=3"] * ("patience" in line)  # the run here was not stopped early
    done = train(*dict.fromkeys(arguments))
    assert done.status == 0, done.err


@pytest.mark.parametrize("line", REPORTS)
def test_a_report_is_made(line: str, fit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("activation_study", "digits/2026-01-31_12-00-00"):
        for seed in range(2):
            fit(f"seed={seed}", "trainer.max_epochs=1", f"folder=logs/{name}/{seed}")
    monkeypatch.setattr(sys, "argv", ["neurona.report", *shlex.split(line)[3:]])
    assert report.main() == 0
    assert list(tmp_path.rglob("report.html"))
