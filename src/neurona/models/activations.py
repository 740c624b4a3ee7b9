"""Activation functions by name. A new one is one line in ``ACTIVATIONS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from neurona.errors import ConfigError, did_you_mean, takes
from neurona.models.dropout import Dropout


class Gated(nn.Module):
    """Gated linear unit: value · function(gate), value and gate being the halves of the last dimension, in this order.

    (batch, 2 * width) → (batch, width). Source: Shazeer 2020 (arXiv:2002.05202), eqs. 4–5; the order is ``nn.GLU``'s.
    """

    compilable = True

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, features: Tensor) -> Tensor:
        value, gate = features.chunk(2, dim=-1)
        return value * self.function(gate)


class Swish(nn.Module):
    """x · sigmoid(beta · x) with a beta that is learned, from 1 on, where it is silu.

    Source: Ramachandran et al. 2017 (arXiv:1710.05941), section 5.
    """

    compilable = True

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        return features * torch.sigmoid(self.beta * features)


@dataclass(frozen=True)
class Activation:
    """An activation function and what suits it.

    scale: initial weights of variance scale / fan_in. 2 for relu and its likes (He et al. 2015, arXiv:1502.01852,
        eqs. 10 and 15), 1 for selu (Klambauer et al. 2017, arXiv:1706.02515), None for Glorot's, which suits functions
        nearly linear around 0. Gated ones have no published value: glu has LeCun's 1; the others, whose output grows
        with the square of their input, 1/4, at which two hidden layers start near ln(10) on the digits.
    gated: it takes twice as many features as it returns.
    dropout: the kind that goes with it; alpha dropout keeps selu's mean and variance (Klambauer et al. 2017).
    """

    make: Callable[[], nn.Module]
    scale: float | None = None
    gated: bool = False
    dropout: type[nn.Module] = Dropout


ACTIVATIONS = {
    "relu": Activation(nn.ReLU, 2.0),
    "leaky_relu": Activation(nn.LeakyReLU, 2 / (1 + 0.01**2)),
    "prelu": Activation(nn.PReLU, 2 / (1 + 0.25**2)),
    "relu6": Activation(nn.ReLU6, 2.0),
    "elu": Activation(nn.ELU, 2.0),
    "selu": Activation(nn.SELU, 1.0, dropout=nn.AlphaDropout),
    "gelu": Activation(nn.GELU, 2.0),
    "silu": Activation(nn.SiLU, 2.0),
    "swish": Activation(Swish, 2.0),
    "mish": Activation(nn.Mish, 2.0),
    "hardswish": Activation(nn.Hardswish, 2.0),
    "softplus": Activation(nn.Softplus),
    "sigmoid": Activation(nn.Sigmoid),
    "tanh": Activation(nn.Tanh),
    "hardtanh": Activation(nn.Hardtanh),
    "softsign": Activation(nn.Softsign),
    "identity": Activation(nn.Identity),
    "glu": Activation(lambda: Gated(nn.Sigmoid()), 1.0, gated=True),
    "reglu": Activation(lambda: Gated(nn.ReLU()), 0.25, gated=True),
    "geglu": Activation(lambda: Gated(nn.GELU()), 0.25, gated=True),
    "swiglu": Activation(lambda: Gated(nn.SiLU()), 0.25, gated=True),
}

ActivationName = Annotated[str, tuple(ACTIVATIONS)]
"""One of these names: a misspelled one is answered before anything is imported."""


def activation_named(name: str) -> Activation:
    """Raises ConfigError (model.activation) for a name without an entry in ``ACTIVATIONS`` that makes a layer."""
    if name not in ACTIVATIONS:
        hint = did_you_mean(name, ACTIVATIONS)
        raise ConfigError("model.activation", name, f"choose from {', '.join(ACTIVATIONS)}{hint}")
    if not _makes_layers(entry := ACTIVATIONS[name]):
        problem = "its entry must be an Activation whose make is a class, or a function without arguments, that makes a"
        example = "layer, as in Activation(torch.nn.Mish, scale=2): docs/extending.md#an-activation-function"
        raise ConfigError("model.activation", name, f"{problem} {example}")
    return entry


def _makes_layers(entry: Any) -> bool:
    if not isinstance(entry, Activation) or isinstance(entry.make, nn.Module) or not takes(entry.make):
        return False
    return issubclass(entry.make, nn.Module) if isinstance(entry.make, type) else isinstance(entry.make(), nn.Module)
