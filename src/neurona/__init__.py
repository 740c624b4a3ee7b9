"""neurona: a PyTorch Lightning research template for multilayer perceptrons."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``neurona.run`` and ``neurona.load``, imported when they are first asked for: they bring torch."""
    if name == "run":
        from neurona.cli.python import run

        return run
    if name == "load":
        from neurona.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
