"""Every form of a file reads as the same table, whole and in batches; a broken one is an error naming file and line."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from neurona.errors import DataError
from neurona.tables import reading

TABLE = pl.DataFrame(
    {"größe": ["1.5", None, "3"], "a b": ["x", 'say "hi", he', "zwei\nZeilen"], "c.d": ["1", "2", "3"]}
)


@pytest.mark.parametrize("form", ["csv", "tsv", "txt", "csv.gz", "csv.zst", "parquet", "arrow", "feather"])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_every_form_reads_the_same(tmp_path: Path, form: str, rows: int) -> None:
    path = tmp_path / f"t.{form}"
    if form == "parquet":
        TABLE.write_parquet(path)
    elif form in ("arrow", "feather"):
        TABLE.write_ipc(path, compression="zstd")
    else:
        separator = {"tsv": "\t", "txt": ";"}.get(form, ",")
        compression = {"gz": "gzip", "zst": "zstd"}.get(path.suffix[1:], "uncompressed")
        TABLE.write_csv(path, separator=separator, compression=compression)
    assert reading.read(str(path)).equals(TABLE)
    batches = list(reading.batches(str(path), None, rows))
    assert max(batch.height for batch in batches) <= rows
    assert pl.concat(batches).equals(TABLE)


def test_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.arange(6.0).reshape(3, 2), label=np.array(["a", "b", "ä"]))
    table = reading.read(str(tmp_path / "t.npz"))
    assert table.to_dict(as_series=False) == {"x0": [0, 2, 4], "x1": [1, 3, 5], "label": ["a", "b", "ä"]}


def test_a_pattern_reads_the_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("y,x,extra\n3,4,5\n")
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    assert reading.read(str(tmp_path / "*.csv")).rows() == [("1", "2"), ("4", "3")]
    (tmp_path / "c.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match=r"c\.csv: has no column 'y'"):
        reading.read(str(tmp_path / "*.csv"))


def test_numbers_below_text_become_text() -> None:
    parts = [
        ("one", pl.DataFrame({"x": [1, 2]})),
        ("two", pl.DataFrame({"x": ["z"]})),
        ("three", pl.DataFrame({"x": [0.5]})),
    ]
    assert reading.concatenate(parts)["x"].to_list() == ["1", "2", "z", "0.5"]
    assert reading.concatenate([parts[0], parts[2]])["x"].to_list() == [1, 2, 0.5]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffa,b\r\n1,2\r\n", [("1", "2")]),
        ("a,b\n1,2\n\n3,4\n\n\n", [("1", "2"), ("3", "4")]),
        ("a;b\n1,5;2\n", [("1,5", "2")]),
        ("a|b\n 1 |2", [(" 1 ", "2")]),
        ('"a";"b"\n"1,5, or so";5" x 6"\n', [("1,5, or so", '5" x 6"')]),
        ('a,b\n"",\n"1,5","x ""y"""\n', [("", None), ("1,5", 'x "y"')]),
        (" a , b \n1,2\n", [("1", "2")]),
    ],
)
def test_what_people_write(tmp_path: Path, text: str, expected: list[tuple[str | None, ...]]) -> None:
    (tmp_path / "t.csv").write_text(text, newline="", encoding="utf-8")
    table = reading.read(str(tmp_path / "t.csv"))
    assert (table.columns, table.rows()) == (["a", "b"], expected)


LONG = "a,b\n" + "1,2\n" * 5000


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.csv", b"", r"t\.csv: is empty"),
        ("t.csv", b"\n \n", r"t\.csv: is empty"),
        ("t.csv", b"a,b\n", "has no rows, only a header"),
        ("t.csv", b"a,b,a\n1,2,3\n", "more than one column of the name 'a'"),
        ("t.csv", b"a,b\n1,2\n3\n", "line 3: has 1 values where the header has 2"),
        ("t.csv", f"{LONG}1,2,3\n{LONG}".encode(), "line 5002: has 3 values where the header has 2"),
        ("t.csv", b'a,b\n"x\ny",2\n3,4,5\n', "line 4: has 3 values"),
        ("t.csv", b'a,b\n1,"2\n3,4\n', "line 2: has a double quote that is never closed"),
        ("t.csv", b'a,b\n1,5" pipe\n2,6" pipe\n', "line 2: has a double quote within a value"),
        ("t.csv", b'a,b\n1,"x\ny"z\n2,"3\n4"\n', "line 3: has a double quote within a value"),
        ("t.csv", "a,b\n1,2\né,4\n".encode("latin1"), "line 3: is not UTF-8"),
        ("t.csv", (LONG + "é,4\n").encode("latin1"), "line 5002: is not UTF-8"),
        ("t.csv", "é,b\n1,2\n".encode("latin1"), "line 1: is not UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "line 1: is not UTF-8"),
        ("t.csv.gz", gzip.compress(LONG.encode(), mtime=0)[:-20], r"t\.csv\.gz: cannot be read .*cut short"),
        ("t.csv.gz", gzip.compress((LONG + "1\n").encode(), mtime=0), "line 5002: has 1 values"),
        ("t.parquet", b"PAR1 and then no more", r"t\.parquet: cannot be read .*cut short"),
        ("t.feather", b"ARROW1 and then no more", r"t\.feather: cannot be read"),
        ("t.npz", b"PK and then no more", r"t\.npz: cannot be read"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem) as raised:
        reading.read(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_a_parquet_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    TABLE.write_parquet(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"t\.parquet: "):
            reading.read(str(path))


def test_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"trian\.csv: does not exist; did you mean train\.csv"):
        reading.read(str(tmp_path / "trian.csv"))
    with pytest.raises(DataError, match="does not exist"):
        reading.read(str(tmp_path / "nowhere" / "*.csv"))
    with pytest.raises(DataError, match="is a folder"):
        reading.read(str(tmp_path))


def test_damaged_bytes_raise_nothing_else(tmp_path: Path) -> None:
    generator = random.Random(0)
    for form in ("csv", "csv.gz", "parquet", "feather"):
        path = tmp_path / f"t.{form}"
        table = pl.DataFrame({"a": ["1", "x,y", None] * 20, "b": [1.5, 2.0, None] * 20})
        match form:
            case "parquet":
                table.write_parquet(path)
            case "feather":
                table.write_ipc(path)
            case _:
                table.write_csv(path, compression="gzip" if form == "csv.gz" else "uncompressed")
        whole = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for _ in range(generator.randint(1, 6)):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
            path.write_bytes(damaged)
            try:
                reading.read(str(path))
            except DataError:
                continue


@pytest.mark.parametrize("rows", [3, "text", [[1, 2, 3]], np.zeros((2, 2, 2)), [{"a": 1}, 3], {"a": [1, 2], "b": [1]}])
def test_what_is_no_table(rows: object) -> None:
    with pytest.raises(DataError, match="features: "):
        reading.from_python(rows, ["a", "b"])
