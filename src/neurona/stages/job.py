"""Does what one composed configuration asks: in this process, or in one per device."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from neurona.config import registry
from neurona.config.check import Unread, check
from neurona.config.overrides import task_overrides
from neurona.errors import ConfigError
from neurona.runs import jobs
from neurona.stages import processes


def run(cfg: DictConfig, unread: Unread | None = None) -> dict[str, Any] | None:
    """Runs one stage; a job of a sweep that is over already is left as it is. Torch is imported once all is checked.

    cfg: composed by Hydra, without its own node. unread: what ``check`` has left of it, if it has been checked.
    Returns the figures of ``metrics.json``, None where other processes have written them.
    """
    hydra = HydraConfig.get()
    overrides = task_overrides(hydra)
    if unread is None:
        unread = check(cfg, hydra.runtime.choices, str(hydra.job.config_name))
    if hydra.mode == RunMode.MULTIRUN:
        if cfg.stage != "fit":
            raise ConfigError("stage", cfg.stage, jobs.ONLY_FITS)
        figures = jobs.take_up(cfg, Path(hydra.runtime.output_dir), overrides)
        if figures is not None:
            return figures
        checkpoints = cfg.trainer.callbacks.checkpoints
        if checkpoints is not None and checkpoints.keep_last is None:
            checkpoints.keep_last = False  # a thousand jobs
    if number := processes.count(cfg):
        processes.run(number, cfg, hydra)
        return None
    if "neurona.stages.execute" in sys.modules and gc.isenabled():
        gc.collect()  # what an earlier job in this process has left
    gc.disable()  # nothing of what is imported is garbage: looking for it takes time and, in a fork, memory
    from neurona.stages.execute import execute

    registry.load(registry.STAGES[cfg.stage])
    gc.freeze()
    gc.enable()
    return execute(cfg, hydra.runtime.choices, overrides, unread)
