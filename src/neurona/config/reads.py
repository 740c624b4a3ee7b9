"""The settings that each stage reads beside ``run=``; all others are refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hydra.core.override_parser.types import Override

from neurona.config.make import is_within
from neurona.config.overrides import key, root, value
from neurona.errors import ConfigError

ALWAYS = ("run", "stage", "quiet", "threads", "allow", "hydra", "data")
"""Read by all of them; of the data, what ``unused`` of the data module's class does not name."""

TRAINER = (
    *("accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "benchmark", "profiler"),
    *("use_distributed_sampler", "enable_progress_bar", "inference_mode"),
)
"""Keys of the Trainer that matter without a fit."""

OF_STAGE = {
    "validate": (*TRAINER, "limit_val_batches", "overfit_batches"),
    "test": (*TRAINER, "limit_test_batches"),
    "predict": (*TRAINER, "limit_predict_batches"),
    "export": (),
}
"""Those that a stage reads; where there are any, another choice of ``trainer`` too."""


def check(stage: str, overrides: Iterable[Override], datamodule: type, *, is_new: bool) -> None:
    """Raises ConfigError for an override that the stage does not read.

    datamodule: the class that reads the data. is_new: whether the data are others than the run's.
    """
    keys = OF_STAGE[stage]
    unused: dict[str, str] = datamodule.unused(is_new=is_new) if hasattr(datamodule, "unused") else {}
    for override in overrides:
        name = key(override)
        problem = unused.get(name.split(".")[1]) if name.startswith("data.") else None
        if problem is None and not (root(override) in ALWAYS or _is_of(name, keys)):
            also = f" and, of the trainer, {', '.join(keys)}" if keys else ""
            problem = f"is not used by stage={stage}, which takes {', '.join(ALWAYS[2:5])}, data{also}; leave it out"
        if problem is not None:
            raise ConfigError(name, value(override), problem)


def check_fit(overrides: Iterable[Override]) -> None:
    """Raises ConfigError for an override that a fit does not read."""
    for override in overrides:
        if root(override) == "lr_find":
            raise ConfigError(key(override), value(override), "is for stage=lr_find only; leave it out")


def _is_of(name: str, keys: Sequence[str]) -> bool:
    return bool(keys) and (name == "trainer" or is_within(name, [f"trainer.{key}" for key in keys]))
