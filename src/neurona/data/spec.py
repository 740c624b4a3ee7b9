"""What a network needs to know about the data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSpec:
    """Sizes and names of a data set: class_names[i] is what class i is called, image_shape the (height, width)."""

    num_features: int
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None = None
