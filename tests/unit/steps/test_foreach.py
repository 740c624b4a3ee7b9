"""Torch's operation on a list of tensors does what one after the other would."""

from __future__ import annotations

import torch

from neurona.steps import foreach


def test_one_is_added_in_place() -> None:
    counts = [torch.tensor(0.0), torch.tensor(41.0)]
    foreach.add_one(counts)
    assert [count.item() for count in counts] == [1.0, 42.0]
