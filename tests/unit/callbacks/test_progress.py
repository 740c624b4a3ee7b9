"""A bar on a terminal, lines elsewhere, nothing when quiet; what is shown is the epoch's own."""

from __future__ import annotations

import contextlib
import io
import logging
import sys

import pytest
import torch

from neurona.callbacks.progress import Progress, followed
from neurona.classifier import Classifier
from neurona.errors import ConfigError
from neurona.models.linear import Linear

LOGGER = "neurona.callbacks.progress"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def fit(rows, make_trainer, make_classifier):
    """Three epochs of 6 steps; returns the train and validation figures of each, as reported."""

    def run(progress: Progress, kind=Classifier, **arguments) -> list[dict[str, float]]:
        classifier = make_classifier(Linear(4, 2), 4, 2, kind=kind)
        reported: list[dict[str, float]] = []
        report = classifier.report
        classifier.report = lambda figures: (reported.append(figures), report(figures))
        trainer = make_trainer(progress, **{"max_epochs": 3, "limit_val_batches": 1.0} | arguments)
        features = torch.randn(60, 4)
        trainer.fit(classifier, rows(features, (features[:, 0] > 0).long(), 10))
        epochs: list[dict[str, float]] = []
        for figures in reported:  # validation reports first, then the epoch
            epochs = [*epochs, figures] if "train/loss" not in figures else [*epochs[:-1], {**epochs[-1], **figures}]
        return epochs

    return run


class OwnStep(Classifier):
    """Tells no accuracy."""

    def training_step(self, batch, batch_idx):
        return self.loss(*batch)[0]


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def test_off_a_terminal_every_epoch_has_a_line_with_its_own_figures(fit, caplog, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO, LOGGER):
        epochs = fit(Progress(every_seconds=0.0))
    names = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
    assert lines(caplog) == [
        f"epoch {number}/3  step {6 * number}  " + "  ".join(f"{name} {figures[name]:.4f}" for name in names)
        for number, figures in enumerate(epochs, start=1)
    ]
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_what_a_step_of_ones_own_does_not_tell_is_left_out(fit, caplog, monkeypatch, stderr):
    monkeypatch.setattr(sys, "stderr", stderr())
    with caplog.at_level(logging.INFO, LOGGER):
        epochs = fit(Progress(every_seconds=0.0), OwnStep)
    names = ("train/loss", "val/loss", "val/accuracy")
    assert lines(caplog)[0].partition("  step 6  ")[2].split("  ") == [
        f"{name} {epochs[0][name]:.4f}" for name in names
    ]
    assert "nan" not in sys.stderr.getvalue()


def test_lines_keep_their_distance(fit, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        fit(Progress(every_seconds=60.0, history=False))
    assert lines(caplog) == []


@pytest.mark.parametrize("history", [True, False])
def test_on_a_terminal_there_is_a_bar_and_the_lines_of_a_history(history, fit, caplog, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with caplog.at_level(logging.INFO, LOGGER):
        fit(Progress(every_seconds=0.0, history=history))
    shown = sys.stderr.getvalue()
    assert "0/18" in shown
    assert "step/s" in shown
    assert len(lines(caplog)) == 3 * history


def test_the_history_of_a_long_fit_is_thinned(fit, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        fit(Progress(every_seconds=60.0), max_epochs=65)
    assert [line.split()[1] for line in lines(caplog)] == [f"{epoch}/65" for epoch in range(3, 65, 3)]


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_quiet_shows_nothing(fit, caplog, monkeypatch, stderr):
    monkeypatch.setattr(sys, "stderr", stderr())
    with caplog.at_level(logging.WARNING, LOGGER):
        fit(Progress(every_seconds=0.0))
    assert sys.stderr.getvalue() == ""
    assert lines(caplog) == []


def test_the_bar_counts_optimiser_steps_and_shows_the_epochs_means(fit, monkeypatch):
    class Bar:
        """Stands for tqdm: always redraws, and notes what it is told."""

        def __init__(self, **arguments) -> None:
            self.total, self.n, self.disable, self.closed = arguments["total"], arguments["initial"], False, False
            self.shown: list[tuple[int, str, dict[str, str]]] = []
            bars.append(self)

        def update(self, n: int) -> bool:
            self.n += n
            return True

        def set_description(self, text: str, refresh: bool) -> None:
            self.text = text

        def set_postfix(self, figures: dict[str, str]) -> None:
            self.shown.append((self.n, self.text, figures))

        def close(self) -> None:
            self.closed = True

        external_write_mode = contextlib.nullcontext

    bars: list[Bar] = []
    monkeypatch.setattr("neurona.callbacks.progress.tqdm", Bar)
    epochs = fit(Progress())
    [bar] = bars
    assert (bar.total, bar.n, bar.closed) == (18, 18, True)
    assert [(n, text) for n, text, _ in bar.shown] == [(6, "epoch 1/3"), (12, "epoch 2/3"), (18, "epoch 3/3")]
    for (_, _, shown), figures in zip(bar.shown, epochs, strict=True):
        assert shown["loss"] == f"{figures['train/loss']:.4f}"
        assert shown["acc"] == f"{figures['train/accuracy']:.4f}"
    assert bar.shown[2][2]["val/loss"] == f"{epochs[1]['val/loss']:.4f}"  # validation follows the epoch's last step


def test_the_bar_is_closed_by_a_failure(fit, monkeypatch):
    class Fails(Progress):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            raise RuntimeError("stop")

    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = Fails()
    with pytest.raises(RuntimeError, match="stop"):
        fit(progress)
    assert progress._bar.disable  # what tqdm sets when it is closed


@pytest.mark.parametrize("terminal", [True, False])
def test_other_work_has_a_bar_on_a_terminal_and_lines_elsewhere(caplog, monkeypatch, terminal):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    with caplog.at_level(logging.INFO, LOGGER):
        assert list(followed("abc", 3, "importance", "column", every_seconds=0.0)) == ["a", "b", "c"]
        list(followed("abc", 3, "importance", "column", every_seconds=60.0))
    assert lines(caplog) == ([] if terminal else [f"importance  column {number}/3" for number in (1, 2, 3)])
    assert ("importance 0/3" in sys.stderr.getvalue()) == terminal


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_an_interval_out_of_range_is_refused(seconds):
    with pytest.raises(ConfigError, match=r"trainer\.callbacks\.progress\.every_seconds"):
        Progress(every_seconds=seconds)
