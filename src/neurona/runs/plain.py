"""What a checkpoint can hold: what ``torch.load(weights_only=True)`` reads: containers, numbers, texts, tensors."""

from __future__ import annotations

import copy
import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import Container, OmegaConf
from torch import Tensor, nn

from neurona.errors import ConfigError

IMMUTABLE = {type(None), bool, int, float, complex, str, bytes}
VALUES = {*IMMUTABLE, Tensor, nn.Parameter}
CONTAINERS = (dict, OrderedDict, list, tuple, set)
REMEDY = "which a checkpoint cannot hold: keep numbers, texts and tensors there, and lists and dicts of them"


def plain(contents: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's contents with numbers of numpy's as Python's, its arrays as tensors and paths as texts. Of what
    ``save_hyperparameters`` has collected, values stay; networks, specs and other objects are left out.
    """
    contents = dict(contents)
    for owner in (LightningModule, LightningDataModule):
        contents.pop(owner.CHECKPOINT_HYPER_PARAMS_TYPE, None)  # a class
        if (collected := contents.get(owner.CHECKPOINT_HYPER_PARAMS_KEY)) is not None:
            is_config = isinstance(collected, Container)
            settings: Any = OmegaConf.to_container(collected, resolve=True) if is_config else collected
            values = {name: _plain(value) for name, value in settings.items()}
            contents[owner.CHECKPOINT_HYPER_PARAMS_KEY] = {k: v for k, v in values.items() if _is_plain(v)}
    return {name: _plain(value) for name, value in contents.items()}


def _plain(value: Any) -> Any:
    """The value itself where there is nothing to change in it."""
    if type(value) in VALUES:
        return value
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            return _plain(value.tolist())
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if isinstance(value, np.generic):
        return float(value) if isinstance(value, np.floating) else value.item()
    if isinstance(value, PurePath):
        return str(value)
    if type(value) in (dict, OrderedDict):
        changed = {_plain(key): _plain(child) for key, child in value.items()}
        return value if _same(changed, value) and _same(changed.values(), value.values()) else changed
    if type(value) in (list, tuple):
        children = [_plain(child) for child in value]
        return value if _same(children, value) else type(value)(children)
    return value


def copied(contents: Any) -> Any:
    """A copy that stays as it is now, in a third of the time of ``copy.deepcopy``: of a tensor that is part of another,
    only the part. Tensors that are one stay one.
    """
    tensors: dict[Any, Tensor] = {}

    def copy_of(value: Any) -> Any:
        if type(value) in IMMUTABLE:
            return value
        if type(value) in (dict, OrderedDict):
            made = copy.copy(value)
            for key, child in value.items():
                made[key] = copy_of(child)
            return made
        if type(value) in (list, tuple):
            return type(value)(map(copy_of, value))
        if type(value) is not Tensor or value.layout is not torch.strided:
            return copy.deepcopy(value)
        place = value.data_ptr(), value.shape, value.stride(), value.dtype, value.requires_grad
        if place not in tensors:
            tensors[place] = value.detach().clone().requires_grad_(value.requires_grad)
        return tensors[place]

    return copy_of(contents)


def _same(some: Any, others: Any) -> bool:
    return all(one is other for one, other in zip(some, others, strict=True))


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) in CONTAINERS and all(_is_plain(child) for pair in value.items() for child in pair)
    return type(value) in VALUES or (type(value) in CONTAINERS and all(map(_is_plain, value)))


def require_readable(
    contents: dict[str, Any], module: LightningModule, datamodule: Any, callbacks: Sequence[Callback]
) -> None:
    """Raises ConfigError for what a checkpoint would hold that could be written but not read, naming whose it is and
    the type. Tensors are taken for readable, and not written.
    """
    contents = plain(contents)
    if _is_read_back(contents):
        return
    (part, *keys), value = next(_unreadable((), contents))
    data = type(datamodule).__qualname__
    whose = {
        "callbacks": ("trainer.callbacks", str(keys[0]).partition("{")[0] if keys else part, "its state", keys[1:]),
        data: ("data", data, "its state", keys),
        "state_dict": ("classifier", part, "it", keys),
        "optimizer_states": ("optimizer", part, "it", keys),
        "lr_schedulers": ("optimizer.schedule", part, "it", keys),
    }
    put = f"what on_save_checkpoint of {' or '.join(_savers(module, callbacks)) or 'somebody'} puts there"
    key, name, what, keys = whose.get(part, ("checkpoint", part, put, keys))
    place = f"has at {'.'.join(map(str, keys))}" if keys else "is"
    raise ConfigError(key, name, f"{what} {place} {_words(value)}, {REMEDY}")


def first_unreadable(contents: dict[str, Any]) -> str:
    """The place of what could be written but not read, its type and the remedy; empty where there is no such thing."""
    if _is_read_back(contents):
        return ""
    keys, value = next(_unreadable((), contents))
    return f"at {'.'.join(map(str, keys))} is {_words(value)}, {REMEDY}"


def _words(value: Any) -> str:
    kind = value if isinstance(value, type) else type(value)
    return f"{'the class' if kind is value else 'a'} {kind.__module__}.{kind.__qualname__}"


def _savers(module: LightningModule, callbacks: Sequence[Callback]) -> list[str]:
    """The user's own classes that add to checkpoints."""
    adding = [one for one in (module, *callbacks) if is_overridden("on_save_checkpoint", one)]
    kinds = dict.fromkeys(map(type, adding))
    return [kind.__qualname__ for kind in kinds if not kind.__module__.startswith(("neurona.", "lightning."))]


def _unreadable(path: tuple[Any, ...], value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The innermost parts of a value that cannot be read back, each with the keys that lead to it."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    lost = [(key, child) for key, child in children if not _is_read_back(child)]
    for key, child in lost:
        yield from _unreadable((*path, key), child)
    if not lost:
        yield path, value


def _is_read_back(value: Any) -> bool:
    file = io.BytesIO()
    try:
        torch.save(_without_tensors(value), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # whatever pickle, torch or a class of one's own finds
        return False
    return True


def _without_tensors(value: Any) -> Any:
    if type(value) in (Tensor, nn.Parameter):
        return None
    if type(value) in (dict, OrderedDict):
        return {key: _without_tensors(child) for key, child in value.items()}
    if type(value) in (list, tuple):
        return type(value)([_without_tensors(child) for child in value])
    return value
