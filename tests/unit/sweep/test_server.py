"""What the process from which jobs are forked does as it begins."""

from __future__ import annotations

import atexit
import gc
import runpy
from collections.abc import Callable

import pytest

from neurona.runs import provenance


def test_jobs_inherit_the_checkout_and_a_collector_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    at_exit: list[Callable[[], object]] = []
    monkeypatch.setattr(gc, "disable", lambda: calls.append("off"))
    monkeypatch.setattr(provenance, "checkout", lambda: calls.append("checkout"))
    monkeypatch.setattr(atexit, "register", at_exit.append)
    runpy.run_module("neurona.sweep.server")
    assert calls == ["off", "checkout"]
    assert at_exit == [gc.freeze]
