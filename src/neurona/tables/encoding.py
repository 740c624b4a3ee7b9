"""Encoding of a table's raw columns: fitted on the training rows, applied inside the classifier, stored with it.

A raw row holds the numbers first, NaN where missing, then the categorical columns as ids: 0 for missing or unknown,
then the categories from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Numeric = Literal["standard", "robust", "quantile", "piecewise", "standard_piecewise"]
Knots = tuple[NDArray[np.float64], NDArray[np.float64]]
WITH_MEAN = ("standard", "standard_piecewise")
"""Encodings in which a missing number becomes the mean; in the others it is the median."""
MOST_PIECES = 1000
MOST_UNASKED = 32
ROWS_PER_PIECE = 320
FEW_VALUES = 32
_SMALLEST_WIDTH = 1e-30  # of a piece, whose inverse float32 still holds


class Encoding(nn.Module):
    """(batch, columns) raw → (batch, num_outputs): numbers, missing indicators, one-hot codes, then category ids.

    pieces: of each numeric column. Piece k of a column gives ``clamp((x - low_k) * scale_k, 0, 1)``, and

        standard, robust: one piece, not clamped: (x - mean) / deviation, or (x - median) / interquartile range.
        piecewise: every piece is an output, the first not clamped below and the last not above (Gorishniy et al. 2022,
            arXiv:2203.05556, eq. 1).
        standard_piecewise: the outputs of standard for all columns, then those of piecewise for columns of more than 32
            values: pieces that tell single values apart do harm.
        quantile: one output, offset + the sum of step_k times piece k: linear between the knots, constant beyond them.

    A missing number is replaced, by the mean where there is a standard one, else the median. indicators: the raw
    columns that had missing values in training; a numeric one gets an indicator, a categorical one a one-hot place for
    id 0. cardinalities: number of ids of each categorical column; one of more than max_one_hot categories stays an id,
    for a learned embedding. The others become one-hot codes, all 0 for a category that training did not know.

    num_outputs: columns it gives. num_numbers: of them, the first ones that are one number each; 0 where piecewise.
    embedded: numbers of ids of the last columns, those that stay ids.
    """

    compilable = True

    low: Tensor
    scale: Tensor
    fill: Tensor
    offset: Tensor
    step: Tensor
    floor: Tensor
    ceiling: Tensor
    kept: Tensor
    indicated: Tensor
    one_hot_columns: Tensor
    one_hot_ids: Tensor
    id_columns: Tensor

    def __init__(
        self,
        *,
        numeric: Numeric,
        pieces: Sequence[int],
        indicators: Sequence[int],
        cardinalities: Sequence[int],
        max_one_hot: int,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "numeric": numeric,
            "pieces": list(pieces),
            "indicators": list(indicators),
            "cardinalities": list(cardinalities),
            "max_one_hot": max_one_hot,
        }
        """What makes the same module again, as plain data."""
        count, longest = len(pieces), max(pieces, default=0)
        for name, width in (("low", longest), ("scale", longest), ("step", longest)):
            self.register_buffer(name, torch.zeros(count, width))
        for name in ("fill", "offset"):
            self.register_buffer(name, torch.zeros(count))

        kept = [column * longest + k for column, k in _places(numeric, pieces)]
        indicated = [column for column in indicators if column < count]
        is_id, has_missing = [cardinality - 1 > max_one_hot for cardinality in cardinalities], set(indicators)
        ids = [column for column, stays in enumerate(is_id, start=count) if stays]
        self.embedded = [cardinality for cardinality, stays in zip(cardinalities, is_id, strict=True) if stays]
        one_hot = [
            (column, id_)
            for column, cardinality in enumerate(cardinalities, start=count)
            if not is_id[column - count]
            for id_ in range(0 if column in has_missing else 1, cardinality)
        ]
        floor, ceiling = _bounds(numeric, pieces)
        for name, tensor in (
            ("floor", floor),
            ("ceiling", ceiling),
            ("kept", torch.tensor(kept, dtype=torch.int64)),
            ("indicated", torch.tensor(indicated, dtype=torch.int64)),
            ("one_hot_columns", torch.tensor([column for column, _ in one_hot], dtype=torch.int64)),
            ("one_hot_ids", torch.tensor([float(id_) for _, id_ in one_hot])),
            ("id_columns", torch.tensor(ids, dtype=torch.int64)),
        ):
            self.register_buffer(name, tensor, persistent=False)  # they follow from the settings
        self.is_linear, self.sums = numeric in ("standard", "robust"), numeric == "quantile"
        self.num_numbers = 0 if numeric == "piecewise" else count
        num_numeric = count if self.sums else len(kept)
        self.num_outputs = num_numeric + len(indicated) + len(one_hot) + len(ids)

    @property
    def sources(self) -> Tensor:
        """The raw column that each output comes from, (num_outputs,) int64."""
        count, longest = self.low.shape
        numbers = torch.arange(count, device=self.kept.device) if self.sums else self.kept // max(1, longest)
        return torch.cat([numbers, self.indicated, self.one_hot_columns, self.id_columns])

    def forward(self, features: Tensor) -> Tensor:
        dtype = self.low.dtype
        numbers = features[:, : len(self.low)].to(dtype)
        filled = torch.where(numbers.isnan(), self.fill, numbers)
        if self.is_linear:
            encoded = (filled - self.low.flatten()) * self.scale.flatten()
        else:
            parts = ((filled.unsqueeze(2) - self.low) * self.scale).clamp(self.floor, self.ceiling)
            encoded = self.offset + (parts * self.step).sum(2) if self.sums else parts.flatten(1)[:, self.kept]
        outputs = [encoded]  # of what there is: a small network's step takes longer by every call
        if len(self.indicated):
            outputs.append(features[:, self.indicated].isnan().to(dtype))
        if len(self.one_hot_columns):
            outputs.append((features[:, self.one_hot_columns] == self.one_hot_ids).to(dtype))
        if len(self.id_columns):
            outputs.append(features[:, self.id_columns].to(dtype))
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else encoded


def _places(numeric: Numeric, pieces: Sequence[int]) -> list[tuple[int, int]]:
    """The pieces that are outputs, in their order, as (column, number of the piece)."""
    places = [(column, k) for column, number in enumerate(pieces) for k in range(number)]
    return sorted(places, key=lambda place: place[1] > 0) if numeric == "standard_piecewise" else places


def _bounds(numeric: Numeric, pieces: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Between what each piece is clamped: (columns, pieces of the longest)."""
    shape = len(pieces), max(pieces, default=0)
    floor, ceiling = torch.zeros(shape), torch.ones(shape)
    first = 1 if numeric == "standard_piecewise" else 0  # after the one that is not clamped
    if numeric != "quantile":
        for column, number in enumerate(pieces):
            floor[column, : first + 1], ceiling[column, number - 1 : number] = -torch.inf, torch.inf
            ceiling[column, :first] = torch.inf
    return floor, ceiling


