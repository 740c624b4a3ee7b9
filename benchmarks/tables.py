"""The default for tables beside scikit-learn's classifiers: accuracy, log-loss, time, on the same rows.

    python benchmarks/tables.py FOLDER [--tables car letter …] [--seeds 5] [--ablation] [--json FILE]

FOLDER holds adult_train.csv, adult_test.csv, car.csv, letter.csv, penguins.csv and titanic.csv. A seed decides the
split (80/20; Adult keeps its published test part, the seed only its validation part) and the contenders' random
numbers. neurona takes 15 % of the rows from the training part for validation; scikit-learn's classifiers train on all
of that part, in their standard pipelines. Nothing is tuned. --ablation compares the default with variants of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np
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
}
PEERS = ("logistic regression", "MLPClassifier", "HistGradientBoosting")
VARIANTS: dict[str, list[str]] = {
    "the default": [],
    "batch normalization": ["model.normalization=batch"],
    "no dropout": ["model.dropout=0"],
    "hidden [128, 64]": ["model.hidden=[128,64]"],
    "lr 3e-3": ["optimizer.lr=3e-3"],
    "adamw, weight decay 0.01": ["optimizer=adamw"],
    "batch 128": ["data.batch_size=128"],
    "no early stopping": ["trainer.callbacks.early_stopping.patience=null", "trainer.max_epochs=100"],
    "embeddings above 16 categories": ["data.max_one_hot=16"],
    "piecewise": ["data.numeric_encoding=piecewise"],
    "quantile": ["data.numeric_encoding=quantile"],
}


class Result(NamedTuple):
    accuracy: float
    loss: float
    seconds: float


def ours(settings: dict[str, Any], seed: int, overrides: list[str]) -> Result:
    """A fit by ``neurona.run``, its evaluation of the test part included."""
    given = [f"data.{name}={json.dumps(value)}" for name, value in settings.items()]
    with tempfile.TemporaryDirectory() as folder:
        run = ["data=table", *given, f"data.split_seed={seed}", f"seed={seed}", f"folder={folder}/run", "quiet=true"]
        figures = neurona.run([*run, "logger=none", "trainer.callbacks.importance=null", *overrides])
    return Result(100 * figures["test/accuracy"], figures["test/loss"], figures["seconds"])


def peers(settings: dict[str, Any], seed: int) -> Iterator[tuple[str, Result]]:
    """scikit-learn's classifiers on the rows of the same split, with the same kinds of columns."""
    data = TableData(**settings, split_seed=seed)
    data.setup()
    assert data.schema is not None
    count = layout(data.schema).numeric
    features, targets = data.features.numpy(), data.targets.numpy()
    train, test = np.sort(np.concatenate([data.train_rows, data.val_rows])), data.test_rows.numpy()
    numeric, categorical = list(range(count)), list(range(count, features.shape[1]))

    def prepared() -> ColumnTransformer:
        scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        return ColumnTransformer([("n", scaled, numeric), ("c", OneHotEncoder(handle_unknown="ignore"), categorical)])

    for name, model in zip(
        PEERS,
        (
            make_pipeline(prepared(), LogisticRegression(max_iter=1000)),
            make_pipeline(prepared(), MLPClassifier(random_state=seed)),
            HistGradientBoostingClassifier(categorical_features=categorical, random_state=seed),
        ),
        strict=True,
    ):
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 200 epochs are not always enough for MLPClassifier
            model.fit(features[train], targets[train])
        probabilities = model.predict_proba(features[test])
        accuracy = 100 * accuracy_score(targets[test], probabilities.argmax(1))
        loss = log_loss(targets[test], probabilities, labels=range(data.spec.num_classes))
        yield name, Result(accuracy, loss, time.perf_counter() - started)


def summary(results: list[Result]) -> str:
    """Accuracy ± its standard error, log-loss and seconds, each the mean over the seeds."""
    accuracy, loss, seconds = np.mean(results, axis=0)
    return f"{accuracy:.2f} ± {standard_error(results):.2f} % · {loss:.3f} · {seconds:.1f} s"


def standard_error(results: list[Result]) -> float:
    accuracies = [result.accuracy for result in results]
    return float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))) if len(accuracies) > 1 else 0.0


def compare(found: dict[str, dict[str, list[Result]]]) -> str:
    """A row for each contender, a column for each table, and the mean accuracy over the tables."""
    rows = []
    for name in next(iter(found.values())):
        all_seeds = [results[name] for results in found.values()]
        mean = np.mean([result.accuracy for results in all_seeds for result in results])
        rows.append([name, *map(summary, all_seeds), f"{mean:.2f} %"])
    return harness.table(["accuracy · log-loss · time", *found, "mean"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    environment = harness.environment()
    harness.introduce(environment, f"seeds 0 to {asked.seeds - 1}; accuracy is the mean ± its standard error")
    found: dict[str, dict[str, list[Result]]] = {}
    for table in asked.tables:
        places = {
            name: str(asked.folder.absolute() / TABLES[table][name])
            for name in ("path", "test_path")
            if name in TABLES[table]
        }
        settings = TABLES[table] | places
        results = found[table] = {}
        for seed in range(asked.seeds):
            for name, overrides in VARIANTS.items() if asked.ablation else [("neurona", [])]:
                results.setdefault(name, []).append(ours(settings, seed, overrides))
            for name, result in () if asked.ablation else peers(settings, seed):
                results.setdefault(name, []).append(result)
        for name, all_seeds in results.items():
            print(f"{table:9} {name:24} {summary(all_seeds)}", flush=True)
    print("\n" + compare(found))
    harness.save(asked.json, {"environment": environment, "results": found})


if __name__ == "__main__":
    main()
