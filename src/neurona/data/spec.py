"""What a network needs to know about the data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataSpec:
    """Sizes and names of a data set: class_names[i] is what class i is called, image_shape the (height, width).

    num_features: what the network is given, after the preprocessing. schema: of a table, as
    ``neurona.data.schema.Schema.as_dict`` gives it.
    """

    num_features: int
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None = None
    schema: dict[str, Any] | None = None
