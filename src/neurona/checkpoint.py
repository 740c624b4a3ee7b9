"""What a checkpoint holds beside Lightning's own state, how it is read, and how a classifier is rebuilt from one."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import OmegaConf
from torch import nn

from neurona.config import ConfigError, instantiate
from neurona.data.spec import DataSpec

if TYPE_CHECKING:
    from neurona.classifier import Classifier


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under another name and renames it once it is on the disk: a reader finds the old or the
    new.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)


def blueprint(classifier: Classifier) -> dict[str, Any]:
    """What rebuilding the classifier needs besides its tensors, as plain data."""
    preprocessing = type(classifier.preprocessing)
    return {
        "model": classifier.model_config,
        "spec": dataclasses.asdict(classifier.spec),
        "preprocessing": f"{preprocessing.__module__}.{preprocessing.__qualname__}",
    }


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's contents on the CPU: plain containers and tensors, nothing in it is executed.

    Raises ConfigError if the file is missing, damaged or not one of this project's.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        contents["neurona"]["model"], contents["state_dict"]
    except FileNotFoundError:
        raise ConfigError("checkpoint", path, "does not exist; the run has not saved one yet") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            "checkpoint", path, f"cannot be read ({reason}); it is damaged or not one of neurona's"
        ) from None
    return contents


def spec(contents: dict[str, Any]) -> DataSpec:
    """The sizes of the data the checkpoint's network was made for."""
    return DataSpec(**contents["neurona"]["spec"])


def modules(contents: dict[str, Any], allow: Sequence[str] = ()) -> tuple[nn.Module, nn.Module]:
    """Preprocessing and network as the checkpoint describes them, with its weights.

    allow: modules besides this project's and its libraries whose classes it may name.
    """
    described, sizes = contents["neurona"], spec(contents)
    nodes = OmegaConf.create(
        {"allow": list(allow), "preprocessing": {"_target_": described["preprocessing"]}, "model": described["model"]}
    )
    parts = {
        "preprocessing": instantiate(nodes.preprocessing, nn.Module, num_features=sizes.num_features),
        "network": instantiate(
            nodes.model,
            nn.Module,
            num_features=sizes.num_features,
            num_classes=sizes.num_classes,
        ),
    }
    for name, module in parts.items():
        prefix = f"{name}."
        state = {k.removeprefix(prefix): v for k, v in contents["state_dict"].items() if k.startswith(prefix)}
        module.load_state_dict(state)
    return parts["preprocessing"], parts["network"]


def transfer(contents: dict[str, Any], network: nn.Module) -> list[str]:
    """Copies into ``network`` every weight of the checkpoint's network whose name and shape agree.

    Returns the names left as they were (the head, where the classes differ). Raises ConfigError if none agree.
    """
    own = network.state_dict()
    given = {k.removeprefix("network."): v for k, v in contents["state_dict"].items() if k.startswith("network.")}
    agreeing = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    if not agreeing:
        raise ConfigError(
            "init_from", "", "no weight has the name and shape of one of this network's; is model= the same?"
        )
    network.load_state_dict(agreeing, strict=False)
    return sorted(own.keys() - agreeing.keys())


def rng_state() -> dict[str, Any]:
    """The state of every global random generator a training step may draw from."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  (the global state is what is saved)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Sets the generators back to what ``rng_state`` gave."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
