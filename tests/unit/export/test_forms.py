"""What is exported is the network, in every form, for every encoding and layer there is."""

from __future__ import annotations

import datetime
import re
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from neurona.classifier import Classifier
from neurona.data.preprocessing import Standardize
from neurona.data.spec import DataSpec
from neurona.devices import distributed
from neurona.errors import ConfigError, RunError
from neurona.export import forms as export
from neurona.models.activations import ACTIVATIONS
from neurona.models.embedding import Embedding
from neurona.models.linear import Linear
from neurona.models.mlp import MLP
from neurona.models.tabm import TabM
from neurona.tables import encoding
from neurona.tables.matrix import encode
from neurona.tables.schema import Column, Rules, Schema, layout
from neurona.tables.spec import TableSpec

PAGE = (Path(__file__).parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
ENCODER = "".join(block for block in BLOCKS if "def encode(" in block or "def written_date(" in block)
CATEGORIES = {"few": ("a", "b"), "some": ("x", "y", "z"), "many": tuple(f"city {i}" for i in range(30))}
COLUMNS = [Column(name, "numeric") for name in "pqr"] + [Column(k, "categorical", c) for k, c in CATEGORIES.items()]
SPEC = TableSpec(6, 3, ("no", "yes", "perhaps"), schema=Schema(tuple(COLUMNS), "label").as_dict())


def rows(count: int = 200) -> torch.Tensor:
    """Raw rows of COLUMNS, with missing numbers and categories that training does not know."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(count, 3, generator=generator)
    numbers[torch.rand(count, 3, generator=generator) < 0.1] = torch.nan
    ids = [torch.randint(0, len(names) + 1, (count,), generator=generator) for names in CATEGORIES.values()]
    return torch.cat([numbers, torch.stack(ids, 1).float()], 1)


def classifier(numeric: Any, network: Any, numbers: Any) -> Classifier:
    cardinalities = layout(Schema.from_dict(SPEC.schema)).cardinalities
    preprocessing = encoding.fit(rows(), torch.arange(100), cardinalities, numeric=numeric, max_one_hot=16)
    assert preprocessing.embedded == [31]
    first = Embedding(preprocessing.num_outputs, preprocessing.num_numbers, preprocessing.embedded, numbers=numbers)
    layers = OrderedDict(embedding=first, network=network(first.num_outputs, 3))
    model = Classifier(preprocessing, nn.Sequential(layers), SPEC, calibrate=True)
    model.calibration.fill_(1.7)
    for parameter in model.network.network.parameters():
        nn.init.normal_(parameter, std=0.3)  # a linear model's are 0 at first
    return model


def mlp(part: int, **settings: Any) -> Any:
    """With a third of all activations, one for each layer."""
    activations = list(ACTIVATIONS)[part::3]
    return lambda *sizes: MLP(*sizes, hidden=[12] * len(activations), activation=activations, **settings)


@pytest.mark.long
@pytest.mark.parametrize(
    ("numeric", "network", "numbers"),
    [
        ("standard", mlp(0, normalization="batch", residual=True, dropout=0.2), "periodic"),
        ("robust", mlp(1, normalization="layer", residual=True), "none"),
        ("quantile", mlp(2, normalization="rms"), "periodic"),
        ("standard_piecewise", lambda *sizes: TabM(*sizes, hidden=[12, 9], members=3), "pbld"),
    ],
)
def test_every_encoding_and_layer_is_exported(numeric: Any, network: Any, numbers: Any) -> None:
    torch.manual_seed(0)
    model, raw = classifier(numeric, network, numbers), rows()
    model.train()(raw)  # running averages that are not 0
    with torch.inference_mode():
        logits = model.eval()(raw)
    inputs = export.as_inputs(raw, SPEC)
    assert {name: part.dtype for name, part in inputs.items()} == {
        "numbers": torch.float32,
        "categories": torch.int64,
    }
    forms = export.Forms(model, inputs)
    for contents, run in (forms.safetensors(), forms.pt2(), forms.onnx()):
        assert len(contents) > 1000
        assert b"/neurona/" not in contents  # no folder of the machine it was made on
        for part in (slice(0, 1), slice(1, 4), slice(4, None)):
            with torch.inference_mode():
                outputs = run(*(tensor[part] for tensor in inputs.values()))
            np.testing.assert_allclose(outputs[0], logits[part], atol=1e-5)
            np.testing.assert_allclose(outputs[1], logits[part].softmax(1), atol=1e-6)


def test_the_difference_is_of_probabilities_and_relative_to_large_logits() -> None:
    logits, probabilities = np.float32([[200.0, 1.0]]), np.float32([[0.75, 0.25]])
    assert export.difference((logits, probabilities), (logits + 0.5, probabilities)) == pytest.approx(0.0025)
    assert export.difference((logits / 200, probabilities), (logits / 200 + 0.5, probabilities)) == pytest.approx(0.5)
    assert export.difference((logits, probabilities), (logits, probabilities - 0.25)) == 0.25


class Asks(nn.Module):
    """Decides by the values it is given, which no recorded graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features) if features.sum() > 0 else -self.head(features)


