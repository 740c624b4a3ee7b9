"""Dropout whose masks take a processor a fifth of the time that torch's take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

LEVELS = 2**15
"""Of probability: a mask's numbers have 16 bits, of which the last counts for nothing."""

LEAST_NUMBERS = 2**12
"""From which on drawing so is quicker."""


class Dropout(nn.Dropout):
    """Zeroes each number with probability ``p`` in training, and divides the others by 1 - p; see ``nn.Dropout``.

    On a processor, of 4,096 numbers or more, ``p`` is taken to the nearest 32,768th: torch draws a number of 63 bits
    for four of a mask, where ``nn.Dropout`` draws one for each, which is up to half of a step of a table's network.
    """

    compilable = True
    is_fast = True

    def forward(self, inputs: Tensor) -> Tensor:
        size, dropped = inputs.numel(), round(self.p * LEVELS)
        is_worthwhile = self.is_fast and inputs.device.type == "cpu" and size >= LEAST_NUMBERS
        if not (self.training and is_worthwhile and 0 < dropped < LEVELS):
            return super().forward(inputs)
        bits = torch.empty((size + 3) // 4, dtype=torch.int64, device="cpu").random_().bitwise_left_shift_(1)
        highest = 2 * dropped - 1 - LEVELS  # of the numbers that drop, which are from -32,768 to 32,767
        keeps = bits.view(torch.int16)[:size].clamp_(highest, highest + 1).sub_(highest)  # 0 or 1
        return inputs * keeps.view(inputs.shape).to(inputs.dtype).mul_(LEVELS / (LEVELS - dropped))


@contextlib.contextmanager
def drawn_by_torch() -> Iterator[None]:
    """Within, all masks are ``nn.Dropout``'s, for which a compiler has kernels of its own."""
    Dropout.is_fast = False
    try:
        yield
    finally:
        Dropout.is_fast = True