def fit(
    features: Tensor,
    rows: Tensor,
    cardinalities: Sequence[int],
    *,
    numeric: Numeric = "piecewise",
    max_pieces: int = 32,
    max_one_hot: int = 256,
) -> Encoding:
    """The encoding fitted on these rows of raw features (N, num_features) float32, accumulated in float64.

    cardinalities: ids of each of the last columns, which are categorical. max_pieces: of a numeric column where the
    encoding is piecewise or quantile; their ends are all its values where they are few enough, else its quantiles.
    """
    count = features.shape[1] - len(cardinalities)
    knots: list[list[Knots]] = []
    fills, indicators = [], []
    for column in range(count):
        values = features[rows, column].double().numpy()
        numbers = np.sort(values[~np.isnan(values)])
        if len(numbers) < len(values):
            indicators.append(column)
        numbers = numbers if len(numbers) else np.zeros(1)
        fills.append(numbers.mean() if numeric in WITH_MEAN else np.median(numbers))
        knots.append([method(numbers, max_pieces) for method in _FITS[numeric]])
    indicators += [column for column in range(count, features.shape[1]) if bool((features[rows, column] == 0).any())]
    encoding = Encoding(
        numeric=numeric,
        pieces=[sum(len(places) - 1 for places, _ in of_column) for of_column in knots],
        indicators=indicators,
        cardinalities=cardinalities,
        max_one_hot=max_one_hot,
    )
    encoding.fill.copy_(torch.tensor(np.array(fills)))
    for column, of_column in enumerate(knots):
        number = encoding.settings["pieces"][column]
        lows, widths, steps = (
            np.concatenate(parts)
            for parts in zip(
                *((places[:-1], np.diff(places), np.diff(scores)) for places, scores in of_column), strict=True
            )
        )
        encoding.low[column, :number] = torch.from_numpy(lows)
        # No less than what counts as more than zero where subnormal numbers are flushed, see neurona.cpu.
        encoding.scale[column, :number] = torch.from_numpy(np.maximum(1 / widths, np.finfo(np.float32).tiny))
        encoding.step[column, :number] = torch.from_numpy(steps)
        encoding.offset[column] = of_column[0][1][0]
    return encoding


