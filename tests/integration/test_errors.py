"""The messages that docs/errors.md quotes in blocks fenced as console are those that the commands print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from neurona.cli.replay import Yamls
from neurona.config.hints import CONFIG_DIR
from neurona.runs.folder import RunFolder

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
BLOCKS = "".join(re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
QUOTED = re.findall(r"^\$ python train\.py (.*)\n(.*)$", BLOCKS, re.MULTILINE)


def test_most_of_the_page_is_tested() -> None:
    assert len(QUOTED) > 15
    assert len(QUOTED) > 3 * PAGE.count("```text")
    assert len(BLOCKS.splitlines()) == 2 * len(QUOTED)


def of_any_machine(message: str) -> str:
    """Which step overflows first, and how, differs from machine to machine, and so does the project's folder."""
    message = message.replace(str(CONFIG_DIR.parent), "/home/ada/neurona")
    return re.sub(r"became \w+ at optimiser step \d+", "became nan", message)


@pytest.mark.parametrize(("command", "message"), QUOTED)
def test_the_message_is_what_is_printed(
    train: Any, command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    if "trainer=gpu" in command and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("there is a GPU")
    folder = Path("logs", "mine")
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text("overrides: []\nabsolute: {}\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(Yamls(CONFIG_DIR).compose([])[0]))
    with RunFolder(folder):  # another process works on it
        done = train(*command.split(" "))
    assert of_any_machine(done.err) == of_any_machine(f"{message}\n")
    assert done.status == (1 if "became nan" in message else 2)
