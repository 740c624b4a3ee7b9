"""1,797 hand-written digits of 8 × 8 pixels, embedded in the package."""

from __future__ import annotations

from neurona.data import embedded
from neurona.data.base import InMemoryData, Table


class Digits(InMemoryData):
    """Optical Recognition of Handwritten Digits (UCI): 64 pixels from 0 to 16, 10 classes."""

    def read(self) -> Table:
        return Table(*embedded.read("digits"), class_names=tuple("0123456789"), image_shape=(8, 8))
