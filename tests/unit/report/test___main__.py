"""The report's command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from neurona.report import __main__ as command
from neurona.report import compare


def test_arguments_reach_the_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = []
    monkeypatch.setattr(compare, "report", lambda *arguments: calls.append(arguments) or "the tables")
    line = ["report", "logs", "more", "--metric", "val/loss", "--by", "seed", "model.hidden", "--out", "x"]
    monkeypatch.setattr(sys, "argv", line)
    assert command.main() == 0
    assert calls == [([Path("logs"), Path("more")], "val/loss", ["seed", "model.hidden"], Path("x"))]
    assert capsys.readouterr() == ("the tables\n", "")


def test_a_mistake_is_one_line_and_status_2(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("a", 0, 0.9)
    monkeypatch.setattr(sys, "argv", ["report", "nowhere"])
    assert command.main() == 2
    assert capsys.readouterr() == (
        "",
        "path=nowhere: is not a folder; give run or sweep folders, or logs for all of them\n",
    )
