"""The lesson's pictures and verdicts in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import neurona

MOONS = ["experiment=two_moons", "data.num_samples=200", "trainer.callbacks.boundary.every_n_epochs=2", "quiet=true"]
PICTURES = [*(f"boundary/{epoch:04d}.png" for epoch in (0, 2, 4, 6)), "boundary.gif", "boundary.png"]


def test_a_resumed_run_has_the_pictures_of_an_uninterrupted_one() -> None:
    neurona.run([*MOONS, "trainer.max_epochs=6", "folder=whole"])
    neurona.run([*MOONS, "trainer.max_epochs=3", "folder=parts"])
    neurona.run(["run=parts", "trainer.max_epochs=6", "quiet=true"])
    whole, parts = ({file: (Path(folder) / file).read_bytes() for file in PICTURES} for folder in ("whole", "parts"))
    assert [len(list(Path(folder, "boundary").iterdir())) for folder in ("whole", "parts")] == [4, 4]
    assert parts == whole


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=digits"],
        ["data=wine", "data.val_fraction=0", "classifier.label_smoothing=0.3"],
        ["data=two_moons", "model.hidden=[64]", "optimizer.lr=0.05"],
    ],
)
def test_overfitting_ends_with_its_verdict(overrides: list[str], train: Any, newest: Any) -> None:
    done = train("debug=overfit", *overrides)
    assert (done.status, done.err) == (0, "")
    figures = newest().metrics
    assert (figures["train/accuracy"], figures["stopped_by"]) == (1.0, "callback")
    assert 1 < figures["steps"] == figures["epochs"] < 200
    rows = 16 if "data=wine" in overrides else 32
    verdict = f"yes: the network memorised its mini-batch of {rows} rows after {figures['steps']} steps"
    assert verdict in done.out.splitlines()


def test_overfitting_that_does_not_come_to_it_says_so(train: Any) -> None:
    done = train("debug=overfit", "data=iris", "model=linear", "optimizer.lr=1e-5", "trainer.max_epochs=3")
    assert (done.status, done.err) == (0, "")
    assert "no: the network has not memorised its mini-batch of 16 rows: train/accuracy is 0." in done.out
