"""150 iris flowers, embedded in the package."""

from __future__ import annotations

from neurona.data import embedded
from neurona.data.base import InMemoryData, Table


class Iris(InMemoryData):
    """Iris (UCI; Fisher, 1936): length and width of sepal and petal in cm, 3 species."""

    def read(self) -> Table:
        return Table(*embedded.read("iris"), class_names=("setosa", "versicolor", "virginica"))
