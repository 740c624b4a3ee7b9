"""The loss curve of a fixed fit stays what it was: data, split, order, weights, step and figures at once."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_the_loss_curve_is_the_recorded_one():
    recorded = json.loads((HERE / "digits.json").read_text(encoding="utf-8"))
    curve = runpy.run_path(str(HERE / "make.py"))["loss_curve"]()
    assert curve.keys() == recorded.keys()
    for name, values in recorded.items():
        # Instruction sets (SSE to AVX-512) and threads make 2e-7; a learning rate wrong by one percent makes 7e-3.
        assert curve[name] == pytest.approx(values, rel=1e-4), name
