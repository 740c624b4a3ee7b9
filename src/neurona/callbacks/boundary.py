"""What a network makes of the plane while it learns: its decision boundary, drawn every few epochs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from neurona.classifier import Classifier
from neurona.data.base import InMemoryData
from neurona.devices.lightning_internals import logged_step
from neurona.errors import check_range
from neurona.inspection.loggers import boards
from neurona.runs.files import replacing

log = logging.getLogger(__name__)

RESOLUTION = 150
MARGIN = 0.1
MOST_POINTS = 1000
BLOCK_ROWS = 4096
FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 150, 2000
"""How long the animation shows a frame, and its last."""


class Boundary(Callback):
    """Draws the classes that a network of two features gives to the points of the plane, and some training rows: before
    the first epoch, after every ``every_n_epochs`` and after the last, into TensorBoard and ``boundary/`` in the run's
    folder; when the fit ends, the frames there as ``boundary.gif``, the last as ``boundary.png``.

    max_frames: besides the first and the last; the interval is doubled until they are enough for ``max_epochs``. A run
    that is resumed keeps the frames it has. Nothing is drawn of other data: more features, a table's, not in memory.
    """

    chunk_aware = True

    def __init__(self, *, every_n_epochs: int = 1, max_frames: int = 40) -> None:
        check_range("trainer.callbacks.boundary.every_n_epochs", every_n_epochs, least=1)
        check_range("trainer.callbacks.boundary.max_frames", max_frames, least=1)
        self.every_n_epochs, self.max_frames = every_n_epochs, max_frames
        self._points: tuple[Tensor, Tensor] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, InMemoryData) or pl_module.spec.schema is not None or data.features.shape[1] != 2:
            log.info("no decision boundary is drawn: it needs data with two features, in memory")
            return
        rows = data.train_rows[:: -(-len(data.train_rows) // MOST_POINTS)]
        self._points = data.features[rows].float().cpu(), data.targets[rows].cpu()
        self._folder = Path(trainer.default_root_dir, "boundary")
        self._folder.mkdir(exist_ok=True)
        self._drawn = -1
        if trainer.global_step == 0:
            self._draw(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        epoch = trainer.current_epoch + 1
        if epoch % self._interval(trainer, epoch) == 0:
            self._draw(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        if self._points is None:
            return
        last = trainer.current_epoch
        if self._drawn != last:
            self._draw(trainer, pl_module, last)
        frames = {int(file.stem): file for file in self._folder.glob("[0-9]*.png")}
        interval = self._interval(trainer, last)
        for epoch in [*frames]:  # of a session that went further, or drew more often
            if epoch > last or (epoch != last and epoch % interval):
                frames.pop(epoch).unlink()
        from PIL import Image

        first, *others = (Image.open(frames[epoch]) for epoch in sorted(frames))
        durations = [FRAME_MILLISECONDS] * len(others) + [LAST_FRAME_MILLISECONDS]
        with replacing(self._folder.with_suffix(".gif")) as file:
            first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
        with replacing(self._folder.with_suffix(".png")) as file:
            file.write(frames[last].read_bytes())

    def _interval(self, trainer: Trainer, epoch: int) -> int:
        """Epochs from one frame to the next."""
        interval = self.every_n_epochs
        while max(epoch, trainer.max_epochs or 0) > interval * self.max_frames:
            interval *= 2
        return interval

    def _draw(self, trainer: Trainer, pl_module: Classifier, epoch: int) -> None:
        if self._points is None:
            return
        low, high = self._points[0].aminmax(dim=0)
        margin = torch.where(high > low, MARGIN * (high - low), 1.0)
        axes = [torch.linspace(*ends, RESOLUTION) for ends in zip(low - margin, high + margin, strict=True)]
        with trainer.precision_plugin.forward_context():
            probabilities = predict(pl_module, torch.cartesian_prod(*axes)).unflatten(0, (RESOLUTION, RESOLUTION))
        activation = (pl_module.model_config or {}).get("activation")
        title = f"epoch {epoch}" if activation is None else f"{activation}, epoch {epoch}"
        picture = draw(axes, probabilities, *self._points, title)
        from PIL import Image

        with replacing(self._folder / f"{epoch:04d}.png") as file:
            Image.fromarray(picture).save(file, "PNG")
        for board in boards(trainer.loggers):
            board.experiment.add_image("boundary", picture, logged_step(trainer), dataformats="HWC")
        self._drawn = epoch


def predict(classifier: Classifier, features: Tensor) -> Tensor:
    """Probabilities (rows, num_classes) float32, on the CPU, as a validation gives them; the classifier is left as it
    was.
    """
    modes = {module: module.training for module in classifier.modules()}
    classifier.eval()
    with torch.inference_mode():
        logits = [classifier(block).float() for block in features.to(classifier.device).split(BLOCK_ROWS)]
    for module, mode in modes.items():
        module.training = mode
    return torch.cat(logits).softmax(1).cpu()


def draw(axes: Sequence[Tensor], probabilities: Tensor, features: Tensor, targets: Tensor, title: str) -> Any:
    """The picture, (height, width, 3) uint8: the colour of the likeliest class, the paler the less likely, and a line
    where it changes; the points in the colours of their own.

    axes: x and y, (n,) each. probabilities: (n of x, n of y, num_classes). features: (rows, 2). targets: (rows,).
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    x, y = (axis.numpy() for axis in axes)
    num_classes = probabilities.shape[2]
    colours = np.array([mpl.colormaps["tab10"](index % 10)[:3] for index in range(num_classes)])
    likely, likeliest = (values.T.numpy() for values in probabilities.max(2))
    certainty = (likely - 1 / num_classes) / (1 - 1 / num_classes)
    figure = Figure(figsize=(3.2, 3.4), dpi=100)
    canvas = FigureCanvasAgg(figure)
    panel = figure.add_axes((0, 0, 1, 0.93), xticks=[], yticks=[])
    panel.imshow(
        1 - 0.6 * certainty[..., None] * (1 - colours[likeliest]),
        extent=(x[0], x[-1], y[0], y[-1]),
        origin="lower",
        aspect="auto",
    )
    for index in range(num_classes - 1):  # every line has one of these on one of its sides
        others = torch.cat((probabilities[..., :index], probabilities[..., index + 1 :]), 2)
        lead = (probabilities[..., index] - others.amax(2)).T.numpy()
        if lead.min() < 0 < lead.max():
            panel.contour(x, y, lead, [0.0], colors="black", linewidths=1.2)
    for index, colour in enumerate(colours):
        panel.plot(*features[targets == index].T.numpy(), "o", color=colour, ms=3, mec="white", mew=0.3)
    figure.text(0.5, 0.965, title, ha="center", va="center", fontsize=10)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
