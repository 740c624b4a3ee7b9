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


def has_drawn_in_python(state: dict[str, Any]) -> bool:
    """Whether Python's generator or NumPy's has drawn since ``rng_state`` gave this."""
    now = rng_state()
    (_, numbers, _), (_, keys, position, *_) = state["python"], state["numpy"]
    (_, numbers_now, _), (_, keys_now, position_now, *_) = now["python"], now["numpy"]
    is_same = torch.equal(numbers, numbers_now) and torch.equal(keys, keys_now)
    return not is_same or position != position_now
