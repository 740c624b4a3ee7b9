"""569 breast tumours, embedded in the package."""

from __future__ import annotations

from neurona.data import embedded
from neurona.data.base import InMemoryData, Table


class BreastCancer(InMemoryData):
    """Breast Cancer Wisconsin (Diagnostic) (UCI): 30 measurements of cell nuclei, malignant or benign."""

    def read(self) -> Table:
        return Table(*embedded.read("breast_cancer"), class_names=("malignant", "benign"))
