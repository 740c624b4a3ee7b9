"""The curve of a range test as a picture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neurona.stages import lr_find


@pytest.mark.parametrize("suggestion", [1e-2, None])
def test_the_picture_shows_both_curves_and_the_suggestion(suggestion: float | None) -> None:
    losses = np.geomspace(2, 0.5, 20)
    test: Any = SimpleNamespace(rates=np.geomspace(1e-4, 1, 20), losses=losses, smoothed=losses + 0.1)
    (axis,) = lr_find.draw(test, suggestion).axes
    each, average, *marks = axis.lines
    np.testing.assert_array_equal(each.get_xydata(), np.stack([test.rates, losses], axis=1))
    np.testing.assert_array_equal(average.get_ydata(), test.smoothed)
    assert axis.get_xscale() == "log"
    assert [mark.get_xdata()[0] for mark in marks] == ([] if suggestion is None else [suggestion])
