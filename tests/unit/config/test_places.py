from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neurona.config.places import leads_out


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("a.dirpath", "logs/other"),
        ("a.save_dir", "new"),
        ("a.tracking_uri", "mlruns"),
        ("a.dirpath", "${trainer.callbacks.a.name}"),
        ("a.name", "${folder}/../other"),
        ("a.name", "${folder}2"),
        ("a.name", "sqlite:///${folder}/../other.db"),
        ("a.name", "sqlite:////etc/x"),
        ("a.name", "local:///etc"),
        ("a.name", "~/x"),
        ("a.name", "."),
        ("a.name", "there"),
        ("a.name", "there/file"),
    ],
)
def test_a_place_outside_of_the_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert leads_out(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("a.dirpath", "${folder}"),
        ("a.dirpath", "${folder}/checkpoints"),
        ("a.tracking_uri", "sqlite:///${folder}/x.db"),
        ("a.dirpath", None),
        ("a.version", ""),
        ("a.monitor", "val/loss"),
        ("a.monitor", "${trainer.callbacks.checkpoints.monitor}"),
        ("a.filename", "a..b-{epoch}"),
        ("a.every", 3),
    ],
)
def test_what_is_no_place_or_within_the_run_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not leads_out(key, value)
