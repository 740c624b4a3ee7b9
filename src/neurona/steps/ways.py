"""The two ways to take a step, and who asks for Lightning's own.

The fast way hands the classifier chunks of mini-batches. It is taken only if all that a classifier, a data module and
the callbacks override is known to be content with that; the unknown gets Lightning's automatic optimisation, one
mini-batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch import callbacks as lightnings
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy

from neurona.config.nodes import path_of
from neurona.devices import distributed

STAGES = ("fit", "sanity_check", "train", "train_epoch", "validation", "validation_epoch", "test", "test_epoch")
EVALUATED = ("validation", "test", "predict")
HOOKS = {
    *(f"on_{stage}_{end}" for stage in (*STAGES, "predict", "predict_epoch") for end in ("start", "end")),
    *(f"on_{part}_batch_{end}" for part in EVALUATED for end in ("start", "end")),
    *("setup", "teardown", "prepare_data", "state_dict", "load_state_dict", "on_save_checkpoint", "on_load_checkpoint"),
}
"""Hooks of epochs, of stages and of everything but training steps."""

CONTENT = {
    LightningModule: {
        *HOOKS,
        *("forward", "validation_step", "test_step", "predict_step", "configure_callbacks", "extra_repr"),
        *("on_validation_model_eval", "on_validation_model_train", "on_validation_model_zero_grad"),
        *("on_test_model_eval", "on_test_model_train", "on_predict_model_eval", "on_predict_model_train"),
        *("val_dataloader", "test_dataloader", "predict_dataloader"),
    },
    LightningDataModule: {*HOOKS, "val_dataloader", "test_dataloader", "predict_dataloader", "on_exception"},
    Callback: {*HOOKS, "on_exception", "state_key"},
}
"""What a subclass may override and still be given chunks."""

AVERAGES = (lightnings.WeightAveraging, lightnings.EMAWeightAveraging)
"""Callbacks of Lightning's that the fast way calls after every step."""

FINETUNING = (lightnings.BackboneFinetuning, lightnings.BaseFinetuning)

CHUNK_AWARE = (Callback, lightnings.EarlyStopping, lightnings.ModelSummary, lightnings.Timer, *FINETUNING, *AVERAGES)
"""Of Lightning's callbacks, those that do the same at the ends of chunks as after every mini-batch, and averages."""


def asked_by(module: LightningModule, datamodule: Any, callbacks: Iterable[Callback], shipped: type) -> list[str]:
    """Who asks for Lightning's own way, as ``mine.Extra.on_train_batch_end``; nobody where the fast one will do.

    shipped: the project's own classifier, whose methods are content with chunks.
    """
    names = [*_overrides(module, LightningModule, shipped)]
    if datamodule is None or not hands_out_chunks(type(datamodule)):
        names.append(
            f"{path_of(type(datamodule))}.train_dataloader" if datamodule is not None else "the training loader"
        )
    else:
        names += _overrides(datamodule, LightningDataModule)
    for callback in callbacks:
        names += _overrides(callback, Callback)
    return list(dict.fromkeys(names))


def _overrides(instance: Any, base: type, shipped: type | None = None) -> Iterator[str]:
    """What an object overrides of a class of Lightning's that is not known to be content with chunks."""
    content = CONTENT[base]
    inherited = {name for name in dir(base) if not name.startswith("__")}
    for name, value in vars(instance).items():
        if name in inherited - content and callable(value) and callable(getattr(base, name)):
            yield f"{path_of(type(instance))}.{name}"
    for kind in type(instance).__mro__:
        if kind in (base, shipped) or kind in CHUNK_AWARE or vars(kind).get("chunk_aware", False):
            return
        if kind.__module__.startswith(("lightning.", "pytorch_lightning.")):
            yield path_of(kind)
            return
        for name in vars(kind).keys() & inherited - content:
            yield f"{path_of(kind)}.{name}"


def hands_out_chunks(kind: type, loader: str = "train_dataloader") -> bool:
    """Whether a data module's loader is the one in memory: the class that has the last word on its method says so."""
    owner = next((one for one in kind.__mro__ if loader in vars(one)), object)
    return bool(vars(owner).get("chunk_aware", False))


def scales_or_wraps(trainer: Any) -> str:
    """What of precision or strategy changes a backward pass or an optimiser step; nothing where neither does."""
    plugin, strategy = trainer.precision_plugin, trainer.strategy
    is_plain = type(plugin) in (Precision, DoublePrecision, HalfPrecision)
    if not is_plain and not (type(plugin) is MixedPrecision and plugin.scaler is None):
        return f"trainer.precision={trainer.precision}"
    if not isinstance(strategy, SingleDeviceStrategy | distributed.DataParallel):
        return f"trainer.strategy={type(strategy).__name__}"
    return ""
