"""The size of a step: norms of its gradient and of the change of the weights, layer by layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class StepNorms:
    """Measures the norms of single steps; ``before`` and ``after`` are called around the update.

    ``gradient_norm/<layer>``: Euclidean norm of the gradient over all parameters of a layer, before any clipping;
    ``gradient_norm/all``: over all layers.
    ``update_ratio/<layer>``: norm of the change of a layer's weights (its parameters of two dimensions or more) over
    the norm of the weights; about 1e-3 is usual (Karpathy, Stanford CS231n, "Ratio of weights:updates").

    keeps_gradients: whether ``gradients`` must stay valid for others while further steps are made.
    """

    def __init__(self, network: nn.Module, *, keeps_gradients: bool = False) -> None:
        self.keeps_gradients = keeps_gradients
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.weights = {name: p.detach() for name, p in self.parameters.items() if p.ndim > 1}
        self.gradients: dict[str, Tensor] = {}
        """Of the last step, before any clipping, by the parameter's name; empty if it had none."""
        self._before: list[Tensor] = []
        self._norms: list[Tensor] = []

    @torch.no_grad()
    def before(self) -> None:
        """To be called with the gradients computed, before the update."""
        self.gradients = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        self._before = [weight.clone() for weight in self.weights.values()]
        self._norms = _norms([*self.gradients.values(), *self._before])
        if self.keeps_gradients:  # clipping changes them, and a CUDA graph's next step
            self.gradients = {name: gradient.clone() for name, gradient in self.gradients.items()}

    @torch.no_grad()
    def after(self) -> None:
        """To be called after the update; does nothing without ``before``, as with another optimiser."""
        if not self._before:
            return
        changes = [weight - before for weight, before in zip(self.weights.values(), self._before, strict=True)]
        self._norms += _norms(changes)
        self._before = []

    def figures(self) -> dict[str, float]:
        """The figures of the last step; empty before the first. Waits for the device."""
        if not self._norms:
            return {}
        values = iter(torch.stack([norm.float() for norm in self._norms]).tolist())
        of_layer: dict[str, float] = {}
        for name, norm in zip(self.gradients, values, strict=False):
            for layer in (_layer(name), "all"):
                of_layer[layer] = math.hypot(of_layer.get(layer, 0.0), norm)
        sizes = [size for _, size in zip(self.weights, values, strict=False)]
        changes = zip(self.weights, values, sizes, strict=True)
        ratios = {_layer(name): change / size for name, change, size in changes if size}
        return {
            **{f"gradient_norm/{layer}": norm for layer, norm in of_layer.items()},
            **{f"update_ratio/{layer}": ratio for layer, ratio in ratios.items()},
        }


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.linalg.vector_norm(tensor) for tensor in tensors]


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or "network"
