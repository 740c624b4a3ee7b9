"""Learning curves from event files written by TensorBoard's own writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from neurona.report import curves


def write(folder: Path, suffix: str, *points: tuple[int, dict[str, float]], begins_at: int | None = None) -> Path:
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    if begins_at is not None:
        writer.add_event(Event(step=begins_at, session_log=SessionLog(status=SessionLog.START)))
    for step, figures in points:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        writer.add_event(Event(step=step, summary=Summary(value=values)))
    writer.close()
    return next(folder.glob(f"*{suffix}"))


def test_by_epochs(tmp_path: Path) -> None:
    points = [(step, {"val/loss": 1 / step, "epoch": step / 4 - 1, "train/lr": 0.1}) for step in (4, 8)]
    write(tmp_path, ".a", (2, {"val/loss": 0.75}), *points, (10, {"val/loss": 0.0}))
    # Half an epoch is 2 steps; what belongs to an epoch that has not ended is left out.
    assert curves.read(tmp_path) == {"val/loss": {0.5: 0.75, 1.0: 0.25, 2.0: 0.125}}


def test_a_later_session_replaces_what_it_does_again(tmp_path: Path) -> None:
    first = [(step, {"train/loss": float(step), "epoch": step - 1.0}) for step in (1, 2, 3, 4)]
    sessions = [
        write(tmp_path, ".1", *first, (3, {"val/loss": 1.0})),
        write(tmp_path, ".2", (3, {"train/loss": -3.0, "epoch": 2.0}), begins_at=3),
    ]
    for number, file in enumerate(sessions, 9):  # of one second and one process
        file.rename(tmp_path / f"events.out.tfevents.1700000000.host.7.{number}")
    assert curves.read(tmp_path) == {"train/loss": {1.0: 1.0, 2.0: 2.0, 3.0: -3.0}}


def test_a_file_cut_off_in_a_record(tmp_path: Path) -> None:
    file = write(tmp_path, ".a", *((step, {"train/loss": 1.0, "epoch": step - 1.0}) for step in (1, 2, 3)))
    for left in (file.stat().st_size - 1, file.stat().st_size - 40):
        file.write_bytes(file.read_bytes()[:left])
        assert list(curves.read(tmp_path)["train/loss"]) == [1.0, 2.0]


def test_the_csv_logger(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,metric,value\n5,val/accuracy,0.5\n5,epoch,0\n7,val/acc")
    assert curves.read(tmp_path) == {"val/accuracy": {1.0: 0.5}}


def test_no_loggers(tmp_path: Path) -> None:
    assert curves.read(tmp_path) == {}


def test_mean_and_band_up_to_the_last_common_epoch() -> None:
    epochs, mean, std = curves.mean_and_std([{1.0: 2.0, 2.0: 3.0}, {1.0: 4.0, 2.0: 4.0, 3.0: 9.0}])
    assert epochs.tolist() == [1, 2]
    assert mean.tolist() == [3.0, 3.5]
    assert std == pytest.approx([2**0.5, 0.5**0.5])
    assert np.isnan(curves.mean_and_std([{1.0: 2.0}])[2]).all()
