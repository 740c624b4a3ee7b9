"""Pictures for TensorBoard. Drawn with Pillow: matplotlib, which the report uses, would take half a second more of a
default run's five.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from neurona.inspection.style import COLOURS

Picture = Image.Image
Curve = tuple[str, NDArray[np.float64], NDArray[np.float64]]

DARK_GREY, LIGHT_GREY = "#222222", "#DDDDDD"
WHITE, BLUE = np.array([255, 255, 255]), np.array([0, 84, 148])
MOST_NAMES = 40
MOST_CURVES = 12


def heat_map(counts: NDArray[np.int64], names: Sequence[str], title: str) -> Picture:
    """A confusion matrix, targets down and predictions across; each row is shaded by its shares."""
    size = len(counts)
    cell = max(6, min(40, 640 // size))
    labels = [_short(name) for name in names] if size <= MOST_NAMES else []
    margin = 40 + round(max((_font(12).getlength(name) for name in labels), default=0))
    width, height = margin + size * cell + 16, 34 + size * cell + margin
    image, draw = _blank(width, height, title)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shades = np.rint(WHITE + (BLUE - WHITE) * shares[..., None]).astype(np.uint8)
    image.paste(Image.fromarray(shades).resize((size * cell, size * cell), Image.Resampling.NEAREST), (margin, 34))
    font = _font(min(13, cell // 2))
    for row, column in np.argwhere(counts) if cell >= 20 else ():
        at = margin + (column + 0.5) * cell, 34 + (row + 0.5) * cell
        colour = "white" if shares[row, column] > 0.5 else DARK_GREY
        draw.text(at, _count(counts[row, column]), colour, font, anchor="mm")
    for index, name in enumerate(labels):
        middle = index * cell + cell / 2
        draw.text((margin - 6, 34 + middle), name, DARK_GREY, _font(12), anchor="rm")
        _upright(image, name, (margin + middle, 34 + size * cell + 6))
    draw.text((margin + size * cell / 2, height - 6), "prediction", DARK_GREY, _font(13), anchor="mb")
    _upright(image, "target", (10, 34 + size * cell / 2), centred=True)
    return image


def unit_plot(
    title: str,
    across: str,
    up: str,
    curves: Sequence[Curve] = (),
    bars: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Picture:
    """A plot of shares against shares, with the diagonal. curves: name, x, y. bars: their edges and heights, nan for
    none.
    """
    side, left, top = 340, 56, 34
    legend = 24 + max((round(_font(12).getlength(_short(name))) for name, _, _ in curves[:MOST_CURVES]), default=0)
    image, draw = _blank(left + side + 16 + (legend if curves else 0), top + side + 48, title)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * side, top + (1 - y) * side

    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        draw.line([at(tick, 0), at(tick, 1)], LIGHT_GREY)
        draw.line([at(0, tick), at(1, tick)], LIGHT_GREY)
        x, y = at(tick, tick)
        draw.text((x, top + side + 6), f"{tick:g}", DARK_GREY, _font(12), anchor="mt")
        draw.text((left - 6, y), f"{tick:g}", DARK_GREY, _font(12), anchor="rm")
    if bars is not None:
        for low, high, value in zip(bars[0], bars[0][1:], bars[1], strict=False):
            if not math.isnan(value):
                (x0, y0), (x1, y1) = at(low, value), at(high, 0)
                draw.rectangle((x0, y0, x1, y1), fill=COLOURS[4], outline=COLOURS[0])
    draw.line([at(0, 0), at(1, 1)], COLOURS[7], 2)
    for index, (name, xs, ys) in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        draw.line([at(x, y) for x, y in zip(xs, ys, strict=True)], colour, 2, joint="curve")
        if index < MOST_CURVES:
            y = top + 8 + 18 * index
            draw.line([(left + side + 12, y), (left + side + 26, y)], colour, 3)
            draw.text((left + side + 32, y), _short(name), DARK_GREY, _font(12), anchor="lm")
    draw.text((left + side / 2, top + side + 42), across, DARK_GREY, _font(13), anchor="mb")
    _upright(image, up, (10, top + side / 2), centred=True)
    return image


def mosaic(images: NDArray[Any], captions: Sequence[str], title: str) -> Picture:
    """Pictures (n, height, width) of shares from 0 to 1, or (n, height, width, 3) uint8, each above its caption."""
    if images.ndim == 3:
        images = (255 * np.clip(images, 0, 1)).astype(np.uint8)[..., None].repeat(3, axis=3)
    scale = max(1, 56 // max(images.shape[1:3]))
    height, width = (scale * size for size in images.shape[1:3])
    columns = math.ceil(math.sqrt(len(images)))
    wide = max(width, *(round(_font(11).getlength(_short(caption))) for caption in captions)) if captions else width
    step_x, step_y = wide + 8, height + (20 if captions else 6)
    rows = math.ceil(len(images) / columns)
    picture, draw = _blank(columns * step_x + 8, 34 + rows * step_y, title)
    for index, image in enumerate(images):
        x, y = 8 + index % columns * step_x, 34 + index // columns * step_y
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
        picture.paste(resized, (x + (wide - width) // 2, y))
        if captions:
            draw.text((x + wide / 2, y + height + 3), _short(captions[index]), DARK_GREY, _font(11), anchor="mt")
    return picture


def signed(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Weights (n, height, width) as colours (n, height, width, 3): blue below 0, white, red above, by the largest of
    each.
    """
    shares = values / np.maximum(np.abs(values).max((1, 2), keepdims=True), 1e-12)
    fading = 1 - np.abs(shares)
    red, blue = np.where(shares >= 0, 1, fading), np.where(shares <= 0, 1, fading)
    return (255 * np.stack([red, fading, blue], axis=3)).astype(np.uint8)


def _blank(width: int, height: int, title: str) -> tuple[Picture, ImageDraw.ImageDraw]:
    title = _in_one_line(title)
    image = Image.new("RGB", (max(width, round(_font(14).getlength(title)) + 20), height), "white")
    draw = ImageDraw.Draw(image)
    draw.text((10, 8), title, DARK_GREY, _font(14))
    return image, draw


def _upright(image: Picture, text: str, at: tuple[float, float], *, centred: bool = False) -> None:
    """Text from the bottom to the top, centred across; ``at`` is its upper end, or its middle."""
    width = math.ceil(_font(12).getlength(text)) + 2
    line = Image.new("RGB", (width, 16), "white")
    ImageDraw.Draw(line).text((1, 1), text, DARK_GREY, _font(12))
    x, y = round(at[0] - 8), round(at[1] - (width / 2 if centred else 0))
    image.paste(line.rotate(90, expand=True), (max(x, 0), y))


@functools.cache
def _font(size: int) -> Any:
    """DejaVu Sans, which has more letters than Pillow's own: it comes with matplotlib, which is not imported."""
    place = find_spec("matplotlib")
    assert place is not None
    assert place.origin is not None
    return ImageFont.truetype(Path(place.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", size)


def _in_one_line(text: str) -> str:
    """What can be drawn of a text: the libraries fail at line breaks and other control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _short(name: str) -> str:
    name = _in_one_line(name)
    return name if len(name) <= 24 else f"{name[:23]}…"


def _count(number: int) -> str:
    return str(number) if number < 10_000 else f"{number / 1000:.0f}k"
