"""The card tells what the run's own files tell, and keeps what its reader has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neurona.classifier import Classifier
from neurona.export import model_card
from neurona.models.linear import Linear
from neurona.runs.folder import RunFolder

EXPORTED = {"rows": 1200, "model.onnx/bytes": 4321, "model.onnx/max_difference": 2e-7}
FIGURES = {"status": "finished", "val/loss": 0.5, "test/accuracy": 0.75, "test/accuracy_of/a|b\nc": None}
PROVENANCE = {
    "command": ["train.py", "data.path=my table.csv"],
    "time": "2026-01-02T03:04:05+0000",
    "seed": 7,
    "git": {"commit": "abc123", "dirty": True},
    "versions": {"torch": "2.13.0"},
}
CONFIG = """
model: {_target_: neurona.models.linear.Linear, bias: true}
data: {_target_: some.Data}
trainer: {max_epochs: 1}
"""


@pytest.fixture
def card(tmp_path: Path, make_classifier: Any) -> Any:
    """Writes the card of a run with these figures; returns its text."""
    classifier: Classifier = make_classifier(Linear(4, 2), 4, 2)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "overrides.yaml").write_text("overrides: []\nabsolute: {}\nchoices: {}\n")
    (tmp_path / "provenance.json").write_text(json.dumps(PROVENANCE))

    def write(figures: dict[str, Any] = FIGURES) -> str:
        (tmp_path / "metrics.json").write_text(json.dumps(figures))
        with RunFolder(tmp_path) as folder:
            model_card.write(folder, classifier, EXPORTED)
        return (tmp_path / "model_card.md").read_text()

    return write


def test_network_data_figures_and_origin_are_told(card: Any) -> None:
    lines = card().splitlines()
    for line in (
        "- Network: `neurona.models.linear.Linear`, 10 parameters (bias True)",
        "| `model.onnx` | 4,321 | 2.0e-07 |",
        "- `some.Data`, 4 features, 2 classes:",
        "  class 0, class 1",
        "| accuracy | 0.7500 |",
        "| accuracy_of/a\\|b c |  |",
        "python train.py 'data.path=my table.csv'",
        "- Begun 2026-01-02T03:04:05+0000, seed 7, commit abc123, with changes",
    ):
        assert line in lines
    assert not any("loss" in line for line in lines)
    (versions,) = (line for line in lines if line.startswith("- Versions: "))
    assert versions.startswith("- Versions: torch 2.13.0, onnx ")


def test_figures_of_a_run_that_is_not_finished_are_left_out(card: Any) -> None:
    text = card({**FIGURES, "status": "failed"})
    assert "Status of the run: failed." in text
    assert "| accuracy |" not in text


def test_what_stands_below_intended_use_is_kept(card: Any, tmp_path: Path) -> None:
    first = card()
    changed = first.replace("# Model card", "# Card").replace("Made for: …", "Made for: reading digits.")
    (tmp_path / "model_card.md").write_text(changed)
    assert card() == first.replace("Made for: …", "Made for: reading digits.")


def test_a_damaged_provenance_and_a_data_card_are_told(card: Any, tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("{")
    (tmp_path / "data_card.txt").write_text("12 columns\n")
    text = card()
    assert "`provenance.json` is missing or damaged." in text
    assert "```text\n12 columns\n```\n\n## Metrics\n" in text
