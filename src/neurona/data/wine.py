"""178 Italian wines, embedded in the package."""

from __future__ import annotations

from neurona.data import embedded
from neurona.data.base import InMemoryData, Table


class Wine(InMemoryData):
    """Wine (UCI): 13 chemical measurements, 3 cultivars."""

    def read(self) -> Table:
        return Table(*embedded.read("wine"), class_names=("class_0", "class_1", "class_2"))
