"""What stands in a file that is no CSV, and the commands that repair one, run as they are printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from neurona.errors import DataError
from neurona.tables import reading
from neurona.tables.faults import command

ROWS = [{"x": 1.5, "c": "a"}, {"x": 2.0, "c": "b"}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "".join(json.dumps(row) + "\n" for row in ROWS),
    ],
)
def test_json_is_made_a_table_as_printed(tmp_path: Path, text: str) -> None:
    file = tmp_path / "it's.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=r"by its first bytes; python -c .* makes a table of it") as caught:
        reading.read(str(file))
    line = re.findall(r"(python -c .*) makes a table of it$", str(caught.value))[0]
    subprocess.run(["bash", "-c", line.replace("python", sys.executable, 1)], check=True, cwd=tmp_path)
    assert pl.read_csv(tmp_path / "it's.new.csv").to_dicts() == ROWS


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("%PDF-1.7\n", "is a PDF document by its first bytes; save its table as CSV"),
        ('<?xml version="1.0"?>\n<rows/>', "is an XML file by its first bytes; save it as CSV"),
        ("@relation iris\n", "is an ARFF file by its first bytes; save it as CSV, its attributes as the header"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, start: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(start)
    with pytest.raises(DataError, match=re.escape(message)):
        reading.read(str(tmp_path / "t.csv"))


def test_a_header_in_brackets_is_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("[x],{y}\n1,2\n")
    assert reading.read(str(tmp_path / "t.csv")).columns == ["[x]", "{y}"]


def test_a_command_quotes_names(tmp_path: Path) -> None:
    assert command("sed 1d", Path("a b.csv")) == "sed 1d 'a b.csv' > 'a b.new.csv'"
    assert command("sed 1d", Path("a.csv.gz")) == "zcat a.csv.gz | sed 1d > a.csv.new.csv"
