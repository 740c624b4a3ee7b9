"""What people see of a run."""

from __future__ import annotations

import io
import logging
import math
import sys
from pathlib import Path

import pytest

from neurona.stages import console


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


@pytest.mark.parametrize(
    ("loss", "shown", "is_told"), [(1.09, "1.0900", False), (1.11, "1.1100", True), (3.5e11, "3.5e+11", True)]
)
def test_a_network_that_has_learned_nothing_is_told(
    loss: float, shown: str, is_told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(console.log, "propagate", True)
    caplog.set_level(logging.INFO, "neurona")
    classes = {f"val/accuracy_of/{name}": 0.3 for name in "abc"}
    console.conclude({"stage": "fit", "train/loss": 1.0, "val/loss": loss, **classes}, Path("folder"))
    lines = [record.getMessage() for record in caplog.records]
    assert f"loss{'1.0000':>28}{shown:>12}" in lines
    told = f"val/loss is above {math.log(3):.2f}, the loss of equal probabilities for all 3 classes"
    assert any(line.startswith(told) for line in lines) == is_told
