"""Okabe and Ito's colours can be told apart by the colour-blind too; matplotlib takes the settings."""

from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest

from neurona.inspection.style import COLOURS, STYLE

# Linear RGB as it is seen without one kind of cones: Machado, Oliveira & Fernandes 2009, "A physiologically-based model
# for simulation of color vision deficiency", table 1, severity 1.
SIGHT = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("kind", SIGHT)
def test_any_two_of_the_first_seven_colours_differ_to_everyone(kind: str) -> None:
    linear = np.array([mpl.colors.to_rgb(colour) for colour in COLOURS[:7]]) ** 2.2
    seen = np.clip(linear @ np.array(SIGHT[kind]).T, 0, 1) ** (1 / 2.2)
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.15


def test_matplotlib_takes_the_settings_and_leaves_a_dollar_alone() -> None:
    with mpl.rc_context(STYLE):
        assert not mpl.text.Text(text="$x$").get_parse_math()
