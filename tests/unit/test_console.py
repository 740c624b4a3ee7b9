"""What people see of a run."""

from __future__ import annotations

import io
import sys

import pytest

from neurona import console


class Gone(io.StringIO):
    """Standard output whose reader has closed it, as head does once it has its lines."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(console.log, "handlers", [])
    monkeypatch.setattr(sys, "stdout", Gone())
    console.quieten(False)
    console.log.info("a line")
    assert capsys.readouterr().err == ""
