"""The state of every random generator that a step may draw from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """The state of every global random generator a training step may draw from."""
    version, numbers, next_gauss = random.getstate()
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  (the global state is what is saved)
    return {
        "python": (version, torch.tensor(numbers), next_gauss),  # as a tensor: 625 numbers take long to pickle
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Sets the generators back to what ``rng_state`` gave."""
    version, numbers, next_gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), next_gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def drawn() -> tuple[Any, ...]:
    """A value that changes with every number drawn in Python, from its own generator or NumPy's."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  (a module may draw from the global one)
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest
