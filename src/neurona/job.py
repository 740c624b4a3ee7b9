"""Does what one composed configuration asks: in this process, or in one per device."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from neurona import config, launch
from neurona.config import ConfigError
from neurona.sweep import jobs


def run(cfg: DictConfig, unread: config.Unread | None = None) -> dict[str, Any] | None:
    """Runs one stage; a job of a sweep that is over already is left as it is. Torch is imported once all is checked.

    cfg: composed by Hydra, without its own node. unread: what ``config.check`` has left of it, if it has been checked.
    Returns the figures of ``metrics.json``, None where other processes have written them.
    """
    hydra = HydraConfig.get()
    overrides = launch.given(hydra)
    if unread is None:
        unread = config.check(cfg, hydra.runtime.choices)
    if hydra.mode == RunMode.MULTIRUN:
        if cfg.stage != "fit":
            raise ConfigError("stage", cfg.stage, jobs.ONLY_FITS)
        figures = jobs.take_up(cfg, Path(hydra.runtime.output_dir), overrides)
        if figures is not None:
            return figures
        checkpoints = cfg.trainer.callbacks.checkpoints
        if checkpoints is not None and checkpoints.keep_last is None:
            checkpoints.keep_last = False  # a thousand jobs
    if number := launch.count(cfg):
        launch.run(number, cfg, hydra)
        return None
    if "neurona.stages" in sys.modules and gc.isenabled():
        gc.collect()  # what an earlier job in this process has left
    gc.disable()  # nothing of what is imported is garbage: looking for it takes time and, in a fork, memory
    from neurona.stages import execute

    gc.freeze()
    gc.enable()
    return execute(cfg, hydra.runtime.choices, overrides, unread)
