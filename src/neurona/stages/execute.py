"""Runs one stage: fit, refit, validate, test, predict, export or lr_find."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig

from neurona.config import registry
from neurona.config.check import Unread, check_imported
from neurona.config.overrides import with_lists
from neurona.devices import cpu, distributed, launch, waiting
from neurona.devices.preemption import Preemption
from neurona.errors import RunError
from neurona.stages import console
from neurona.stages.request import Request


def execute(
    cfg: DictConfig,
    choices: Mapping[str, str],
    overrides: Sequence[str],
    unread: Unread,
    arrays: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Finishes the checks that need imports, then runs the stage. arrays: the data, where Python holds them. Returns
    its figures and, as ``folder``, where they are.
    """
    check_imported(unread, cfg)
    launch.open_streams()
    launch.end_with_parent()
    console.quieten(cfg.quiet or distributed.rank() > 0)
    torch.set_float32_matmul_precision(cfg.float32_matmul)
    stage = registry.load(registry.STAGES[cfg.stage])
    with cpu.prepared(), waiting.adapted(), Preemption() as preemption, contextlib.ExitStack() as on_exit:
        try:
            figures = stage.run(Request(cfg, with_lists(choices, overrides), overrides, on_exit, preemption, arrays))
        except MemoryError as error:
            problem = "needs more memory than there is; take fewer rows, or a smaller network"
            raise RunError(f"stage={cfg.stage}: {problem} ({str(error) or 'MemoryError'})") from error
        distributed.disconnect()
        return {**figures, "folder": cfg.folder}
