"""The README's own examples.

Blocks fenced as bash hold ``python train.py`` lines that need nothing but the checkout; each is run, for one epoch.
Blocks fenced as python are run as they stand. Blocks fenced as console are for reading: they need a download, a server,
an installation or a run of the reader's.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


COMMANDS = [
    line
    for block in blocks("bash")
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.lstrip().startswith("#")
]


def test_the_readme_has_examples() -> None:
    assert len(COMMANDS) > 5
    assert len(blocks("python")) > 1


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_runs(line: str, train: Any) -> None:
    program, script, *arguments = shlex.split(line, comments=True)
    assert (program, script) == ("python", "train.py"), "other commands belong into a block fenced as console"
    shortened = [] if "--help" in arguments else ["trainer.max_epochs=1"]
    done = train(*arguments, *shortened)
    assert done.status == 0, done.err
    assert done.err == ""


@pytest.mark.parametrize("block", blocks("python"))
def test_every_python_example_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_names_files_that_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).parents[2] / link).exists(), link