def suited(numeric: Numeric, rows: int, max_pieces: int | None) -> tuple[Numeric, int]:
    """The encoding for so many training rows, and the most pieces of a number: ``max_pieces``, if that is set; else 32,
    but where numbers are standard beside the pieces one for each 320 rows, and none where that is fewer than two.
    """
    if max_pieces is not None or numeric != "standard_piecewise":
        return numeric, max_pieces or MOST_UNASKED
    pieces = min(MOST_UNASKED, rows // ROWS_PER_PIECE)
    return (numeric, pieces) if pieces >= 2 else ("standard", 1)


def _standard(numbers: NDArray[np.float64], _: int) -> Knots:
    return _line(numbers.mean(), numbers.std())


def _robust(numbers: NDArray[np.float64], _: int) -> Knots:
    first, median, third = np.quantile(numbers, [0.25, 0.5, 0.75])
    return _line(median, third - first)


def _line(origin: float, spread: float) -> Knots:
    """A single piece from origin to origin + spread; a constant column is only centred, as in scikit-learn."""
    width = spread if spread > _SMALLEST_WIDTH else max(1.0, np.spacing(abs(origin)))  # origin + 1 may be origin
    return np.array([origin, origin + width]), np.array([0.0, 1.0])


def _piecewise(numbers: NDArray[np.float64], max_pieces: int) -> Knots:
    places = np.unique(numbers)
    if len(places) > max_pieces + 1:
        places = np.unique(np.quantile(numbers, np.linspace(0, 1, max_pieces + 1)))
    wide = np.diff(places, prepend=-np.inf) > _SMALLEST_WIDTH
    return places[wide], np.arange(wide.sum(), dtype=np.float64)


def _piecewise_of_many(numbers: NDArray[np.float64], max_pieces: int) -> Knots:
    places, scores = _piecewise(numbers, max_pieces)
    return (places, scores) if len(np.unique(numbers)) > FEW_VALUES else (places[:1], scores[:1])


def _quantile(numbers: NDArray[np.float64], max_pieces: int) -> Knots:
    """A knot's score is Φ⁻¹ of its mid-distribution function, (rows below + half the rows equal) / rows: no value, not
    even the largest, is infinitely far out, and ties get the score of their middle (Parzen 2004, "Quantile probability
    and statistical data modeling", section 4).
    """
    places, _ = _piecewise(numbers, max_pieces)
    ranks = (np.searchsorted(numbers, places, "left") + np.searchsorted(numbers, places, "right")) / 2 / len(numbers)
    half = 0.5 / len(numbers)
    return places, torch.special.ndtri(torch.from_numpy(ranks.clip(half, 1 - half))).numpy()


_FITS: dict[str, list[Callable[[NDArray[np.float64], int], Knots]]] = {
    "standard": [_standard],
    "robust": [_robust],
    "piecewise": [_piecewise],
    "quantile": [_quantile],
    "standard_piecewise": [_standard, _piecewise_of_many],
}
