"""An exported run predicts elsewhere what it predicts here; what is refused, and what a failure leaves."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_digits

import neurona

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
BLOCKS = [block for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S) if "import neurona" not in block]

ELSEWHERE = """
import sys
sys.modules.update(dict.fromkeys(("torch", "neurona", "polars", "sklearn")))  # importing them fails
{page}
with open("predictions.csv", newline="", encoding="utf-8") as file:
    lines = list(csv.DictReader(file))
names, probabilities = {call}
rows = [int(line["row"]) for line in lines]
expected = np.array([[float(line["p(" + name + ")"]) for name in about["class_names"]] for line in lines])
assert [line["class"] for line in lines] == names[rows].tolist()
print(len(lines), abs(probabilities[rows] - expected).max())
"""


def elsewhere(folder: Path, call: str) -> tuple[int, float]:
    """Rows, and the largest difference from predictions.csv, in a process with onnxruntime and numpy alone."""
    program = ELSEWHERE.format(page="\n".join(BLOCKS), call=call)
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows, largest = done.stdout.split()
    return int(rows), float(largest)


@pytest.fixture
def files(default_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forms that are made at once, for what does not depend on them."""
    from neurona.export import forms as export

    for name in ("pt2", "onnx"):
        monkeypatch.setattr(export.Forms, name, lambda self: (b"the same", self.network))


def test_an_exported_image_classifier_predicts_elsewhere(train: Any, default_run: Any) -> None:
    assert train("stage=predict", f"run={default_run.folder}").status == 0
    before = default_run.contents()
    done = train("stage=export", f"run={default_run.folder}")
    assert (done.status, done.err) == (0, "")
    after = default_run.contents()
    names = {"model.safetensors", "model.pt2", "model.onnx", "model_card.md", "metrics_export.json"}
    assert after.keys() - before.keys() == names
    assert {name: after[name] for name in before} == before
    figures = default_run.read("metrics_export.json")
    assert (figures["status"], figures["stage"], figures["rows"]) == ("finished", "export", 359)
    for name in ("model.safetensors", "model.pt2", "model.onnx"):
        assert figures[f"{name}/max_difference"] <= 1e-5
        assert figures[f"{name}/bytes"] == len(after[name])
        assert f"{figures[f'{name}/max_difference']:.1e}" in done.out
    card = (default_run.folder / "model_card.md").read_text()
    assert f"| accuracy | {default_run.metrics['test/accuracy']:.4f} |" in card
    assert "train.py" in card
    assert card.count("## Intended use") == 1
    np.save(default_run.folder / "pixels.npy", load_digits().data)
    rows, largest = elsewhere(default_run.folder, 'predict(np.load("pixels.npy"))')
    assert rows == 359
    assert largest <= 1e-5


def test_an_exported_table_predicts_elsewhere(tmp_path: Path) -> None:
    rng, count = np.random.default_rng(0), 300
    city, size = rng.integers(0, 30, count), rng.normal(5, 2, count)
    columns = {
        "size": [None if i % 7 == 0 else f"{value:.3f}" for i, value in enumerate(size)],
        "city": [None if i % 11 == 0 else f"city, {number}" for i, number in enumerate(city)],
        "kind": [("plain", "", "fancy")[i % 3] for i in range(count)],
        "member": [("Yes", "no", None)[i % 3 if i % 5 else 2] for i in range(count)],
        "paid": [f"({-x:,.2f} €)" if x < 0 else f"{x:,.2f} €" for x in (1000 * size - 4000).tolist()],
        "seen": [f"{1 + i % 12:02}/{1 + i % 28:02}/2023 {1 + i % 12}:07 {'AP'[i % 2]}M" for i in range(count)],
        "joined": [f"2024-{1 + i % 12:02}-{1 + i % 28:02}" if i % 13 else "NA" for i in range(count)],
        "label": np.where(np.sin(city * 5) + size / 2 > 2.5, "yes", "no"),
    }
    pl.DataFrame(columns).write_csv("table.csv")
    settings = ["model=linear", "data.numeric_encoding=piecewise", "trainer.callbacks.importance=null", "logger=none"]
    table = ["data=table", "data.path=table.csv", "data.target=label", "data.max_one_hot=16"]
    run = [*table, "trainer.max_epochs=10", "quiet=true", *settings]
    neurona.run([*run, "folder=run"])
    neurona.run(["stage=predict", "run=run", "quiet=true"])
    neurona.run(["stage=export", "run=run", "quiet=true"])
    rows, largest = elsewhere(tmp_path / "run", 'predict_table("../table.csv")')
    assert rows == 60
    assert largest <= 1e-5
    assert "city" in (tmp_path / "run" / "model_card.md").read_text()


def test_a_full_disk_leaves_the_run_as_it_was(train: Any, default_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = default_run.contents()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = train("stage=export", f"run={default_run.folder}")
    assert done.status == 1
    assert re.fullmatch(r".*model\.safetensors: cannot be written \(No space left.*\n", done.err)
    assert default_run.contents() == before


def test_an_export_takes_no_trainer(files: None, train: Any, default_run: Any) -> None:
    before = default_run.contents()
    done = train("stage=export", f"run={default_run.folder}", "trainer=ddp_cpu", "trainer.devices=2")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert done.err.startswith("trainer=ddp_cpu: is not used by stage=export")
    assert default_run.contents() == before
