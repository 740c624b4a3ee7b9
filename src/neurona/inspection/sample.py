"""Rows of one part of the data, what a network says of them, and what TensorBoard shows of that."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from neurona.data.spec import DataSpec
from neurona.inspection import drawing
from neurona.runs.files import replacing, write_atomically

BLOCK_ROWS = 4096
NUM_BINS = 15
MOST_WRONG = 25
MOST_POINTS = 1000
MOST_COLUMNS = 24


@dataclass(frozen=True)
class Sample:
    """rows: (n,) int64, indices in the data set. features: (n, num_features) as the data set holds them. targets: (n,)
    int64. probabilities: (n, num_classes) float32. embeddings: (n, width), what the last linear layer is given, if the
    network has one. total: rows of the part.
    """

    part: str
    spec: DataSpec
    rows: NDArray[np.int64]
    features: Tensor
    targets: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    total: int

    @property
    def title(self) -> str:
        """The part, and how many of its rows are looked at."""
        rows = f"{len(self.rows):,}" if len(self.rows) == self.total else f"{len(self.rows):,} of {self.total:,}"
        return f"{self.part}, {rows} rows"

    def by_class(self) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.bool_]]]:
        """For each class that some rows have and others have not: its name, its probabilities, which rows have it."""
        for index, name in enumerate(self.spec.class_names):
            positive = self.targets == index
            if 0 < positive.sum() < len(positive):
                yield name, self.probabilities[:, index], positive

    def confusion(self) -> drawing.Picture:
        """The confusion matrix."""
        size = self.spec.num_classes
        counts = np.bincount(self.targets * size + self.probabilities.argmax(1), minlength=size**2).reshape(size, size)
        return drawing.heat_map(counts, self.spec.class_names, f"confusion matrix: {self.title}")

    def roc(self) -> drawing.Picture:
        """The ROC curve of each class against the rest."""
        curves = [(name, *roc_curve(scores, positive)) for name, scores, positive in self.by_class()]
        return drawing.unit_plot(
            f"ROC of each class: {self.title}", "false positive rate", "true positive rate", curves
        )

    def reliability(self) -> drawing.Picture:
        """The accuracy of the predictions of about the same confidence."""
        bars = reliability(self.probabilities, self.targets)
        return drawing.unit_plot(f"reliability: {self.title}", "confidence", "accuracy", bars=bars)

    def most_wrong(self) -> NDArray[np.int64]:
        """Positions of the wrong predictions, the most confident first."""
        confidences = self.probabilities.max(1)
        wrong = np.flatnonzero(self.probabilities.argmax(1) != self.targets)
        return wrong[np.argsort(-confidences[wrong], kind="stable")][:MOST_WRONG]

    def wrong_images(self, positions: NDArray[np.int64]) -> drawing.Picture:
        """Those rows as images, each above its target, its prediction and the probability of that."""
        images = self.images(positions)
        captions = [
            f"{target} → {prediction} {share:.0%}" for _, target, prediction, share in self._verdicts(positions)
        ]
        return drawing.mosaic(images, captions, f"target → prediction: {self.title}")

    def wrong_rows(self, positions: NDArray[np.int64]) -> str:
        """Those rows as a Markdown table."""
        names, values = self.spec.cells(self.features[positions].double().numpy())
        lines = [["row", "target", "prediction", "probability", *names[:MOST_COLUMNS]]]
        for (row, target, prediction, share), cells in zip(self._verdicts(positions), values, strict=True):
            lines.append([str(row), target, prediction, f"{share:.3f}", *cells[:MOST_COLUMNS]])
        lines.insert(1, ["---"] * len(lines[0]))
        return "\n".join(
            "|" + "|".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + "|" for line in lines
        )

    def images(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows as images of shares from 0 to 1, (n, height, width); of image data only."""
        assert self.spec.image_shape is not None
        pixels = self.features[torch.from_numpy(positions)].float() / max(float(self.features.max()), 1e-12)
        return pixels.reshape(-1, *self.spec.image_shape).numpy()

    def write_projector(self, folder: Path) -> None:
        """The embeddings, labelled by target and prediction, as files that TensorBoard's projector reads."""
        if self.embeddings is None:
            return
        count = min(len(self.rows), MOST_POINTS)
        names = [name.replace("\t", " ").replace("\n", " ") for name in self.spec.class_names]
        place = folder / "projector"
        shutil.rmtree(place, ignore_errors=True)
        vectors = "\n".join("\t".join(f"{value:.6g}" for value in row) for row in self.embeddings[:count].tolist())
        write_atomically(place / "tensors.tsv", f"{vectors}\n")
        predictions = self.probabilities.argmax(1)
        pairs = zip(self.targets[:count].tolist(), predictions[:count].tolist(), strict=True)
        labels = "\n".join(f"{names[target]}\t{names[prediction]}" for target, prediction in pairs)
        write_atomically(place / "metadata.tsv", f"target\tprediction\n{labels}\n")
        sprite = ""
        if self.spec.image_shape is not None:
            height, width = self.spec.image_shape
            side = int(np.ceil(np.sqrt(count)))
            images = np.zeros((side * side, height, width), dtype=np.uint8)
            images[:count] = 255 * (1 - self.images(np.arange(count)))
            sheet = images.reshape(side, side, height, width).swapaxes(1, 2)
            with replacing(place / "sprite.png") as file:
                Image.fromarray(sheet.reshape(side * height, side * width)).save(file, format="png")
            dimensions = f"single_image_dim: {width} single_image_dim: {height}"
            sprite = f' sprite {{ image_path: "projector/sprite.png" {dimensions} }}'
        paths = 'tensor_path: "projector/tensors.tsv" metadata_path: "projector/metadata.tsv"'
        config = f'embeddings {{ tensor_name: "{self.part}" {paths}{sprite} }}\n'
        write_atomically(folder / "projector_config.pbtxt", config)

    def _verdicts(self, positions: NDArray[np.int64]) -> Iterator[tuple[int, str, str, float]]:
        """Row, target, prediction and its probability of each position."""
        names = self.spec.class_names
        for position in positions.tolist():
            shares = self.probabilities[position]
            prediction = int(shares.argmax())
            yield int(self.rows[position]), names[self.targets[position]], names[prediction], float(shares[prediction])


