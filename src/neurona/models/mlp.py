"""The multilayer perceptron."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from neurona.errors import ConfigError
from neurona.models.activations import Activation, ActivationName, activation_named
from neurona.models.initialization import Scheme, initialize

_NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,  # Ioffe & Szegedy 2015 (arXiv:1502.03167)
    "layer": nn.LayerNorm,  # Ba et al. 2016 (arXiv:1607.06450)
    "rms": nn.RMSNorm,  # Zhang & Sennrich 2019 (arXiv:1910.07467)
}


class Residual(nn.Sequential):
    """features + layers(features). Source: He et al. 2016 (arXiv:1512.03385), eq. 1."""

    compilable = True

    def forward(self, features: Tensor) -> Tensor:
        return features + super().forward(features)


class MLP(nn.Sequential):
    """Hidden layers of linear → normalization → activation → dropout, then a linear head.

    (batch, num_features) float → logits (batch, num_classes). The layers are named ``linear1``, ``normalization1``,
    ``activation1``, ``dropout1``, ``linear2`` … ``head``; those that would do nothing are left out.

    hidden: width of each hidden layer; a number means one layer.
    activation: a name in ``ACTIVATIONS`` for all hidden layers, or one for each. With a gated one the linear layer has
        twice the width, and the activation halves it.
    normalization: of what the linear layer returns, which is more nearly Gaussian than what the activation returns
        (Ioffe & Szegedy 2015, section 3.2); of value and gate together where the activation is gated. Batch
        normalization cancels the linear layer's bias, which is then left out.
    dropout: probability of zeroing a hidden unit, one for all hidden layers or one for each; alpha dropout for selu.
    residual: adds a hidden layer's input to its output where the hidden layer before it has the same width. The first
        one never has such a skip, so the architecture does not depend on the data's number of features.
    initialization: "auto" follows each layer's activation (see ``Activation.scale``), with Glorot's for the head, and
        divides the weights of the N layers that have a skip by N, so that relu's features stay bounded at any depth
        (Hanin & Rolnick 2018, arXiv:1803.01719). Any other is used for every layer, as named; see ``initialize``.
    bias: of the linear layers.

    Raises ConfigError (model.hidden, .activation, .dropout, .residual).
    """

    compilable = True

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        hidden: Sequence[int] | int = (128, 64),
        activation: ActivationName | Sequence[ActivationName] = "relu",
        normalization: Literal["none", "batch", "layer", "rms"] = "none",
        dropout: float | Sequence[float] = 0.0,
        residual: bool = False,
        initialization: Scheme = "auto",
        bias: bool = True,
    ) -> None:
        super().__init__()
        widths = [hidden] if isinstance(hidden, int) else list(hidden)
        if not widths:
            raise ConfigError("model.hidden", widths, "needs at least one width; for a linear model use model=linear")
        if not 1 <= min(widths) <= max(widths) < 2**24:
            raise ConfigError("model.hidden", widths, "every width must be at least 1, and below 2**24")
        activations = [activation_named(name) for name in _per_layer("model.activation", activation, widths)]
        dropouts = _per_layer("model.dropout", dropout, widths)
        if not all(0 <= probability < 1 for probability in dropouts):
            raise ConfigError("model.dropout", dropout, "must be at least 0 and below 1")
        skips = [residual and before == width for before, width in pairwise([None, *widths])]
        if residual and not any(skips):
            remedy = "give some equal widths in succession, as in model.hidden=[64,64], or model.residual=false"
            raise ConfigError("model.residual", residual, f"model.hidden={widths} leaves nothing to skip; {remedy}")

        inputs = [num_features, *widths[:-1]]
        hidden_layers = zip(inputs, widths, activations, dropouts, skips, strict=True)
        for number, (before, width, kind, probability, skip) in enumerate(hidden_layers, start=1):
            linear = nn.Linear(before, width * (2 if kind.gated else 1), bias=bias and normalization != "batch")
            layers = _layers(number, linear, normalization, kind, probability)
            for name, layer in ({f"residual{number}": Residual(layers)} if skip else layers).items():
                self.add_module(name, layer)
            damping = 1 / sum(skips) if skip else 1.0
            initialize(linear, initialization, scale=kind.scale, gated=kind.gated, damping=damping)
        self.head = nn.Linear(widths[-1], num_classes, bias=bias)
        initialize(self.head, initialization)

    def __getitem__(self, index: slice | int) -> Any:
        """A layer, or several as an ordinary ``nn.Sequential``: ``mlp[:-1]`` gives the last hidden layer's features."""
        return nn.Sequential(OrderedDict(self.named_children()))[index]


def _layers(
    number: int, linear: nn.Linear, normalization: str, activation: Activation, dropout: float
) -> OrderedDict[str, nn.Module]:
    """A hidden layer's parts in their order, without those that would do nothing."""
    layers: OrderedDict[str, nn.Module] = OrderedDict({f"linear{number}": linear})
    if normalization != "none":
        layers[f"normalization{number}"] = _NORMALIZATIONS[normalization](linear.out_features)
    if activation.make is not nn.Identity:
        layers[f"activation{number}"] = activation.make()
    if dropout > 0:
        layers[f"dropout{number}"] = activation.dropout(dropout)
    return layers


def _per_layer(key: str, value: Any, widths: Sequence[int]) -> list[Any]:
    """One value for each of the hidden layers. Raises ConfigError (key) for a list of another length."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * len(widths)
    if len(value) != len(widths):
        raise ConfigError(key, list(value), f"needs one value, or as many as model.hidden has widths: {len(widths)}")
    return list(value)
