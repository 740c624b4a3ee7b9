"""TabM: a multilayer perceptron that is several, which share their weights but for factors and biases."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from neurona.errors import ConfigError, check_range
from neurona.models.activations import ActivationName, activation_named


class MemberLinear(nn.Module):
    """A linear layer of each member m: s_m ⊙ (W (r_m ⊙ x)) + b_m, with one W for all.

    (batch, in_features), or (batch, members, in_features) → (batch, members, out_features). W and b start as
    ``nn.Linear``'s, b the same for all members; s as 1; r as 1, or -1 or 1 at random in the first layer, which makes
    the members differ. Source: BatchEnsemble (Wen et al. 2020, arXiv:2002.06715, eq. 5) as Gorishniy et al. 2024
    (arXiv:2410.24210, section 3.3) start it.
    """

    compilable = True

    def __init__(self, in_features: int, out_features: int, members: int, *, is_first: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(in_features, 1))
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound).repeat(members, 1))
        signs = torch.randint(0, 2, (members, in_features)) * 2.0 - 1
        self.r = nn.Parameter(signs if is_first else torch.ones(members, in_features))
        self.s = nn.Parameter(torch.ones(members, out_features))

    def forward(self, features: Tensor) -> Tensor:
        of_members = (features.unsqueeze(1) if features.ndim == 2 else features) * self.r
        return linear(of_members, self.weight) * self.s + self.bias


class _ProductOfEach(torch.autograd.Function):
    """Features (batch, members, in_features) times each member's weights (members, in_features, out_features) → (batch,
    members, out_features). The same as ``einsum``, whose products take a processor five times as long where
    ``out_features`` is small.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(weight.transpose(1, 2), features.permute(1, 2, 0)).permute(2, 0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        features, weight = (tensor.to(gradient.dtype) for tensor in ctx.saved_tensors)  # as autocast had them
        of_features = torch.bmm(gradient.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1)
        return of_features, torch.bmm(gradient.permute(1, 2, 0), features.transpose(0, 1)).transpose(1, 2)


class MemberHead(nn.Module):
    """A linear layer for each member, with weights of its own: (batch, members, in_features) → (batch, members,
    out_features); each starts as ``nn.Linear``.
    """

    compilable = True

    def __init__(self, in_features: int, out_features: int, members: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(members, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, out_features).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        return _ProductOfEach.apply(features, self.weight) + self.bias


class TabM(nn.Module):
    """``members`` multilayer perceptrons of hidden layers of linear → activation → dropout, with a linear head each.

    (batch, num_features) float → logits (batch, num_classes): the logarithms of the mean of the members' probabilities.
    ``members`` gives each member's own. The classifier that is shipped trains on the mean of the members' losses; one
    of one's own that calls the network trains on the loss of the mean.

    hidden, activation, dropout: as of ``neurona.models.mlp.MLP``, one for all layers. members: how many; a step takes
    about as many times as long as an MLP's of the same widths.

    Source: Gorishniy et al. 2024 (arXiv:2410.24210), section 3.

    Raises ConfigError (model.hidden, .activation, .dropout, .members).
    """

    compilable = True

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        hidden: Sequence[int] | int = (128, 128),
        activation: ActivationName = "relu",
        dropout: float = 0.1,
        members: int = 8,
    ) -> None:
        super().__init__()
        widths = [hidden] if isinstance(hidden, int) else list(hidden)
        if not widths or not 1 <= min(widths) <= max(widths) < 2**24:
            raise ConfigError("model.hidden", widths, "needs at least one width; each at least 1, and below 2**24")
        check_range("model.dropout", dropout, least=0, below=1)
        check_range("model.members", members, least=1, below=2**16)
        kind = activation_named(activation)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, width) in enumerate(zip([num_features, *widths], widths, strict=False), start=1):
            outputs = width * (2 if kind.gated else 1)
            layers[f"linear{number}"] = MemberLinear(before, outputs, members, is_first=number == 1)
            layers[f"activation{number}"] = kind.make()
            if dropout > 0:
                layers[f"dropout{number}"] = kind.dropout(dropout)
        layers["head"] = MemberHead(widths[-1], num_classes, members)
        self.layers = nn.Sequential(layers)

    def members(self, features: Tensor) -> Tensor:
        """(batch, num_features) float → logits of each member (batch, members, num_classes)."""
        return self.layers(features)

    def forward(self, features: Tensor) -> Tensor:
        return mean_of(self.members(features))


def mean_of(logits: Tensor) -> Tensor:
    """Logits of members (batch, members, num_classes) → logarithms of their mean probabilities (batch, num_classes)."""
    return torch.log_softmax(logits, dim=2).logsumexp(1) - math.log(logits.shape[1])


def has_members(network: nn.Module) -> bool:
    """Whether it is a TabM, or one behind whatever embeds, with the ``forward`` that the members come from."""
    last = network[-1] if type(network) is nn.Sequential and len(network) else network
    return isinstance(last, TabM) and type(last).forward is TabM.forward


def members_of(network: Any, features: Tensor) -> Tensor:
    """The logits of each member of a network that has some."""
    if isinstance(network, TabM):
        return network.members(features)
    return network[-1].members(network[:-1](features))
