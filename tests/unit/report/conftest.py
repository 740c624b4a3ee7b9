"""Run folders made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from neurona.report import runs
from neurona.report.runs import Run

SETTINGS = {
    "data": {"_target_": "neurona.data.iris.Iris", "batch_size": 16},
    "model": {"_target_": "neurona.models.mlp.MLP", "hidden": [8], "activation": "relu"},
    "optimizer": {"_target_": "neurona.optimizer.adam", "lr": 0.001},
    "tags": [],
    "init_from": None,
}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A finished run's folder below ``logs``; settings: dotted keys."""

    def make(name: str, seed: int = 0, accuracy: float | None = None, **extra: Any) -> Path:
        folder = tmp_path / "logs" / name
        folder.mkdir(parents=True)
        config: dict[str, Any] = json.loads(json.dumps(SETTINGS))
        config |= {"seed": seed, "folder": str(folder), "logger": {"tensorboard": {"save_dir": str(folder)}}}
        config["data"]["shuffle_seed"] = seed
        for key, value in extra.get("settings", {}).items():
            node, _, leaf = key.rpartition(".")
            (config[node] if node else config)[leaf] = value
        figures: dict[str, Any] = {"status": extra.get("status", "finished"), "stage": "fit"}
        figures |= {} if accuracy is None else {"test/accuracy": accuracy}
        figures |= extra.get("figures", {})
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        overrides = extra.get("overrides", [f"seed={seed}"])
        (folder / "overrides.yaml").write_text(yaml.safe_dump({"overrides": overrides, "absolute": {}}))
        (folder / "metrics.json").write_text(json.dumps(figures))
        return folder

    return make


@pytest.fixture
def read(tmp_path: Path) -> Callable[[], list[Run]]:
    """All runs below ``logs``; none may be damaged."""

    def call() -> list[Run]:
        damaged: list[Path] = []
        all_runs = [runs.read(folder, damaged) for folder in runs.find([tmp_path / "logs"])]
        assert not damaged
        return all_runs

    return call