def write(network: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    data = SimpleNamespace(setup=lambda stage: None, test_dataloader=lambda: [(torch.rand(5, 4), torch.zeros(5))] * 3)
    monkeypatch.setattr(export.model_card, "write", lambda *_: None)
    return export.write(
        Classifier(Standardize(4), network, DataSpec(4, 2, ("a", "b"))), data, SimpleNamespace(path=folder)
    )  # type: ignore[arg-type]


def test_a_network_that_cannot_be_recorded_keeps_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError) as raised:
        write(Asks(), tmp_path, monkeypatch)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: model.pt2, model.onnx cannot be made of this network (")
    assert message.endswith("; written: model.safetensors")
    assert len(message.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_differs_is_not_kept_and_the_file_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.pt2").write_text("the one before")
    monkeypatch.setattr(
        export.Forms, "pt2", lambda self: (b"another", lambda *rows: [x + 2e-5 for x in self.network(*rows)])
    )
    monkeypatch.setattr(export.Forms, "onnx", lambda self: (b"the same", self.network))
    with pytest.raises(
        RunError, match=r"model\.pt2 would differ from the network by 2\.0e-05, more than 1e-05; written: "
    ):
        write(Linear(4, 2), tmp_path, monkeypatch)
    assert (tmp_path / "model.pt2").read_text() == "the one before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.pt2", "model.safetensors"]


def test_a_missing_library_and_a_second_process_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    export.check()
    with monkeypatch.context() as patched:
        patched.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
        with pytest.raises(ConfigError, match=r"needs onnxscript: pip install -c .*export"):
            export.check()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="works in one process"):
        export.check()


def dated(name: str, pattern: str) -> Column:
    return Column(name, "date", origin=19000.0, format=pattern)


TEXTS = {
    "number": [
        "1",
        " 2.5 ",
        "NA",
        "",
        "1e5",
        ".5",
        "5.",
        "+7",
        "1_0",
        "inf",
        "nan",
        "1e38",
        "abc",
        "3.0",
        "-1E-3",
        None,
    ],
    "yes": ["Yes", "no", "TRUE", "0", "1.0", "maybe", "", "t", "F", None, " y ", "n", "NA", "2", "False", "1"],
    "day": ["2024-02-29", "2023-02-29", " 1969-12-31 ", "?", "", "x", None, "2024-1-5", *["2000-01-01"] * 8],
    "time": ["2024-02-29 13:45:10.25", "2024-02-29 23:59:59", "2024-02-29", "NA", *["1969-12-31 00:00:00.000001"] * 12],
    "zone": ["2024-01-01T00:30:00+02:00", "2024-01-01T00:30:00Z", "2024-01-01T00:30:00.5-0100", "", *[None] * 12],
    "place": ["Rome", " Rome ", "rome", "3", "3.0", "03", None, "NA", "x.0", "Oslo", *["+5.0"] * 6],
}
KINDS = (
    Column("number", "numeric", origin=1.5),
    Column("place", "categorical", ("+5", "03", "3", "Rome", "x.0")),
    Column("yes", "boolean"),
    dated("day", "%Y-%m-%d"),
    dated("time", "%Y-%m-%d %H:%M:%S%.f"),
    dated("zone", "%Y-%m-%dT%H:%M:%S%.f%#z"),
)
TYPED = {
    "number": [1.0, 2.5, None, float("inf"), -1e38],
    "place": [3.0, 5.5, None, 3.0, 4.0],
    "yes": [True, False, None, True, False],
    "day": [datetime.date(2024, 2, 29), None, datetime.date(1969, 1, 1)] + [None] * 2,
    "time": [datetime.datetime(2024, 2, 29, 13, 45, 10, 250_000), None, datetime.datetime(1969, 1, 1), None, None],
    "zone": [None] * 5,
}
MARKS = {"number": ["1.234,5", "1.234.567", "12,5", "12.5", "0,5", "1,2,3", "1.23"]}


@pytest.mark.parametrize(
    ("table", "schema"),
    [
        (TEXTS, Schema(KINDS, "label")),
        (TYPED, Schema(KINDS, "label")),
        (MARKS, Schema(KINDS[:1], "label", rules=Rules(decimal=",", thousands="."))),
        ({"place": TEXTS["place"]}, Schema(KINDS[1:2], "label", rules=Rules(missing=("Rome",)))),
    ],
)
def test_the_pages_encoder_gives_what_the_run_was_given(table: dict[str, list[Any]], schema: Schema) -> None:
    spec = TableSpec(1, 2, ("a", "b"), schema=schema.as_dict())
    page: dict[str, Any] = {"np": np}
    exec(ENCODER, page)
    encoded = page["encode"](table, export.description(spec))
    expected = export.as_inputs(torch.from_numpy(encode(pl.DataFrame(table), schema)), spec)
    assert encoded.keys() == expected.keys()
    for name, part in expected.items():
        assert encoded[name].dtype == part.numpy().dtype
        np.testing.assert_array_equal(encoded[name], part)
