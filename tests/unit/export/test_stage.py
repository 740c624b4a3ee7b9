"""An export works on a run's own folder, and leaves its figures there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from neurona.errors import ConfigError, RunError
from neurona.export import forms, stage
from neurona.stages import assembly
from neurona.stages.request import Request

FIGURES = {"status": "finished", "stage": "export", "rows": 3, "seconds": 0.5}


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """The stage on a run's folder, with what is to happen in place of writing the files."""
    (tmp_path / "overrides.yaml").touch()
    monkeypatch.setattr(assembly, "trained", lambda request, folder: ("classifier", "data"))
    with contextlib.ExitStack() as on_exit:

        def run(write: Callable[..., Any], folder: Path = tmp_path) -> dict[str, Any]:
            monkeypatch.setattr(forms, "write", write)
            cfg = OmegaConf.create({"run": str(folder), "stage": "export", "folder": None})
            return stage.run(Request(cfg, {}, (), on_exit, None))  # type: ignore[arg-type]

        yield run


def test_its_figures_are_returned_and_kept(export: Any, tmp_path: Path) -> None:
    arguments: list[Any] = []

    def write(classifier: Any, datamodule: Any, folder: Any) -> dict[str, Any]:
        arguments.extend([classifier, datamodule, folder.path])
        return FIGURES

    assert export(write) == FIGURES
    assert arguments == ["classifier", "data", tmp_path]
    assert json.loads((tmp_path / "metrics_export.json").read_text()) == FIGURES


def test_a_full_disk_is_explained_and_no_figures_are_kept(export: Any, tmp_path: Path) -> None:
    def write(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.onnx")

    with pytest.raises(RunError, match="No space left"):
        export(write)
    assert not (tmp_path / "metrics_export.json").exists()


def test_missing_libraries_are_named_before_the_run_is_looked_at(
    export: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forms, "LIBRARIES", ("onnx", "no_such_library"))
    with pytest.raises(ConfigError) as raised:
        export(lambda *_: FIGURES, tmp_path / "nowhere")
    assert str(raised.value) == "stage=export: needs no_such_library: pip install -c constraints.txt -e '.[export]'"
    assert [path.name for path in tmp_path.iterdir()] == ["overrides.yaml"]
