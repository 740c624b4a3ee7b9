"""What the activation functions of a network do on validation data: units that are dead or saturated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

RECTIFIERS = (nn.ReLU, nn.ReLU6)

SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Sigmoid: lambda y: 4 * y * (1 - y),
    nn.Tanh: lambda y: 1 - y**2,
    nn.Softsign: lambda y: (1 - y.abs()) ** 2,
    nn.Hardtanh: lambda y: (y.abs() < 1).float(),
}
"""The slope of a function that saturates, over its steepest, by what it returns."""

FLAT_SLOPE = 0.05
"""A unit whose slope is below this share of the steepest passes back next to no gradient."""


class Units:
    """Watches the activations of a network, each (batch, width), between ``start`` and ``stop``.

    ``dead_units/<layer>``: share of a rectifier's units that are 0 for every row. ``saturated_units/<layer>``: share of
    the outputs of a sigmoid, tanh or the like where its slope is below a twentieth of the steepest.

    keeps_outputs: whether ``outputs`` is filled.
    """

    def __init__(self, network: nn.Module, *, keeps_outputs: bool = False) -> None:
        self.keeps_outputs = keeps_outputs
        kinds = {*RECTIFIERS, *SLOPES}
        self.layers = {name: module for name, module in network.named_modules() if type(module) in kinds}
        self.outputs: dict[str, Tensor] = {}
        """What each returned for the first mini-batch."""
        self._live: dict[str, Tensor] = {}
        self._flat: dict[str, list[Tensor]] = {}
        self._handles: list[Any] = []

    def start(self) -> None:
        self.outputs, self._live, self._flat = {}, {}, {}
        self._handles = [module.register_forward_hook(self._watch(name)) for name, module in self.layers.items()]

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _watch(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if self.keeps_outputs:
                self.outputs.setdefault(name, output)
            if type(module) in RECTIFIERS:
                live = output.amax(0) > 0
                self._live[name] = self._live[name] | live if name in self._live else live
            else:
                self._flat.setdefault(name, []).append((SLOPES[type(module)](output) < FLAT_SLOPE).float().mean(1))

        return hook

    def figures(self) -> dict[str, float]:
        """Of the rows seen since the last ``start``; waits for the device."""
        dead = {f"dead_units/{name}": 1 - live.float().mean() for name, live in self._live.items()}
        flat = {f"saturated_units/{name}": torch.cat(shares).mean() for name, shares in self._flat.items()}
        shares = {**dead, **flat}
        return dict(zip(shares, torch.stack([*shares.values()]).tolist(), strict=True)) if shares else {}