@torch.inference_mode()
def take(classifier: Any, data: Any, part: str, most_rows: int) -> Sample | None:
    """The sample of ``part`` (val or test), at most so many rows, drawn at random but always the same; None where the
    part is empty, or the data are not in memory. The classifier is to be in evaluation mode.
    """
    rows: Tensor | None = getattr(data, f"{part}_rows", None)
    if rows is None or not len(rows):
        return None
    total = len(rows)
    if total > most_rows:
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0))[:most_rows]
        rows = rows[order.sort().values]
    heads = [module for module in classifier.network.modules() if isinstance(module, nn.Linear)]
    given: list[Tensor] = []
    handle = heads[-1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])) if heads else None
    features = data.features[rows.to(data.features.device)]
    try:
        with torch.random.fork_rng():  # a network of one's own may draw numbers even now
            blocks = [torch.softmax(classifier(x.to(classifier.device)).float(), 1) for x in features.split(BLOCK_ROWS)]
    finally:
        if handle is not None:
            handle.remove()
    is_vectors = len(given) == len(blocks) and all(x.ndim == 2 for x in given)
    return Sample(
        part,
        classifier.spec,
        rows.numpy(),
        features.cpu(),
        data.targets[rows.to(data.targets.device)].cpu().numpy(),
        torch.cat(blocks).cpu().numpy(),
        torch.cat(given).float().cpu().numpy() if is_vectors else None,
        total,
    )


def roc_curve(scores: NDArray[Any], positive: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rate at every threshold that a score makes, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[ends]
    misses = ends + 1 - hits
    return np.append(0, misses / misses[-1]), np.append(0, hits / hits[-1])


def reliability(
    probabilities: NDArray[Any], targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 16 edges of 15 equal bins (a, b] of confidence, and the accuracy in each, nan in an empty one: the parts of
    the calibration error (Guo et al. 2017, arXiv:1706.04599, section 2).
    """
    edges = np.linspace(0, 1, NUM_BINS + 1)
    confidences = probabilities.max(1).astype(np.float64)
    bins = np.clip(np.ceil(confidences * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    correct = np.bincount(bins, probabilities.argmax(1) == targets, minlength=NUM_BINS)
    return edges, np.divide(correct, counts, out=np.full(NUM_BINS, np.nan), where=counts > 0)
