"""How pictures look, whether Pillow or matplotlib draws them. Imports neither."""

from __future__ import annotations

from typing import Any

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#999999")
"""Okabe & Ito (2008, "Color Universal Design"), which colour-blind people can tell apart; last, in place of the
yellow that white paper swallows, a grey, which without the cones for green looks like the pink.
"""

STYLE: Any = {
    "font.size": 9,
    "text.parse_math": False,  # a $ in a setting is a $
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
}
"""matplotlib's settings."""
