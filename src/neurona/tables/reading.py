"""Reading tables: CSV and its kin, Parquet, Arrow (Feather) and npz files, one or many, whole or in batches.

Every value of a CSV file is read as text; what it means is decided once, by ``neurona.tables.inference``.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import polars as pl
from polars.exceptions import PanicException, PolarsError

from neurona.data.spec import alone
from neurona.errors import DataError, did_you_mean
from neurona.tables.faults import QUOTED, check_first, check_format, command, common_fault

SEPARATORS = ",;\t|"
COMPRESSED = (".gz", ".zst")
MOST_HEADER = 2**26
"""Bytes of a first line; a million columns take some ten million."""
FAILURES = (
    PolarsError,
    PanicException,
    OSError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
    EOFError,
    BadZipFile,
    zlib.error,
)
"""What a reader raises on a damaged file. PanicException is no Exception."""


def read(path: str, separator: str | None = None) -> pl.DataFrame:
    """The table in a file, or in all files that a pattern (``parts/*.csv``) matches, in the order of their names.

    CSV columns are text. separator: of a CSV file; None takes the one that its first line has most of. Of several
    files, all must have the columns of the first. Raises DataError naming the file, and the line where there is one.
    """
    parts = []
    for file in files(path):
        with _failures(file, separator):
            parts.append((file, _scan(file, separator).collect()))
    table = concatenate(parts)
    if not table.height:
        raise DataError(path, "has no rows, only a header" if table.width else "is empty; it needs a header and rows")
    return table


def batches(path: str, separator: str | None, rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in the same order, in frames of at most ``rows``; memory does not grow with the number of rows.

    Of several files, each has its own columns. Raises DataError as ``read``.
    """
    for file in files(path):
        with _failures(file, separator):
            for batch in _scan(file, separator).collect_batches(chunk_size=rows):
                yield from batch.iter_slices(rows)


def files(path: str) -> list[Path]:
    """The file of that name, or those that match the pattern, sorted. Raises DataError where there is none."""
    pattern = Path(path).expanduser()
    if pattern.is_dir():
        raise DataError(pattern, "is a folder; to read its files together write a pattern, such as folder/*.parquet")
    matches = [pattern] if pattern.exists() else [Path(name) for name in sorted(glob.glob(str(pattern)))]
    if not matches:
        siblings = os.listdir(pattern.parent) if pattern.parent.is_dir() else []
        raise DataError(pattern, f"does not exist{did_you_mean(pattern.name, siblings)}")
    return matches


def concatenate(parts: Sequence[tuple[object, pl.DataFrame]]) -> pl.DataFrame:
    """The rows of tables one below the other, with the columns of the first; each comes with what it is called.

    A column that is text in one and numbers in another becomes text. Raises DataError naming a table that lacks some.
    """
    names = parts[0][1].columns
    for where, part in parts:
        require(part, names, where)
    frames = [part[names] for _, part in parts]
    kinds = zip(*(frame.dtypes for frame in frames), strict=True)
    mixed = [
        name
        for name, types in zip(names, kinds, strict=True)
        if len(set(types)) > 1 and not all(kind.is_numeric() for kind in types)
    ]
    if mixed:
        frames = [frame.with_columns(frame[name].cast(pl.String) for name in mixed) for frame in frames]
    return pl.concat(frames, how="vertical_relaxed")


def require(table: pl.DataFrame, names: Iterable[str], where: object) -> None:
    """Raises DataError naming the columns that the table lacks."""
    columns = set(table.columns)
    if missing := [name for name in names if name not in columns]:
        hint = did_you_mean(missing[0], table.columns)
        words = ", ".join(map(repr, missing[:10])) + " …" * (len(missing) > 10)
        raise DataError(where, f"has no column {words}{hint}; it has {', '.join(table.columns[:30])}")


def from_python(rows: Any, widths: Sequence[Sequence[str]], where: str = "features") -> pl.DataFrame:
    """A polars frame of a polars or pandas frame, a mapping of columns, a list of mappings, or an array (rows,
    columns).

    widths: what the columns of an array are called, by their number. Raises DataError naming ``where`` if it is none
    of these.
    """
    if isinstance(rows, pl.DataFrame):
        return rows
    try:
        if hasattr(rows, "columns"):  # pandas, without asking for pyarrow
            _require_distinct([str(name) for name in rows.columns], where, "rename them")
            rows = {str(name): rows[name].tolist() for name in rows.columns}
        if isinstance(rows, Mapping):
            columns = {str(name): [value] if np.isscalar(value) else value for name, value in rows.items()}
            return pl.DataFrame({name: _with_none(values) for name, values in columns.items()}, strict=False)
        if isinstance(rows, Sequence) and rows and all(isinstance(row, Mapping) for row in rows):
            return pl.DataFrame(list(rows), strict=False, infer_schema_length=None)
        array = np.asarray(rows)
        for names in widths:
            if array.ndim == 2 and array.shape[1] == len(names):
                if array.dtype.kind in "biuf" and array.itemsize in (1, 4, 8):
                    return pl.from_numpy(np.ascontiguousarray(array), schema=list(names))
                return pl.DataFrame(
                    {name: _with_none(array[:, i].tolist()) for i, name in enumerate(names)}, strict=False
                )
        names = widths[0]
        problem = f"have the shape {array.shape}; the run was trained with the {len(names)} columns {', '.join(names)}"
        problem += alone(rows) if array.shape == (len(names),) else ""
    except FAILURES as error:
        problem = f"cannot be read as a table: {_one_line(error)}"
    raise DataError(where, problem)


def _with_none(values: Any) -> Any:
    """A list with None in place of NaN and of pandas' missing values, which polars does not know."""
    if not isinstance(values, list):
        return values
    absent = {"NaTType", "NAType"}
    return [None if type(v).__name__ in absent or (isinstance(v, float) and v != v) else v for v in values]


def _require_distinct(names: Sequence[str], where: object, remedy: str) -> None:
    if doubled := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(where, f"has more than one column of the name {', '.join(map(repr, doubled))}; {remedy}")


def _scan(file: Path, separator: str | None) -> pl.LazyFrame:
    reader = READERS.get(_kind(file))
    return reader(file) if reader else _scan_csv(file, separator)


def _kind(file: Path) -> str:
    return next((suffix.lower() for suffix in reversed(file.suffixes) if suffix.lower() not in COMPRESSED), "")


def _scan_csv(file: Path, separator: str | None) -> pl.LazyFrame:
    """Checked first, line by line: polars fills short lines up, and does not say where it meets an error."""
    check_format(file)
    first = _first_line(file)
    check_first(first, file)
    separator = separator or _separator(first)
    lines = pl.scan_lines(file, name="line", glob=False)
    unquoted = pl.col("line").str.replace_all(QUOTED.pattern, "")
    width, wanted = unquoted.str.count_matches(separator, literal=True), QUOTED.sub("", first).count(separator)
    is_odd = (width != wanted) | unquoted.str.contains('"', literal=True)  # perhaps a quoted line break
    is_blank = pl.col("line").str.strip_chars(_blanks(separator)) == ""
    is_odd = lines.select((is_odd | is_blank).any()).collect(engine="streaming").item()
    blank = _check_lines(file, separator) if is_odd else []  # of which polars makes rows
    skipped = next((place for place, number in enumerate(blank) if place != number), len(blank))  # before the header

    options: dict[str, Any] = {"separator": separator, "infer_schema": False, "glob": False, "skip_lines": skipped}
    header = pl.scan_csv(file, has_header=False, truncate_ragged_lines=True, **options).head(1).collect().row(0)
    names = [(name or "").strip() for name in header]
    _require_distinct(names, file, "rename them in its first line")
    if len(blank) == skipped:
        return pl.scan_csv(file, new_columns=names, **options)
    index, rows = "\n", pl.Series([number - skipped - 1 for number in blank[skipped:]], dtype=pl.UInt32)
    table = pl.scan_csv(file, new_columns=names, row_index_name=index, **options)
    return table.filter(~pl.col(index).is_in(rows.implode())).drop(index)


def _first_line(file: Path) -> str:
    return next((line for line in _lines(file, MOST_HEADER) if line.strip()), "")


def _blanks(separator: str) -> str:
    """The characters of a line that counts as blank."""
    return " \t\r\n".replace(separator, "")


def _separator(first_line: str) -> str:
    return max(SEPARATORS, key=QUOTED.sub("", first_line).count)


def _check_lines(file: Path, separator: str) -> list[int]:
    """The numbers, from 0, of the records that are blank lines. Raises DataError naming the first line that is not
    UTF-8, has not as many values as the header, or has quotes that are not around a whole value: where they stray over
    lines, polars takes several for one.
    """
    mark = re.escape(separator)
    value = rf'(?:"(?:[^"]|"")*+"|[^"{mark}]*+)'
    whole, opening = re.compile(rf"{value}(?:{mark}{value})*+\s*"), re.compile(rf'(?:{value}{mark})*+"(?:[^"]|"")*+')
    remedy = f"put a value with {separator!r}, quotes or line breaks into double quotes, and double the quotes in it"
    width, opened_at, count = 0, 0, 1  # opened_at: the line of an open quote; count: values of the record so far
    blank, records = [], 0
    for number, line in enumerate(_lines(file), start=1):
        text = '"' * bool(opened_at) + line
        count += QUOTED.sub("", text).split('"')[0].count(separator)
        if whole.fullmatch(text):
            if not opened_at and not text.strip(_blanks(separator)):
                blank.append(records)
            elif count != (width := width or count):
                problem = f"has {count} values where the header has {width}"
                first = [one.rstrip("\r\n") for one in islice(_lines(file), 100)]
                remedy = common_fault(file, first, separator, width) or f"{remedy}; data.separator sets another"
                raise DataError(f"{file}, line {number}", f"{problem}; {remedy}")
            opened_at, count, records = 0, 1, records + 1
        elif opening.fullmatch(text):
            opened_at = opened_at or number
        else:
            raise DataError(f"{file}, line {number}", f"has a double quote within a value; {remedy}")
    if opened_at:
        raise DataError(f"{file}, line {opened_at}", "has a double quote that is never closed")
    return blank


def _lines(file: Path, most: int = -1) -> Iterator[str]:
    """Raises DataError naming a line that is not UTF-8, or has more than so many bytes, which would fill the memory."""
    if file.suffix == ".zst":  # which Python cannot unpack
        for batch in pl.scan_lines(file, glob=False).collect_batches():
            yield from batch.to_series()
        return
    with file.open("rb") as start:
        packed = start.read(2) == b"\x1f\x8b"
    with gzip.open(file) if packed else file.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(most), b""), start=1):
            if len(line) == most:
                raise DataError(f"{file}, line {number}", f"has more than {most:,} bytes, too many for a header")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                convert = command("iconv -f cp1252 -t utf-8", file)
                problem = f"is not UTF-8 ({error.reason}); {convert} converts it, if it comes from Windows"
                raise DataError(f"{file}, line {number}", problem) from error


def _arrays(file: Path) -> pl.DataFrame:
    """A one-dimensional array is the column of its name, a two-dimensional one x the columns x0, x1 …"""
    columns: dict[str, Any] = {}
    with np.load(file, allow_pickle=False) as arrays:
        for name in arrays.files:
            try:
                array = arrays[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                problem = f"the array {name!r} holds Python's objects; save it as {name}.astype(str)"
                raise DataError(file, problem) from error
            if array.ndim not in (1, 2):
                remedy = f"save it as {name}.reshape(len({name}), -1)" if array.ndim else "leave it out"
                raise DataError(
                    file, f"the array {name!r} has {array.ndim} dimensions; a table needs one or two; {remedy}"
                )
            if array.dtype.kind == "S":
                array = np.char.decode(array, "utf-8")
            elif array.dtype.kind == "M":
                array = array.astype("datetime64[us]")
            columns |= {name: array} if array.ndim == 1 else {f"{name}{i}": part for i, part in enumerate(array.T)}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise DataError(
            file, f"its arrays have {sorted(lengths) or 'no'} rows; all arrays of a table need the same number"
        )
    return pl.DataFrame(columns)


READERS: dict[str, Callable[[Path], pl.LazyFrame]] = {
    **dict.fromkeys((".parquet", ".pq"), partial(pl.scan_parquet, glob=False)),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), partial(pl.scan_ipc, glob=False)),
    ".npz": lambda file: _arrays(file).lazy(),
}
"""By the ending of a file's name; every other is CSV."""


@contextlib.contextmanager
def _failures(file: Path, separator: str | None) -> Iterator[None]:
    """What polars and numpy raise, as a DataError; of a CSV file, naming the line where Python finds it too."""
    try:
        yield
    except DataError:
        raise
    except FAILURES as error:
        if _kind(file) not in READERS:
            with contextlib.suppress(PolarsError, OSError, EOFError, zlib.error):
                _check_lines(file, separator or _separator(_first_line(file)))
        problem = f"cannot be read ({_one_line(error)}); it is damaged, cut short, or of another format than its name"
        raise DataError(file, problem) from error


def _one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
