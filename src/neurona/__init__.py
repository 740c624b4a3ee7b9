"""neurona: a PyTorch Lightning research template for multilayer perceptrons."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``neurona.run``, imported when it is first asked for: it brings torch."""
    if name == "run":
        from neurona.stages import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
