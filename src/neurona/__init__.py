"""neurona: a PyTorch Lightning research template for multilayer perceptrons."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

PLACES = {
    "run": "neurona.cli.python",
    "fit": "neurona.cli.python",
    "load": "neurona.predictor",
    "NeuronaClassifier": "neurona.estimator",
}
"""What is imported when it is first asked for, as it brings torch, and from where."""


def __getattr__(name: str) -> Any:
    """``neurona.run`` and its like."""
    if name in PLACES:
        return getattr(import_module(PLACES[name]), name)
    from neurona.errors import did_you_mean

    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{did_you_mean(name, PLACES)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *PLACES})
