"""How many processes a configuration takes, and its stage done in them. Imports no torch, where it can do without."""

from __future__ import annotations

import sys

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig

from neurona.config.overrides import task_overrides, written
from neurona.devices.launch import is_launched, start
from neurona.errors import ConfigError, RunError


def count(cfg: DictConfig) -> int:
    """Processes to start for a checked configuration: 0 if this one is to do the work itself.

    Raises ConfigError for several hosts, which torchrun or Slurm must start, or a stage that takes one device.
    """
    devices = cfg.trainer.devices
    if is_launched() or cfg.trainer.strategy in ("auto", None):
        return 0
    if cfg.stage == "export":  # without the Trainer, which is stored with the run
        return 0
    if cfg.trainer.num_nodes > 1:
        raise ConfigError("trainer.num_nodes", cfg.trainer.num_nodes, "several hosts are started by torchrun or srun")
    number = len(devices) if not isinstance(devices, int | str) else _number(devices, cfg.trainer.accelerator)
    if number > 1 and cfg.stage in ("predict", "lr_find"):
        raise ConfigError("trainer.devices", devices, f"{cfg.stage} works on one device: add trainer=auto")
    return number if number > 1 else 0


def _number(devices: int | str, accelerator: str) -> int:
    if str(devices).isdecimal():
        return int(devices)
    if accelerator == "cpu":
        problem = "must be a number of processes: every one of them is a device of the CPU"
        raise ConfigError("trainer.devices", devices, problem)
    import torch

    return torch.cuda.device_count()


def run(number: int, cfg: DictConfig, hydra: HydraConf) -> None:
    """Does in ``number`` processes what Hydra has composed for this one, and leaves with their exit status.

    hydra: the node ``hydra``. A job of a sweep becomes a run of its own; it raises RunError where it fails.
    """
    if hydra.mode != RunMode.MULTIRUN:
        sys.exit(start(number, [sys.executable, *sys.argv]))
    key = "run" if cfg.run else "folder"
    task = [] if cfg.run else [line for line in task_overrides(hydra) if not line.startswith("retry_failed=")]
    (yamls,) = (source.path for source in hydra.runtime.config_sources if source.provider == "main")
    job = [f"--config-path={yamls}", *task, written(key, str(cfg[key]))]
    if status := start(number, [sys.executable, sys.argv[0], *job]):
        raise RunError(f"its {number} processes ended with status {status}")
