"""neurona: a PyTorch Lightning research template for multilayer perceptrons."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``neurona.run`` and its like, imported when they are first asked for: they bring torch."""
    if name in ("run", "fit"):
        from neurona.cli import python

        return getattr(python, name)
    if name == "NeuronaClassifier":
        from neurona.estimator import NeuronaClassifier

        return NeuronaClassifier
    if name == "load":
        from neurona.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
