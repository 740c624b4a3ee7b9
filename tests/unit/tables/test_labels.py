from __future__ import annotations

import polars as pl
import pytest

from neurona.errors import ConfigError, DataError
from neurona.tables.labels import Labels, codes
from neurona.tables.schema import Rules

LABELS = Labels("y", Rules())


@pytest.mark.parametrize(
    ("respelling", "expected"),
    [(None, ["yes.", "no", None]), (".", ["yes", "no", None]), ({"yes.": 1, "no": 0}, ["1", "0", None])],
)
def test_labels_are_read_as_they_are_stripped_or_mapped(respelling: str | dict | None, expected: list[str]) -> None:
    table = pl.DataFrame({"y": [" yes.", "no", "NA"]})
    assert Labels("y", Rules(), respelling).read(table).to_list() == expected


def test_letters_and_digits_are_not_stripped() -> None:
    with pytest.raises(ConfigError, match=r"data\.labels=es: would strip these letters or digits off the ends"):
        Labels("y", Rules(), "es")


def test_a_key_true_is_that_of_labels_in_any_case() -> None:
    table = pl.DataFrame({"y": ["true", "TRUE", "false", "2.0"]})
    labels = Labels("y", Rules(), {True: "yes", False: True, 2: "two"})
    assert labels.read(table).to_list() == ["yes", "yes", "true", "two"]
    labels.require_used(table)


def test_a_key_that_is_no_label_is_named() -> None:
    table = pl.DataFrame({"y": ["yes", "no"]})
    with pytest.raises(ConfigError, match=r"data\.labels=yess: is no label in column 'y'; did you mean yes\?"):
        Labels("y", Rules(), {"no": "n", "yess": "y"}).require_used(table)
    with pytest.raises(ConfigError, match=r"data\.labels=4: is no label in column 'y'; there are no, yes"):
        Labels("y", Rules(), {4: "n"}).require_used(table)


def test_classes_are_sorted_as_numbers_where_all_are() -> None:
    assert LABELS.class_names(pl.Series(["10", "9", None, "9", "-1", "9"]), "t.csv") == ("-1", "9", "10")
    assert LABELS.class_names(pl.Series(["10", "9", "b", "b", "b", "b"]), "t.csv") == ("10", "9", "b")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([None, "a"], r"only one class, 'a' \(rows whose label is missing, by data.missing: 1"),
        ([None, None], "has no label"),
        ([f"{i}.5" for i in range(30)], "30 values such as .*regression"),
        ([str(i % 200) for i in range(300)], "200 classes in 300 rows: probably regression"),
        ([f"t{i % 200}" for i in range(300)], "200 classes in 300 rows; is it the column to predict"),
    ],
)
def test_nothing_to_classify_is_a_mistake(labels: list[str | None], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        LABELS.class_names(pl.Series(labels, dtype=pl.String), "t.csv")


def test_labels_that_training_does_not_have() -> None:
    names = ("no", "yes")
    LABELS.check(pl.Series(["no", None]), names, "t.csv")
    with pytest.raises(DataError, match=r"t\.csv: labels 'no\.' in column 'y', .*'no', 'yes'; data\.labels=\. strips"):
        LABELS.check(pl.Series(["no.", "yes"]), names, "t.csv")
    with pytest.raises(DataError, match=r"data\.labels maps labels"):
        LABELS.check(pl.Series(["maybe", "yes"]), names, "t.csv")
    with pytest.raises(DataError, match=r"data\.labels maps labels"):
        LABELS.check(pl.Series(["nox", "yesx"]), names, "t.csv")
    assert codes(pl.Series(["yes", "maybe", None, "no"]), names).tolist() == [1, -1, -1, 0]
