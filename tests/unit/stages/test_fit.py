"""Which run a fit goes on with, and where a new one is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neurona.runs.folder import RunFolder
from neurona.stages import fit


def test_a_job_that_was_restarted_goes_on_with_its_run(
    make_request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "overrides.yaml").write_text("overrides: []\nabsolute: {}\n")
    monkeypatch.setattr(fit, "begun_before", lambda place, overrides: tmp_path)
    request = make_request({})
    earlier = fit._earlier(request)
    assert earlier is not None
    assert (earlier.path, request.cfg.run) == (tmp_path, str(tmp_path))


def test_a_new_run_has_none_before_it(make_request: Any) -> None:
    assert fit._earlier(make_request({"folder": "mine"})) is None


def test_the_trainer_is_built_for_the_folder_that_there_is(
    make_request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is made where a Trainer is refused, so the first one is built before the folder has its name."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a file").touch()
    strategy = SimpleNamespace(setup_environment=lambda: None, broadcast=lambda path: path)

    def build(cfg: Any, *_: Any) -> Any:
        return SimpleNamespace(is_global_zero=True, strategy=strategy, folder=cfg.folder, callbacks=[])

    monkeypatch.setattr(fit, "build", build)
    for check in ("limits.check_optimizers", "first_batch.check"):
        monkeypatch.setattr(f"neurona.stages.fit.{check}", lambda *_: None)
    monkeypatch.setattr(fit.log, "propagate", True)
    request = make_request({"folder": str(tmp_path / "mine")})
    classifier: Any = None
    trainer: Any
    trainer, folder = fit._placed(request, None, classifier, None)
    assert isinstance(folder, RunFolder)
    assert trainer.folder == request.cfg.folder == str(folder.path) == f"{tmp_path}/mine-2"
    assert f"{tmp_path}/mine exists already: this run's folder is {tmp_path}/mine-2" in caplog.text
