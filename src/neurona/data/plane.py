"""Two classes in the plane that no straight line separates: what a network makes of them can be drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from neurona.data.base import InMemoryData, Table
from neurona.errors import check_range, check_seed

CLASS_NAMES = {"moons": ("upper", "lower"), "circles": ("outer", "inner"), "spirals": ("first", "second")}


@dataclass(kw_only=True, eq=False, repr=False)
class Plane(InMemoryData):
    """Points spread evenly along two curves, plus normal noise of standard deviation ``noise`` in both coordinates.

    shape: moons, half circles of radius 1 that reach into each other (scikit-learn's make_moons); circles, of radius 2
    and 1 around the origin (make_circles with factor 0.5, twice as large); spirals, Archimedean ones of radius
    angle / π, from angle π/2 to 3π, the second being the first turned by half a turn. Row i belongs to class i mod 2.
    Raises ConfigError for a value out of range.
    """

    shape: Literal["moons", "circles", "spirals"] = "moons"
    num_samples: int = 1000
    noise: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("data.num_samples", self.num_samples, least=2)
        check_range("data.noise", self.noise, least=0)
        check_seed("data.seed", self.seed)

    def read(self) -> Table:
        share = torch.linspace(0, 1, math.ceil(self.num_samples / 2), dtype=torch.float64)
        if self.shape == "moons":
            x, y = (math.pi * share).cos(), (math.pi * share).sin()
            first, second = (x, y), (1 - x, 0.5 - y)
        elif self.shape == "circles":
            angle = 2 * math.pi * torch.arange(len(share), dtype=torch.float64) / len(share)
            x, y = angle.cos(), angle.sin()
            first, second = (2 * x, 2 * y), (x, y)
        else:
            angle = math.pi * (0.5 + 2.5 * share)
            x, y = angle / math.pi * angle.cos(), angle / math.pi * angle.sin()
            first, second = (x, y), (-x, -y)
        curves = torch.stack([torch.stack(first, 1), torch.stack(second, 1)], 1)
        features = curves.reshape(-1, 2)[: self.num_samples].float().contiguous()
        generator = torch.Generator().manual_seed(self.seed)
        features += torch.empty_like(features).normal_(0, self.noise, generator=generator)
        return Table(features, torch.arange(self.num_samples) % 2, CLASS_NAMES[self.shape])
