"""The examples of the README, of the commands' and Keras' pages, of rows in Python, and of the lesson, docs/lesson.md.

Blocks fenced as bash hold ``python train.py`` lines that need nothing but the checkout; each is run, for one epoch.
Blocks fenced as python are run as they stand. Blocks fenced as console are for reading: they need a download, a server,
an installation or a run of the reader's. The lesson's commands build on each other and run in their order; its blocks
fenced as py are Keras', for comparison.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README, LESSON, LECCION, TABLES, *OTHERS = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "docs/lesson.md",
        "docs/leccion.md",
        "docs/tables.md",
        "docs/commands.md",
        "docs/keras.md",
    )
)


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    return [
        line
        for block in blocks("bash", page)
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]


def test_the_readme_has_examples() -> None:
    assert len(commands(README)) >= 5
    assert len(blocks("python")) > 1


@pytest.mark.parametrize("line", dict.fromkeys(line for page in (README, *OTHERS) for line in commands(page)))
def test_every_command_runs(line: str, train: Any) -> None:
    program, script, *arguments = shlex.split(line, comments=True)
    assert (program, script) == ("python", "train.py"), "other commands belong into a block fenced as console"
    shortened = [] if "--help" in arguments else ["trainer.max_epochs=1"]
    done = train(*arguments, *shortened)
    assert done.status == 0, done.err
    assert done.err == ""


ROWS_IN_PYTHON = TABLES.partition("## Rows that Python holds")[2].partition("## New rows")[0]


@pytest.mark.parametrize("block", [b for page in (README, *OTHERS, ROWS_IN_PYTHON) for b in blocks("python", page)])
def test_every_python_example_runs(block: str) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)
    if "metrics" in names:
        assert names["metrics"]["test/accuracy"] > 0.9  # of iris


def test_the_lesson_runs_from_its_first_command_to_its_last(train: Any, read_run: Any, newest: Any) -> None:
    printed = {}
    for line in commands(LESSON):
        program, script, *arguments = shlex.split(line)
        assert (program, script) == ("python", "train.py")
        shortened = [] if {"stage=test", "debug=overfit"} & set(arguments) else ["trainer.max_epochs=1"]
        done = train(*arguments, *shortened)
        assert (done.status, done.err) == (0, ""), line
        printed[line] = [shown.rstrip() for shown in done.out.splitlines()]
        if arguments == ["experiment=lesson"]:
            assert newest().weights() == read_run("logs/lesson/first").weights()
    summary, verdict = blocks("text", LESSON)[:2]
    built = next(shown for line, shown in printed.items() if line.endswith("folder=logs/lesson/first"))
    assert set(summary.splitlines()) <= set(built)
    assert verdict.rpartition("after")[0] in "\n".join(printed["python train.py experiment=lesson debug=overfit"])
    for block in blocks("python", LESSON):
        exec(compile(block, "lesson.md", "exec"), {"__name__": "lesson"})
    assert Path("boundary.png").stat().st_size < 200_000


def test_the_lesson_has_the_same_examples_in_spanish() -> None:
    english, spanish = (re.findall(r"^```\w+\n.*?^```$", page, re.MULTILINE | re.DOTALL) for page in (LESSON, LECCION))
    assert len(english) > 20
    assert english == spanish
    (steps,) = re.findall(r"memorised its mini-batch of 32 rows after (\d+) steps", LECCION)
    assert f"ha memorizado su minilote de 32 filas en {steps} pasos" in LECCION


def test_the_lessons_installation_is_a_target_of_make() -> None:
    (line,) = (line.partition("#")[0] for line in blocks("console", LESSON)[0].splitlines() if line.startswith("make"))
    command = [*shlex.split(line), "--dry-run", "--no-print-directory"]
    environment = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS")}
    plan = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert plan.stdout.splitlines()[-1].strip().endswith("python train.py")


PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_files_that_exist(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8"))
    for link in links:
        assert (ROOT / name).parent.joinpath(link).exists(), link
