"""What a run's loggers recorded while it trained, read from the TensorBoard events or ``metrics.csv``."""

from __future__ import annotations

import csv
import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from neurona.report.runs import in_order

TAGS = ("val/loss", "train/loss", "val/accuracy", "train/accuracy")
Curves = dict[str, dict[float, float]]
"""For each figure, its values by epochs done."""


def read(folder: Path) -> Curves:
    """The figures of ``TAGS``, those of a session that a later one replaces left out. What is damaged raises whatever
    protobuf, and numbers written as text, make of it.
    """
    points: dict[str, dict[int, float]] = {tag: {} for tag in (*TAGS, "epoch")}
    for tag, step, value in _events(folder) if any(folder.glob("*tfevents*")) else _csv(folder):
        if tag is None:
            for values in points.values():
                for later in [recorded_step for recorded_step in values if recorded_step >= step]:
                    del values[later]
        elif tag in points and math.isfinite(value):
            points[tag][step] = value
    ends = points.pop("epoch")
    steps, epochs = [0, *ends], [0.0, *(number + 1 for number in ends.values())]
    curves: Curves = {}
    for tag, values in points.items():
        if done := {step: value for step, value in values.items() if step <= steps[-1]}:
            places = np.interp(list(done), steps, epochs).tolist()
            curves[tag] = dict(zip(places, done.values(), strict=True))
    return curves


def mean_and_std(curves: Sequence[dict[float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs (k,) that all the runs have, the mean (k,) over the runs and the sample standard deviation (k,), which is
    nan for one run.
    """
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
    spread = values.std(axis=0, ddof=1) if len(curves) > 1 else np.full(len(epochs), np.nan)
    return np.array(epochs), values.mean(axis=0), spread


def _events(folder: Path) -> Iterator[tuple[str | None, int, float]]:
    """Tag, step and value; the tag is None where a session begins and what was there from its step on is void.

    tensorboard's own reader imports tensorflow where it is installed, which takes longer than the whole report.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

    for file in sorted(folder.glob("*tfevents*"), key=in_order):  # of one second, by their number
        for record in _records(file.read_bytes()):
            event = Event.FromString(record)
            if event.session_log.status == SessionLog.START:
                yield None, event.step, 0.0
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield value.tag.removeprefix("vitals/"), event.step, value.simple_value


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, contents, their checksum. A last one still being written
    is left out.
    """
    place = 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        end = place + 12 + length
        if end + 4 > len(data):
            return
        yield data[place + 12 : end]
        place = end + 4


def _csv(folder: Path) -> Iterator[tuple[str | None, int, float]]:
    if (folder / "metrics.csv").is_file():
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            for row in itertools.islice(csv.reader(file), 1, None):
                if len(row) == 3:
                    yield row[1], int(row[0]), float(row[2])
