"""Every form of a file reads as the same table, whole and in batches; a broken one is an error naming file and line."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import lzma
import random
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
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


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a,b,c\n1,2,3\n\n   \n,,\n"",,\n4,5,6\n\n\t\n', ["123", "", "", "456"]),
        ('a\n1\n\n  \n""\n2\n', ["1", "", "2"]),
        ("a\tb\n1\t2\n\t\n  \n\n", ["12", ""]),
        ("\n  \na,b\n1,2\n\n", ["12"]),
        ('\n"a\n\nx",b\n\n1,"2\n\n3"\n\n', ["12\n\n3"]),
    ],
)
def test_rows_are_those_that_pandas_reads(tmp_path: Path, text: str, rows: list[str]) -> None:
    """The expected ones are what pandas 2.3's read_csv gives for the same texts."""
    (tmp_path / "t.csv").write_text(text)
    for parts in ([reading.read(f"{tmp_path}/t.csv")], reading.batches(f"{tmp_path}/t.csv", None, 2)):
        assert ["".join(value or "" for value in row).strip() for part in parts for row in part.rows()] == rows


def zipped(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a\tb\n1\t2\n".encode("utf-16"), "is text in UTF-16"),
        ("a,b\n1,2,\n3,4,\n", "every row ends in ','"),
        ('a,b\n"r1",1,2\n"r2",3,4\n', "one value more than the header, perhaps row names from R"),
        ("sep=;\na;b\n1;2\n", "begins with a note for Excel"),
        ("# written by hand\na,b\n1,2\n", "lines that begin with # seem to be comments"),
        ("a,b\n1,é\n".encode("cp1252"), "is not UTF-8"),
        (zipped("my.csv", b"a,b\n1,2\n"), "is a zip archive"),
        (bz2.compress(b"a,b\n1,2\n"), "is packed with bzip2"),
        (lzma.compress(b"a,b\n1,2\n"), "is packed with xz"),
    ],
)
def test_a_fault_of_the_whole_file_is_named_with_a_command_that_mends_it(
    tmp_path: Path, content: str | bytes, problem: str
) -> None:
    path = tmp_path / "it's mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=problem) as raised:
        reading.read(str(path))
    command = re.search(r"; ((iconv|sed|grep|unzip|bunzip2|xz) .* > '.*\.new\.csv')", str(raised.value))
    assert command is not None
    if shutil.which(command[2]) is None:
        pytest.skip(f"{command[2]} is not installed")
    subprocess.run(["bash", "-c", command[1]], cwd=tmp_path, check=True)
    assert reading.read(str(tmp_path / "it's mine.new.csv")).columns[-2:] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "head", "problem"),
    [
        ("t.csv", b"PK\x03\x04..[Content_Types].xml", "is an Excel or other Office file .*save it there as CSV UTF-8"),
        ("t.csv", b"PK\x03\x04..my.csv", r"is a zip archive .*unzip -p \S+t\.csv > t\.new\.csv"),
        ("t.csv", b"PK\x03\x04..x.npy", r"numpy arrays .*the ending \.npz"),
        ("t.txt", b"\x93NUMPY", "is a numpy array"),
        ("t.csv", b"PAR1\x15", "is a Parquet file"),
        ("t.csv", b"<!DOCTYPE html>", "is a web page"),
        ("t.csv", b"\n\n<!doctype html>", "is a web page"),
        ("t.csv", b"PAR1,PAR2", "has no rows, only a header"),
        ("t.gz", gzip.compress(b"t.csv\0\0\0", mtime=0), "is no text, as its first line has zero bytes"),
    ],
)
def test_the_first_bytes_tell_what_is_no_text(tmp_path: Path, name: str, head: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(head)
    with pytest.raises(DataError, match=problem):
        reading.read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        (".parquet", TABLE.write_parquet),
        (".arrow", TABLE.write_ipc),
        (".npz", lambda path: np.savez(path, a=np.arange(3))),
        (".zst", lambda path: TABLE.write_csv(path, compression="zstd")),
    ],
)
def test_a_file_of_another_format_is_read_by_the_ending_that_is_named(
    tmp_path: Path, ending: str, write: Callable[[str], None]
) -> None:
    right, wrong = tmp_path / f"right{ending}", tmp_path / "wrong.csv"
    write(str(right))
    right.rename(wrong)
    with pytest.raises(DataError, match=rf"give it the ending \{ending}"):
        reading.read(str(wrong))
    assert reading.read(str(wrong.rename(right))).height == TABLE.height


def test_a_single_array_becomes_a_table_as_the_message_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = np.arange(6.0).reshape(3, 2), np.array(["a", "b", "a"])
    with open("t.csv", "wb") as file:
        np.save(file, x)
    with pytest.raises(DataError) as raised:
        reading.read("t.csv")
    exec(str(raised.value).split("; ")[1].split(" makes")[0], {"np": np, "x": x, "y": y})
    assert reading.read("t.npz").columns == ["x0", "x1", "y"]


def test_arrays_of_bytes_and_times_are_columns_and_others_are_named(tmp_path: Path) -> None:
    days = np.array(["2020-01-01", "NaT"], dtype="datetime64[D]")
    np.savez(tmp_path / "t.npz", y=np.array(["cät".encode(), b"dog"]), day=days)
    table = reading.read(str(tmp_path / "t.npz"))
    assert table["y"].to_list() == ["cät", "dog"]
    assert table["day"].to_list() == [datetime.datetime(2020, 1, 1), None]
    for array, problem in (
        (np.array([{}, 1]), r"holds Python's objects; .* x\.astype\(str\)"),
        (np.zeros((2, 2, 2)), "reshape"),
    ):
        np.savez(tmp_path / "t.npz", x=array)
        with pytest.raises(DataError, match=f"the array 'x' .*{problem}"):
            reading.read(str(tmp_path / "t.npz"))


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
        reading.from_python(rows, [["a", "b"]])
