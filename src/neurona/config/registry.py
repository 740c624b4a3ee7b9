"""Names of the modules around the core, which the core imports only when they are asked for.

Also the former names of what has moved, for stored configurations of earlier versions.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

STAGES = {
    "fit": "neurona.stages.fit",
    "refit": "neurona.stages.refit",
    "validate": "neurona.stages.evaluate",
    "test": "neurona.stages.evaluate",
    "predict": "neurona.stages.evaluate",
    "export": "neurona.export.stage",
    "lr_find": "neurona.stages.lr_find",
}
"""The module of each stage; its function ``run`` does the stage's work."""

SWEEP = "neurona.sweep.command"
"""What the command line does around the jobs of a sweep."""

TABLE_SPEC = "neurona.tables.spec"
"""The module of ``TableSpec``, the spec of data with a schema."""

OPTIMIZATION = "neurona.optimizer.Optimization"
"""The class whose own keys stand beside those of the optimiser that the node ``optimizer`` names."""

MOVED = {
    "neurona.callbacks.importance": "neurona.tables.importance",
    "neurona.data.encoding": "neurona.tables.encoding",
    "neurona.data.table": "neurona.tables.table",
    "neurona.distributed": "neurona.devices.distributed",
    "neurona.loggers": "neurona.inspection.loggers",
    "neurona.lr_find": "neurona.stages.range_test",
    "neurona.optimizer.adam": "torch.optim.Adam",
    "neurona.optimizer.adamw": "torch.optim.AdamW",
    "neurona.optimizer.rmsprop": "neurona.optimizer.RMSprop",
    "neurona.optimizer.sgd": "torch.optim.SGD",
}
"""Modules and functions that an older configuration or checkpoint may name, and where what they had is now."""


def load(module: str) -> Any:
    """One of these modules, imported."""
    return import_module(module)


def current(target: str) -> str:
    """The present path of a class or function that an older configuration names; that path itself where it has not
    moved.
    """
    module, _, name = target.rpartition(".")
    return MOVED.get(target, f"{MOVED.get(module, module)}.{name}")
