"""A table of one's own, from raw file to predictions on new raw rows."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
)

import neurona
from neurona.errors import ConfigError, DataError
from neurona.tables import table as table_module

ROWS = 400
SHORT = ["logger=none", "trainer.max_epochs=4"]


def messy(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """A table with every kind of column; the label depends on several of them."""
    rng = np.random.default_rng(seed)
    size, colour = rng.normal(50, 10, rows), rng.choice(["red", "green", "deep blue"], rows)
    member, year = rng.random(rows) < 0.5, rng.integers(2001, 2020, rows)
    score = (size - 50) / 10 + 2 * (colour == "red") + member - 1.2 + rng.normal(0, 0.4, rows)
    label = np.where(score > 0.6, "groß", np.where(score > -0.6, "so lala", "klein"))
    return pl.DataFrame(
        {
            "id": np.arange(rows) + 1000,
            "size.in cm": [None if i % 11 == 0 else f"{value:.2f}" for i, value in enumerate(size)],
            "Farbe, ä=1": [None if i % 13 == 0 else str(value) for i, value in enumerate(colour)],
            "member": np.where(member, "yes", "no"),
            "since": [
                f"{y}-{m:02d}-{d:02d}"
                for y, m, d in zip(year, rng.integers(1, 13, rows), rng.integers(1, 29, rows), strict=True)
            ],
            "country": ["here"] * rows,
            "label": label,
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    messy().write_csv(folder / "train.csv")
    data = ["data=table", f"data.path={folder}/train.csv", "data.target=label"]
    logging.getLogger("neurona").handlers.clear()  # an earlier run's console is another
    with (folder / "console.txt").open("w") as console, contextlib.redirect_stdout(console):
        neurona.run([*data, f"folder={folder}/run", *SHORT])
    neurona.run(["stage=predict", f"run={folder}/run", "quiet=true"])
    os.replace(folder / "run" / "predictions.csv", folder / "own.csv")
    return folder


def read_predictions(file: Path) -> tuple[list[int], list[str], np.ndarray, list[str]]:
    """Rows, classes, probabilities and targets."""
    with file.open(newline="", encoding="utf-8") as lines:
        _, *records = csv.reader(lines)
    rows, targets, _, classes, *probabilities = zip(*records, strict=True)
    return [int(row) for row in rows], list(classes), np.array(probabilities, dtype=float).T, list(targets)


def test_the_figures_are_those_of_scikit_learn(home: Path) -> None:
    rows, classes, probabilities, targets = read_predictions(home / "own.csv")
    figures = json.loads((home / "run" / "metrics.json").read_text())
    truth = messy()["label"].to_numpy()[rows]
    names = sorted(set(messy()["label"]))
    probabilities /= probabilities.sum(1, keepdims=True)  # float32's, to scikit-learn's liking
    assert [names[int(target)] for target in targets] == truth.tolist()
    assert len(rows) == round(0.2 * ROWS)
    expected = {
        "accuracy": accuracy_score(truth, classes),
        "balanced_accuracy": balanced_accuracy_score(truth, classes),
        "macro_f1": f1_score(truth, classes, average="macro"),
        "loss": log_loss(truth, probabilities, labels=names),
        "auroc": roc_auc_score(truth, probabilities, multi_class="ovr", labels=names),
        "average_precision": average_precision_score(truth, probabilities, average="macro"),
    }
    assert {name: figures[f"test/{name}"] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert figures["test/accuracy"] > 0.5


@pytest.mark.parametrize("form", ["tsv.gz", "parquet", "feather"])
def test_new_raw_rows_are_predicted_as_in_training(home: Path, tmp_path: Path, form: str) -> None:
    rows, classes, probabilities, _ = read_predictions(home / "own.csv")
    table = messy()[rows].drop("id", "country")
    new = table.select(pl.lit(7).alias("extra"), *reversed(table.columns))  # other columns, in another order
    if form == "feather":
        new = new.drop("label")
    path = tmp_path / f"new.{form}"
    write = {"parquet": new.write_parquet, "feather": new.write_ipc}
    if form in write:
        write[form](path)
    else:
        new.write_csv(path, separator="\t", compression="gzip")
    neurona.run(["stage=predict", f"run={home}/run", f"data.path={path}", "quiet=true"])
    numbers, new_classes, new_probabilities, targets = read_predictions(home / "run" / "predictions.csv")
    assert (numbers, new_classes) == (list(range(len(rows))), classes)
    np.testing.assert_allclose(new_probabilities, probabilities, atol=1e-6)
    assert (targets == [""] * len(rows)) == (form == "feather")


def test_prediction_never_holds_the_whole_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurona.tables.table.STREAM_ROWS", 64)
    monkeypatch.setattr("neurona.tables.reading.read", lambda *_: pytest.fail("the file was read whole"))
    sizes = []
    encode = table_module.encode
    monkeypatch.setattr(table_module, "encode", lambda rows, *more: sizes.append(rows.height) or encode(rows, *more))
    messy().write_csv(tmp_path / "new.csv")
    neurona.run(["stage=predict", f"run={home}/run", f"data.path={tmp_path}/new.csv", "quiet=true"])
    rows, classes, probabilities, _ = read_predictions(home / "run" / "predictions.csv")
    assert (rows, sum(sizes), max(sizes)) == (list(range(ROWS)), ROWS, 64)
    own, own_classes, own_probabilities, _ = read_predictions(home / "own.csv")
    assert [classes[row] for row in own] == own_classes
    np.testing.assert_allclose(probabilities[own], own_probabilities, atol=1e-6)


def test_the_stage_test_takes_other_rows(home: Path, tmp_path: Path) -> None:
    rows, *_ = read_predictions(home / "own.csv")
    messy()[rows].drop("id").write_csv(tmp_path / "held.csv")
    figures = neurona.run(["stage=test", f"run={home}/run", f"data.path={tmp_path}/held.csv", "quiet=true"])
    metrics = json.loads((home / "run" / "metrics.json").read_text())
    for name in ("test/accuracy", "test/loss"):
        assert figures[name] == pytest.approx(metrics[name], abs=1e-6)


def test_the_loaded_run_takes_frames_mappings_and_arrays(home: Path) -> None:
    rows, classes, probabilities, _ = read_predictions(home / "own.csv")
    table, model = messy()[rows], neurona.load(home / "run")
    assert model.columns == ["size.in cm", "Farbe, ä=1", "member", "since"]
    assert model.classes_.tolist() == ["groß", "klein", "so lala"]
    columns = table.to_dict(as_series=False)

    class Pandas:
        """The part of a pandas frame that is asked for."""

        columns = table.columns

        def __getitem__(self, name: str) -> Any:
            return np.array(table[name].to_list(), dtype=object)

    for features in (
        table,
        columns,
        table.to_dicts(),
        Pandas(),
        np.array(table.select(model.columns).rows(), dtype=object),
    ):
        np.testing.assert_allclose(model.predict_proba(features), probabilities, atol=1e-6)
    assert model.predict(table).tolist() == classes
    assert model.score(table, table["label"]) == pytest.approx(np.mean(table["label"].to_numpy() == np.array(classes)))
    one = model.predict_proba(
        {name: values[0] for name, values in columns.items() if name != "since"} | {"since": None}
    )
    assert one.shape == (1, 3)
    with pytest.raises(DataError, match="no column 'member'"):
        model.predict(table.drop("member"))


def test_values_that_cannot_be_read_are_counted_in_the_whole_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("neurona.tables.table.STREAM_ROWS", 10)
    since = pl.Series("since", ["soon", "?", "", "NA", *["2010-05-05"] * 26])
    comma = pl.col("size.in cm").str.replace(".", ",", literal=True)
    red = pl.col("Farbe, ä=1").str.replace("red", "RED")
    messy(30).with_columns(comma, red, since, member=pl.lit("")).write_csv(tmp_path / "new.csv")
    neurona.run(["stage=predict", f"run={home}/run", f"data.path={tmp_path}/new.csv", "quiet=true"])
    problems = (
        "column 'size.in cm': 27 of 30 values are not numbers, such as {}; they count as missing",
        "column 'since': 1 of 30 values are not dates, such as 'soon'; they count as missing",
        "column 'Farbe, ä=1': 5 of 30 values are not known from training, such as 'RED' ('red' in training); "
        "they count as other",
    )
    sizes = ", ".join(
        f"'{size}'" for size in sorted(x.replace(".", ",") for x in messy(30)["size.in cm"][:10] if x)[:3]
    )
    warnings = [f"{tmp_path}/new.csv: {problem.format(sizes)}" for problem in problems]
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(warnings)


def test_arrays_of_a_run_are_predicted_as_they_were_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (240, 8))
    images[:, [0, 5, 7]] = 1.0
    labels = np.where(images[:, 1] > 0, b"cat", b"dog")
    np.savez(tmp_path / "t.npz", x=images, y=labels)
    data = ["data=table", f"data.path={tmp_path}/t.npz", "data.target=y", f"folder={tmp_path}/run", "quiet=true"]
    neurona.run([*data, "logger=none", "trainer.max_epochs=2", "trainer.callbacks.importance=null"])
    model = neurona.load(tmp_path / "run")
    assert model.classes_.tolist() == ["cat", "dog"]
    np.testing.assert_array_equal(model.predict_proba(images), model.predict_proba(images[:, [1, 2, 3, 4, 6]]))


def test_a_stopped_run_leaves_no_folder_and_its_remedies_work_as_printed(tmp_path: Path) -> None:
    values = ["soon" if i % 8 == 0 else f"{i * 37 % 101 / 4}" for i in range(ROWS)]
    messy().with_columns(pl.Series("size.in cm", values)).write_csv(tmp_path / "t.csv")
    command = ["data=table", f"data.path={tmp_path}/t.csv", "data.target=label", f"folder={tmp_path}/run"]
    short = ["quiet=true", "logger=none", "trainer.max_epochs=1", "trainer.callbacks.importance=null"]
    with pytest.raises(DataError, match="50 of 400 values are not numbers, such as 'soon'") as raised:
        neurona.run([*command, *short])
    assert not (tmp_path / "run").exists()
    remedies = re.findall(r"('data\.[^']*'|data\.max_unread=\S+)", str(raised.value))
    assert len(remedies) == 3
    for i, remedy in enumerate(remedies):
        neurona.run([*command, *short, f"folder={tmp_path}/run{i}", *shlex.split(remedy)])


@pytest.mark.parametrize("stage", ["predict", "test"])
def test_missing_columns_are_named(home: Path, tmp_path: Path, stage: str) -> None:
    messy(20).drop("member", "since").write_csv(tmp_path / "new.csv")
    with pytest.raises(DataError, match=r"new\.csv: has no column 'member', 'since'"):
        neurona.run([f"stage={stage}", f"run={home}/run", f"data.path={tmp_path}/new.csv", "quiet=true"])
    assert not list((home / "run").glob("*.tmp"))


def test_what_was_not_seen_in_training_is_taken_as_other(home: Path) -> None:
    model, row = (
        neurona.load(home / "run"),
        {"size.in cm": "51", "Farbe, ä=1": "red", "member": "yes", "since": "2010-05-05"},
    )
    odd = [row | {"Farbe, ä=1": "ultraviolet"}, row | {"Farbe, ä=1": None}, row | {"size.in cm": "??", "since": "soon"}]
    with pytest.warns(UserWarning, match="column '.*': 1 of 3 values are not"):
        probabilities = model.predict_proba(odd)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities[0], probabilities[1], rtol=1e-6)


def test_the_card_and_the_warnings_are_shown_and_kept(home: Path) -> None:
    shown = (home / "console.txt").read_text()
    assert "column 'id' looks like an identifier (whole numbers, one for each row) and is left out" in shown
    card = json.loads((home / "run" / "data_card.json").read_text())
    text = (home / "run" / "data_card.txt").read_text()
    assert text.splitlines()[:8] == [line for line in shown.splitlines() if line in text.splitlines()][:8]
    assert {column["name"]: column["kind"] for column in card["columns"]} == {
        "size.in cm": "numeric",
        "Farbe, ä=1": "categorical",
        "member": "boolean",
        "since": "date",
    }
    assert card["left_out"] == {"id": "identifier", "country": "constant"}
    counts = messy()["label"].value_counts().rows()
    assert {name: sum(parts.values()) for name, parts in card["classes"].items()} == dict(counts)
    assert card["rows"] == {"train": 260, "val": 60, "test": 80, "without_label": 0}


def test_the_schema_is_of_the_training_rows_alone(home: Path, tmp_path: Path) -> None:
    rows, *_ = read_predictions(home / "own.csv")
    outside = pl.Series(np.isin(np.arange(ROWS), rows))
    changed = messy().with_columns(
        pl.when(outside).then(pl.lit("999999")).otherwise(pl.col("size.in cm")).alias("size.in cm"),
        pl.when(outside).then(pl.lit("violet")).otherwise(pl.col("Farbe, ä=1")).alias("Farbe, ä=1"),
    )
    changed.write_csv(tmp_path / "train.csv")
    data = ["data=table", f"data.path={tmp_path}/train.csv", "data.target=label"]
    neurona.run([*data, f"folder={tmp_path}/run", "quiet=true", *SHORT])
    one, other = (neurona.load(folder / "run").classifier for folder in (home, tmp_path))
    assert one.spec == other.spec
    for name, tensor in one.state_dict().items():
        assert tensor.equal(other.state_dict()[name]), name


def test_a_run_on_a_table_goes_on(home: Path, tmp_path: Path) -> None:
    data = ["data=table", f"data.path={home}/train.csv", "data.target=label", "compile=false", "quiet=true", *SHORT]
    neurona.run([*data, f"folder={tmp_path}/run", "trainer.max_epochs=2"])
    neurona.run([f"run={tmp_path}/run", "trainer.max_epochs=4", "quiet=true"])
    one, other = (neurona.load(folder / "run").classifier.state_dict() for folder in (home, tmp_path))
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


def test_published_parts_are_kept(tmp_path: Path) -> None:
    table = messy()
    for name, start, end in (("train", 0, 300), ("val", 300, 340), ("test", 340, 400)):
        table[start:end].write_csv(tmp_path / f"{name}.csv")
    with_dot = pl.read_csv(tmp_path / "test.csv").with_columns(pl.col("label") + ".")
    with_dot.write_csv(tmp_path / "test.csv")
    paths = [
        f"data.{key}={tmp_path}/{name}.csv"
        for key, name in (("path", "train"), ("val_path", "val"), ("test_path", "test"))
    ]
    overrides = ["data=table", "data.target=label", *paths, f"folder={tmp_path}/run", "quiet=true", *SHORT]
    with pytest.raises(DataError, match=r"test\.csv: labels 'groß\.', .* data\.labels=\. strips"):
        neurona.run(overrides)
    assert not (tmp_path / "run").exists()
    neurona.run([*overrides, "data.labels=."])
    card = json.loads((tmp_path / "run" / "data_card.json").read_text())
    assert card["rows"] == {"train": 300, "val": 40, "test": 60, "without_label": 0}
    neurona.run(["stage=predict", f"run={tmp_path}/run", "quiet=true"])
    assert read_predictions(tmp_path / "run" / "predictions.csv")[0] == list(range(340, 400))


def test_validate_refuses_other_rows(home: Path, tmp_path: Path) -> None:
    messy(20).write_csv(tmp_path / "new.csv")
    with pytest.raises(ConfigError, match="works on the run's own data"):
        neurona.run(["stage=validate", f"run={home}/run", f"data.path={tmp_path}/new.csv", "quiet=true"])
    assert neurona.run(["stage=validate", f"run={home}/run", "quiet=true"])["val/loss"] > 0


TABLES = os.environ.get("NEURONA_TABLES", "")


@pytest.mark.skipif(not TABLES, reason="set NEURONA_TABLES to the folder of the five published tables")
@pytest.mark.parametrize(
    ("name", "target", "kinds"),
    [
        ("penguins", "species", "categorical numeric numeric numeric numeric categorical numeric"),
        ("titanic", "survived", "n c n n n n c c c b c c b b"),
        ("adult_train", "class", "n c n c n c c c c c n n n c"),
        ("car", "classe", "c c c c c c"),
        ("letter", "lettr", "n " * 16),
    ],
)
def test_the_published_tables_are_typed_as_they_are(name: str, target: str, kinds: str) -> None:
    from neurona.tables.table import TableData

    data = TableData(path=f"{TABLES}/{name}.csv", target=target)
    data.setup()
    assert data.schema is not None
    assert [column.kind[0] for column in data.schema.columns] == [kind[0] for kind in kinds.split()]
    assert data.schema.dropped == {}
    assert [warning for warning in data.schema.warnings if "nearly determines the target" not in warning] == []
    assert ("'alive'" in str(data.schema.warnings)) == (name == "titanic")


@pytest.mark.parametrize(
    ("target", "group", "written"),
    [
        ("income, in €", "a=b", ["data.target='income, in €'", "data.group='a=b'"]),
        ("2020", "x.y", ["data.target=2020", "data.group=x.y"]),
        ("null", "[q]", ["data.target='null'", "data.group='[q]'"]),
        ("my label", 'say "hi"', ["data.target=my label", "data.group='say \"hi\"'"]),
    ],
)
def test_any_name_of_a_column_can_be_given(tmp_path: Path, target: str, group: str, written: list[str]) -> None:
    table = (
        messy(90)
        .rename({"label": target, "country": group, "since": "日付"})
        .with_columns(
            pl.Series(group, [f"{i % 30}" for i in range(90)]),
            pl.Series("Farbe, ä=1", [f"{i % 4},5" for i in range(90)]),
        )
    )
    (tmp_path / "parts").mkdir()
    table[:50].write_parquet(tmp_path / "parts" / "1.parquet")
    table[50:].write_parquet(tmp_path / "parts" / "2.parquet")
    more = [
        "data.decimal=','",
        "data.labels={klein: so lala}",
        "data.categorical=['Farbe, ä=1']",
        "data.missing=[NA, nan]",
    ]
    overrides = ["data=table", f"data.path={tmp_path}/parts/*.parquet", *written, *more, f"folder={tmp_path}/run"]
    neurona.run([*overrides, "quiet=true", "logger=none", "trainer.max_epochs=1"])
    card = json.loads((tmp_path / "run" / "data_card.json").read_text())
    assert (card["target"], list(card["classes"])) == (target, ["groß", "so lala"])
    assert card["left_out"][group] == "the group"
    stored = OmegaConf.load(tmp_path / "run" / "config.yaml").data
    assert (str(stored.target), str(stored.group)) == (target, group)
    if target != "null":  # read again from there, the oddest of them
        return
    neurona.run(["stage=predict", f"run={tmp_path}/run", "quiet=true"])
    assert len(read_predictions(tmp_path / "run" / "predictions.csv")[0]) == card["rows"]["test"]
