"""Loggers that write into the run folder itself, so that a resumed run continues the same files."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from PIL.Image import Image
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from torch.utils.tensorboard.summary import hparams

from neurona.config.interpolations import storable
from neurona.config.nodes import leaves
from neurona.runs.files import as_csv, write_atomically

ENDING = ".end"
"""How the name of the event file ends that the test, and what follows it, is written to."""

CHARTS = {
    "learning": {
        "loss": ["Multiline", ["^train/loss$", "^val/loss$"]],
        "accuracy": ["Multiline", ["^train/accuracy$", "^val/accuracy$"]],
        "learning rate": ["Multiline", ["^train/lr(/|$)"]],
    },
    "layers": {
        "gradient norm": ["Multiline", ["^vitals/gradient_norm/"]],
        "update to weights": ["Multiline", ["^vitals/update_ratio/"]],
        "dead or saturated units": ["Multiline", ["^vitals/(dead|saturated)_units/"]],
    },
}
"""Figures on one chart, by name and regular expression: the tab CUSTOM SCALARS."""

VITALS = ("dead_units", "epoch", "gradient_norm", "saturated_units", "speed", "update_ratio")
"""First parts of the names of figures that describe the process of training, not its result."""

NO_RESULT = ("data.eval_batch_size", "data.root")
"""Settings that are no columns of HPARAMS, as they do not decide a result."""

FIRST = ("accuracy", "loss")
"""The figures of the best epoch and of the test that HPARAMS shows first."""


def tag(name: str) -> str:
    """What TensorBoard, which sorts groups of figures by name, calls a figure: those of training and validation come
    before what goes on in the network, and that before the accuracy of each class.
    """
    part, separator, label = name.partition("/accuracy_of/")
    if separator:
        return f"within_classes/{part}/{label}"
    return f"vitals/{name}" if name.partition("/")[0] in VITALS else name


class TensorBoard(TensorBoardLogger):
    """Event files directly in ``save_dir``: no version folders, no ``hparams.yaml`` (``config.yaml`` holds everything).

    From the test on a file of its own, which a run that goes on makes anew.
    """

    def __init__(self, *, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    @rank_zero_only
    def forget_after(self, step: int) -> None:
        """Hides what an interrupted session wrote after the checkpoint from which this session continues."""
        self._kwargs["purge_step"] = step + 1
        for file in Path(self.log_dir).glob(f"events.*{ENDING}"):
            file.unlink()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """All figures of a step in one event, which takes a fifth of the time of one event each."""
        if any(name.startswith("test/") for name in metrics):
            self._begin_end()
        values = [Summary.Value(tag=tag(name), simple_value=value) for name, value in metrics.items()]
        self.experiment.file_writer.add_summary(Summary(value=values), step)

    @rank_zero_only
    def log_picture(self, name: str, picture: Image, step: int) -> None:
        """A picture of colours, lightly compressed, which takes a fifth of the time of ``SummaryWriter.add_image``."""
        encoded = io.BytesIO()
        picture.save(encoded, format="png", compress_level=1)
        size = {"height": picture.height, "width": picture.width}
        image = Summary.Image(**size, colorspace=3, encoded_image_string=encoded.getvalue())
        self.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    @rank_zero_only
    def save(self) -> None:
        """Writes the events that were collected so far."""
        self.experiment.flush()

    def _begin_end(self) -> None:
        """Files are read in the order of their names: of the second, then of a number, of which 10 comes before 9."""
        if self._kwargs.get("filename_suffix") == ENDING:
            return
        self.experiment.close()
        fit = max(Path(self.log_dir).glob("events.*"))
        self._experiment, self._kwargs = None, {"filename_suffix": ENDING}
        self.experiment.flush()  # makes the file
        end = max(Path(self.log_dir).glob(f"events.*{ENDING}"))
        if end < fit:
            self.experiment.close()
            end.unlink()
            time.sleep(1 - time.time() % 1)
            self._experiment = None

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keeps the file open: the test and the HPARAMS row follow."""
        self.save()

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: dict[str, Any] | None = None, step: int | None = None) -> None:
        """The run's row in the HPARAMS tab: only together with its metrics, as a row without figures says nothing.

        The list of columns, which torch would write too, is left to TensorBoard: it takes the list of one run for all
        of them, and without one puts the settings first that differ between the runs it shows.
        """
        if metrics:
            self._begin_end()
            self.log_metrics(metrics, step)
            for row in hparams(dict(params), {})[1:]:
                self.experiment.file_writer.add_summary(row)


def boards(loggers: Iterable[Any]) -> list[TensorBoard]:
    """Those of the loggers that write for TensorBoard."""
    return [logger for logger in loggers if isinstance(logger, TensorBoard)]


class Quiet(Logger):
    """A logger that has no more to say of itself than the name of its class; ``config.yaml`` holds the settings."""

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


class Csv(Quiet):
    """``metrics.csv`` in ``save_dir``: one line ``step,metric,value`` per figure, appended."""

    def __init__(self, *, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._lines: list[tuple[Any, ...]] = []

    @rank_zero_only
    def forget_after(self, step: int) -> None:
        """Removes what an interrupted session wrote after the checkpoint from which this session continues."""
        if self.path.exists():
            whole, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")
            rows = [row for row in csv.reader(io.StringIO(whole)) if len(row) == 3 and row[0].isdecimal()]
            kept = [row for row in rows if int(row[0]) <= step and not row[1].startswith("test/")]  # it is tested again
            write_atomically(self.path, as_csv([("step", "metric", "value"), *kept]))

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keeps the figures until the next ``save``."""
        self._lines += [(step, name, value) for name, value in metrics.items()]

    @rank_zero_only
    def save(self) -> None:
        """Appends the collected figures to the file."""
        header = [] if self.path.exists() else [("step", "metric", "value")]
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(as_csv([*header, *self._lines]))
        self._lines = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()


def log_texts(loggers: Iterable[Logger], texts: Mapping[str, str], step: int) -> None:
    """Texts to read beside the figures, by name, verbatim; and which figures TensorBoard shows on one chart."""
    for board in boards(loggers):
        for name, text in texts.items():
            board.experiment.add_text(name, f"```\n{text}\n```", step)
        board.experiment.add_custom_scalars(CHARTS)


def hyperparameters(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a run that decide its result."""
    params: dict[str, Any] = {name: choices.get(name) for name in ("data", "model", "optimizer", "optimizer/schedule")}
    params |= {"seed": cfg.seed, "max_epochs": cfg.trainer.max_epochs, "precision": cfg.trainer.precision}
    settings, _ = storable(cfg)
    for group in ("data", "model", "optimizer", "classifier"):
        for key, value in leaves(settings[group], group, into_lists=False):
            if not key.endswith("._target_"):  # lists are shown as texts
                params[key] = value if isinstance(value, int | float | str) else str(value)
    follows = ("data.shuffle_seed",) if params.get("data.shuffle_seed") == cfg.seed else ()
    return {key: value for key, value in params.items() if key not in (*NO_RESULT, *follows)}


def log_results(loggers: Iterable[Logger], params: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """TensorBoard's row of the run: its hyperparameters, and the figures of validation and test of the best epoch."""
    final = {}
    for name, value in figures.items():
        part, _, figure = name.partition("/")
        if part in ("val", "test") and figure in FIRST:
            final[f"best/{name}"] = value
        elif part == "val" and not figure.startswith("accuracy_of/"):
            final[f"val_best/{figure}"] = value
    for board in boards(loggers):
        board.log_hyperparams(dict(params), final, figures["steps"])
