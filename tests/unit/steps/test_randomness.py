from __future__ import annotations

import random

import numpy as np
import torch

from neurona.steps.randomness import drawn, restore_rng, rng_state


def draws() -> list[float]:
    """From each generator, an odd number of normals among them: both keep the second of a pair for later."""
    python = [random.random(), random.gauss(0, 1)]
    numpy = [np.random.rand(), np.random.normal()]  # noqa: NPY002  (the global state is what is tested)
    return [*python, *numpy, torch.rand(1).item(), torch.randn(1).item()]


def test_random_generators_go_on_where_the_state_was_taken(tmp_path):
    draws()
    torch.save(rng_state(), tmp_path / "rng.pt")
    expected = [draws(), draws()]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(99)
    assert draws() not in expected
    restore_rng(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert [draws(), draws()] == expected


def test_what_is_drawn_in_python_is_told():
    for draw in (random.random, np.random.rand, lambda: random.gauss(0, 1), np.random.normal):
        before = drawn()
        torch.rand(3)
        assert drawn() == before
        draw()
        assert drawn() != before
