"""``stage=refit``: trains a new network on the validation rows too, for as many steps as the best epoch had."""

from __future__ import annotations

import dataclasses
from typing import Any

from omegaconf import OmegaConf

from neurona.config.overrides import key, parse
from neurona.errors import ConfigError
from neurona.runs import checkpoint
from neurona.stages import fit
from neurona.stages.request import Request

FOLDER = "refit"
"""Of the new run, in that of the run that found the number of steps."""


def run(request: Request) -> dict[str, Any]:
    """A fit of its own, from new weights, and its test. Raises ConfigError for a run without validation rows that could
    be trained on.
    """
    cfg, earlier = request.cfg, request.open_folder()
    has_own = (request.arrays or {}).get("X_val") is not None
    others = {name: cfg.data.get(name) for name in ("val_path", "folds") if cfg.data.get(name) is not None}
    if has_own or others or not cfg.data.get("val_fraction"):
        name, value = next(iter(others.items()), ("val_fraction", cfg.data.get("val_fraction")))
        has = "X_val" if has_own else f"data.{name}={value}"
        problem = f"trains on the rows that data.val_fraction has drawn too, but the run in {earlier.path} has {has}"
        raise ConfigError("stage", cfg.stage, problem)
    best = checkpoint.read(earlier.best_checkpoint)
    settings: dict[str, Any] = {"data.val_fraction": 0, "trainer.max_steps": best["global_step"]}
    if cfg.trainer.callbacks.get("early_stopping") is not None:
        settings["trainer.callbacks.early_stopping.patience"] = None
    for name, value in settings.items():
        OmegaConf.update(cfg, name, value)
    cfg.stage, cfg.run, cfg.folder = "fit", None, str(earlier.path / FOLDER)
    replaced = {"run", "stage", "folder", *settings}
    lines = [str(override.input_line) for override in parse(request.overrides) if key(override) not in replaced]
    lines += [f"{name}={'null' if value is None else value}" for name, value in settings.items()]
    return fit.run(dataclasses.replace(request, overrides=lines))
