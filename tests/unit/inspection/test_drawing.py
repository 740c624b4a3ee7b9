"""Pictures show what they are given: looked up pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from neurona.inspection import drawing


def test_a_heat_map_shades_each_row_by_its_shares() -> None:
    picture = np.asarray(drawing.heat_map(np.array([[9, 1], [0, 5]]), ["a", "b"], "title"))
    blue = (picture == (0, 84, 148)).all(2)
    white = (picture == 255).all(2)
    assert 25**2 < blue.sum() <= 40**2  # one cell, less its number: all of b
    rows, columns = np.nonzero(blue)
    cell = picture[rows.min() - 40 : rows.min(), columns.min() - 40 : columns.min()]
    assert (cell == (26, 101, 159)).all(2).mean() > 0.8  # nine tenths of a
    assert white[rows.min() : rows.max(), columns.min() - 40 : columns.min()].all()  # none of b taken for a


@pytest.mark.parametrize("size", [2, 26, 300])
def test_many_classes_fit(size: int) -> None:
    names = [f"a rather long name of class {index}" for index in range(size)]
    picture = drawing.heat_map(np.eye(size, dtype=np.int64) * 12_345, names, "title")
    assert max(picture.size) < 2000


def test_bars_reach_their_values_and_missing_ones_are_left_out() -> None:
    edges, heights = np.linspace(0, 1, 4), np.array([0.5, np.nan, 1.0])
    picture = np.asarray(drawing.unit_plot("title", "x", "y", bars=(edges, heights)))
    blue = (picture == (0x56, 0xB4, 0xE9)).all(2)
    columns = blue[34:374, 56:396].sum(0)
    assert columns[30] == pytest.approx(170, abs=4)
    assert columns[170] == 0
    assert columns[310] == pytest.approx(340, abs=4)


def test_a_curve_goes_through_its_points() -> None:
    curve = ("one", np.array([0, 0, 1.0]), np.array([0, 1.0, 1.0]))
    picture = np.asarray(drawing.unit_plot("title", "x", "y", [curve]))
    colour = (picture == (0, 0x72, 0xB2)).all(2)
    assert colour[34:374, 55:58].any(1).mean() > 0.9  # up the left side
    assert colour[33:36, 56:396].any(0).mean() > 0.9  # and along the top


def test_a_mosaic_holds_every_image_above_its_caption() -> None:
    images = np.zeros((5, 8, 8))
    images[:, 0, 0] = np.arange(1, 6) / 10
    picture = np.asarray(drawing.mosaic(images, ["3 as 5"] * 5, "title"))
    shades = {int(pixel[0]) for pixel in picture.reshape(-1, 3) if len(set(pixel.tolist())) == 1}
    assert {int(255 * share / 10) for share in range(1, 6)} <= shades


def test_weights_are_red_above_zero_and_blue_below() -> None:
    colours = drawing.signed(np.array([[[2.0, -2.0], [0.0, 1.0]]], dtype=np.float32))
    assert colours[0].tolist() == [[[255, 0, 0], [0, 0, 255]], [[255, 255, 255], [255, 127, 127]]]
