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
from torch import Tensor, nn

from neurona.data.spec import DataSpec
from neurona.inspection import drawing
from neurona.inspection.loggers import TensorBoard

BLOCK_ROWS = 4096
NUM_BINS = 15
MOST_EXAMPLES = 25
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
        return wrong[np.argsort(-confidences[wrong], kind="stable")][:MOST_EXAMPLES]

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

    def log_embeddings(self, logger: TensorBoard) -> None:
        """The embeddings, labelled by target and prediction, for TensorBoard's projector: the folder ``projector``."""
        if self.embeddings is None:
            return
        count = min(len(self.rows), MOST_POINTS)
        names = [name.replace("\t", " ").replace("\n", " ") for name in self.spec.class_names]
        predictions = self.probabilities[:count].argmax(1)
        labels = [[names[t], names[p]] for t, p in zip(self.targets[:count], predictions, strict=True)]
        images = None
        if self.spec.image_shape is not None:
            height, width = self.spec.image_shape
            inked = torch.from_numpy(self.images(np.arange(count)))
            # torch's writer takes no images that are higher than wide.
            images = nn.functional.pad(1 - inked, (0, max(0, height - width)), value=1)[:, None].expand(-1, 3, -1, -1)
        shutil.rmtree(Path(logger.log_dir, "projector"), ignore_errors=True)
        # torch names the folder by the step, in whose place any word may stand: so a run that goes on has one folder.
        logger.experiment.add_embedding(
            self.embeddings[:count], labels, images, "projector", self.part, ["target", "prediction"]
        )

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
    inputs: list[Tensor] = []
    handle = heads[-1].register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0])) if heads else None
    features = data.features[rows.to(data.features.device)]
    try:
        with torch.random.fork_rng():  # a network of one's own may draw numbers even now
            blocks = [torch.softmax(classifier(x.to(classifier.device)).float(), 1) for x in features.split(BLOCK_ROWS)]
    finally:
        if handle is not None:
            handle.remove()
    is_vectors = len(inputs) == len(blocks) and all(x.ndim == 2 for x in inputs)
    return Sample(
        part,
        classifier.spec,
        rows.numpy(),
        features.cpu(),
        data.targets[rows.to(data.targets.device)].cpu().numpy(),
        torch.cat(blocks).cpu().numpy(),
        torch.cat(inputs).float().cpu().numpy() if is_vectors else None,
        total,
    )


def roc_curve(scores: NDArray[Any], positive: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rate at the thresholds that scores make, from (0, 0) to (1, 1), as scikit-learn has them:
    without those on a straight line between others, of which a good classifier has nearly all.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[ends]
    misses = ends + 1 - hits
    is_corner = (np.diff(misses, 2) != 0) | (np.diff(hits, 2) != 0)
    kept = np.concatenate([[0], 1 + np.flatnonzero(is_corner), [len(ends) - 1]]) if len(ends) > 2 else slice(None)
    return np.append(0, misses[kept] / misses[-1]), np.append(0, hits[kept] / hits[-1])


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
