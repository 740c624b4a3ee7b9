"""TensorBoard reads back what was logged, at optimiser steps; the CSV goes on where it ended."""

from __future__ import annotations

import csv
import errno
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.event_file_writer import AtomicCounter

from neurona.inspection.loggers import Csv, TensorBoard, tag
from neurona.models.linear import Linear
from neurona.stages.console import quiet_writers


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


@pytest.fixture
def fit(rows, make_trainer, make_classifier):
    """Two epochs of 55 steps with a logger; a figure every 20 steps."""

    def run(logger):
        features = torch.randn(550, 4)
        trainer = make_trainer(logger=logger, max_epochs=2, limit_val_batches=1.0, log_every_n_steps=20)
        trainer.fit(make_classifier(Linear(4, 2), 4, 2), rows(features, (features[:, 0] > 0).long(), 10))
        return trainer

    return run


def test_the_step_axis_counts_optimiser_steps(fit, tmp_path):
    trainer = fit(TensorBoard(save_dir=str(tmp_path)))
    board = events(tmp_path)
    assert [event.step for event in board.Scalars("train/step_loss")] == [19, 39, 59, 79, 99]
    assert [event.step for event in board.Scalars("train/lr")] == [19, 39, 54, 59, 79, 99, 109]
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "within_classes/val/class 1"):
        assert [event.step for event in board.Scalars(name)] == [54, 109], name
    assert [event.value for event in board.Scalars("vitals/epoch")] == [0, 1]
    for name in ("train/loss", "val/loss", "val/auroc"):
        expected = trainer.callback_metrics[name].item()
        assert board.Scalars(name)[-1].value == pytest.approx(expected, rel=1e-6), name


def test_event_files_lie_in_the_folder_itself(fit, tmp_path):
    fit(TensorBoard(save_dir=str(tmp_path)))
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 1
    assert names[0].startswith("events.out.tfevents")


def test_hyperparameters_make_a_row_with_its_metrics(tmp_path):
    logger = TensorBoard(save_dir=str(tmp_path))
    logger.log_hyperparams({"optimizer.lr": 0.1, "data": "digits"}, {"best/test/accuracy": 0.97}, 110)
    logger.finalize("success")
    board = events(tmp_path)
    [event] = board.Scalars("best/test/accuracy")
    assert (event.step, event.value) == (110, pytest.approx(0.97))
    assert "hp_metric" not in board.Tags()["scalars"]
    plugin = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    params = HParamsPluginData.FromString(plugin).session_start_info.hparams
    assert params["optimizer.lr"].number_value == 0.1
    assert params["data"].string_value == "digits"
    assert "_hparams_/experiment" not in board.summary_metadata  # one run's list of columns for all of them


def test_loss_and_accuracy_come_before_the_rest():
    names = [
        "val/loss",
        "train/loss",
        "val/accuracy_of/a/b",
        "gradient_norm/head",
        "speed/x",
        "epoch",
        "mine",
        "val/f1",
    ]
    assert sorted(map(tag, names)) == [
        *("mine", "train/loss", "val/f1", "val/loss", "vitals/epoch", "vitals/gradient_norm/head", "vitals/speed/x"),
        "within_classes/val/a/b",
    ]


def test_a_run_that_goes_on_has_one_end(tmp_path):
    for _ in range(2):
        logger = TensorBoard(save_dir=str(tmp_path))
        if any(tmp_path.iterdir()):
            logger.forget_after(10)
            logger.log_metrics({"loss": 0.4}, step=11)
        else:
            logger.log_metrics({"loss": 0.5}, step=10)
        logger.log_metrics({"test/loss": 0.6}, step=11)
        logger.log_hyperparams({"seed": 0}, {"best/test/loss": 0.6}, 11)
        logger.finalize("success")
    board = events(tmp_path)
    steps = {tag: [event.step for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    assert steps == {"loss": [10, 11], "test/loss": [11], "best/test/loss": [11]}


def test_the_end_is_read_after_the_fit_whatever_number_its_file_has(tmp_path, monkeypatch):
    """Numbers 9 and 10 of this process, in one second: by name the other way round."""
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._global_uid", AtomicCounter(9))
    time.sleep(1 - time.time() % 1)
    logger = TensorBoard(save_dir=str(tmp_path))
    logger.log_metrics({"train/loss": 0.5}, step=3)
    logger.log_metrics({"test/loss": 0.4}, step=3)
    logger.save()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert [name.endswith(".end") for name in files] == [False, True]
    assert files[1].endswith(".11.end")
    assert events(tmp_path).Tags()["scalars"] == ["train/loss", "test/loss"]


def test_hyperparameters_without_metrics_make_no_row(tmp_path):
    logger = TensorBoard(save_dir=str(tmp_path))
    logger.log_hyperparams({"optimizer.lr": 0.1})
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.finalize("success")
    assert events(tmp_path).Tags()["scalars"] == ["loss"]
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 1


def lines(folder: Path) -> list[list[str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv_holds_a_line_per_figure_and_goes_on_when_resumed(tmp_path):
    for step in (10, 20):
        logger = Csv(save_dir=str(tmp_path))
        logger.log_metrics({"train/loss": step / 100, "val/loss": 0.5}, step=step)
        logger.finalize("success")
    assert lines(tmp_path) == [
        ["step", "metric", "value"],
        ["10", "train/loss", "0.1"],
        ["10", "val/loss", "0.5"],
        ["20", "train/loss", "0.2"],
        ["20", "val/loss", "0.5"],
    ]


def test_csv_of_a_fit_has_the_figures_of_every_epoch(fit, tmp_path):
    trainer = fit(Csv(save_dir=str(tmp_path)))
    header, *records = lines(tmp_path)
    values = {(int(step), name): float(value) for step, name, value in records}
    assert [step for step, name in values if name == "val/loss"] == [54, 109]
    assert values[109, "val/loss"] == pytest.approx(trainer.callback_metrics["val/loss"].item(), rel=1e-6)
    assert header == ["step", "metric", "value"]


def test_csv_survives_a_comma_in_a_name(tmp_path):
    logger = Csv(save_dir=str(tmp_path))
    logger.log_metrics({"val/accuracy_of/a,b": 0.5}, step=1)
    logger.save()
    assert lines(tmp_path)[1] == ["1", "val/accuracy_of/a,b", "0.5"]


@pytest.mark.parametrize("torn", ["", "step,metric,value\n10,a,1\n10,test/a,2\n2"])
def test_csv_of_a_session_that_was_killed_while_it_wrote(tmp_path, torn):
    (tmp_path / "metrics.csv").write_text(torn)
    logger = Csv(save_dir=str(tmp_path))
    logger.forget_after(20)
    logger.log_metrics({"a": 3}, step=30)
    logger.save()
    assert lines(tmp_path) == [["step", "metric", "value"], *([["10", "a", "1"]] if torn else []), ["30", "a", "3"]]


def test_a_disk_that_refuses_events_is_an_error_of_the_next_one_alone(tmp_path, monkeypatch, capfd):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def write(number):
        for step in range(number):
            logger.log_metrics({"loss": 1.0}, step=step)
            logger.save()

    logger = TensorBoard(save_dir=str(tmp_path))
    write(1)
    monkeypatch.setattr(LocalFileSystem, "_write", full)
    with quiet_writers(), pytest.raises(OSError, match="No space"):
        write(100)
    assert capfd.readouterr().err == ""
