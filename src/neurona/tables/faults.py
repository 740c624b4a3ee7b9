"""Files that should be CSV and are not: what they are instead, or what all their lines have in common, and the command
that repairs them.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from neurona.errors import DataError

ZIP, ZSTD, OFFICE = b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xd0\xcf\x11\xe0"
_UTF_16 = "text in UTF-16", "iconv -f utf-16 -t utf-8 {file} converts it"
FORMATS = {
    ZIP: ("a zip archive", "unzip -p {file} unpacks what is in it"),
    ZSTD: ("packed with zstd", "give it the ending .zst"),
    b"\xff\xfe": _UTF_16,
    b"\xfe\xff": _UTF_16,
    b"\x93NUMPY": ("a numpy array", "np.savez('t.npz', x=x, y=y) makes a table of it and the labels y"),
    b"PAR1\x15": ("a Parquet file", "give it the ending .parquet"),
    b"ARROW1": ("an Arrow file", "give it the ending .arrow"),
    OFFICE: ("an Excel or other Office file", "save it there as CSV UTF-8"),
    b"version https://git-lfs": ("a pointer of Git LFS", "git lfs pull gets the file itself"),
    **dict.fromkeys((b"<!DOCTYPE", b"<!doctype", b"<html"), ("a web page", "download the file itself")),
    b"%PDF": ("a PDF document", "save its table as CSV"),
    b"<?xml": ("an XML file", "save it as CSV"),
    b"[{": ("a JSON file", "{file:read_json} makes a table of it"),
    b'{"': ("a file of JSON lines", "{file:read_ndjson} makes a table of it"),
    **dict.fromkeys((b"@relation", b"@RELATION"), ("an ARFF file", "save it as CSV, its attributes as the header")),
    b"BZh": ("packed with bzip2", "bunzip2 -c {file} unpacks it"),
    b"\xfd7zXZ": ("packed with xz", "xz -dc {file} unpacks it"),
}
"""What a file that is no CSV begins with, what it is, and what to do: {file} stands behind a command of the shell,
{file:…} for a function of polars that reads it.
"""
QUOTED = re.compile('"[^"]*"')


def check_format(file: Path) -> None:
    """Raises DataError where the first bytes are those of something else than text in UTF-8."""
    with file.open("rb") as start:
        head = start.read(4096).lstrip()
    head = b"".join(head.split()) if head.startswith(b"[") else head  # of JSON, in whatever lines
    magic = next((magic for magic in FORMATS if head.startswith(magic)), ZSTD)
    name, remedy = FORMATS[magic]
    if not head.startswith(magic) or (magic == ZSTD and file.suffix == ".zst"):
        return
    if magic == ZIP and b"[Content_Types].xml" in head:
        name, remedy = FORMATS[OFFICE]
    elif magic == ZIP and b".npy" in head:
        name, remedy = "a file of numpy arrays", "give it the ending .npz"
    repair, found, words = remedy.partition(" {file}")
    remedy = f"{command(repair, file)}{words}" if found else remedy
    if match := re.match(r"{file:(\w+)}", remedy):
        table = f'import polars; polars.{match[1]}({str(file)!r}).write_csv("{file.stem}.new.csv")'
        remedy = f"python -c {shlex.quote(table)}{remedy[match.end() :]}"
    raise DataError(file, f"is {name} by its first bytes; {remedy}")


def check_first(line: str, file: Path) -> None:
    """Raises DataError where the first line is none of a table."""
    if not line:
        raise DataError(file, "is empty; it needs a header and rows")
    if re.fullmatch(r"sep=.\s*", line, re.IGNORECASE):
        raise DataError(file, f"begins with a note for Excel; {command('sed 1d', file)} leaves it out")
    if set(line[1:8:2]) == {"\0"}:
        convert = command("iconv -f utf-16le -t utf-8", file)
        raise DataError(file, f"seems to be text in UTF-16; {convert} converts it")
    if "\0" in line:
        raise DataError(file, "is no text, as its first line has zero bytes; if it is an archive, unpack it")
    if "\r" in QUOTED.sub("", line).rstrip():
        convert = command(r"awk 1 RS='\r'", file)
        raise DataError(file, f"has lines that end in CR, as on an old Mac; {convert} ends them as usual")


def command(repair: str, file: Path) -> str:
    """A shell command that repairs a file."""
    old, new = shlex.quote(str(file)), shlex.quote(f"{file.stem}.new.csv")
    unpack = {".gz": "zcat", ".zst": "zstdcat"}.get(file.suffix)
    return f"{unpack} {old} | {repair} > {new}" if unpack else f"{repair} {old} > {new}"


def common_fault(file: Path, lines: Sequence[str], separator: str, width: int) -> str:
    """A fault that the first lines of a CSV file share, and the command that repairs it; nothing where none is known.

    separator: of its values. width: how many the header has.
    """
    counts = {at: QUOTED.sub("", line).count(separator) for at, line in enumerate(lines) if line.strip()}
    first, *others = counts
    usual = Counter(counts.values()).most_common(1)[0][0]
    head = next(at for at, count in counts.items() if count == usual)
    below = {counts[at] for at in others}
    hashed = [count for at, count in counts.items() if lines[at].startswith("#")]
    names = [lines[at].split(separator)[0] for at in others]
    if hashed and usual not in hashed:
        repair, words = "grep -v '^#'", "lines that begin with # seem to be comments; {} leaves them out"
    elif below == {width} and all(lines[at].endswith(separator) for at in others):
        repair, words = f"sed 's/{separator}$//'", f"every row ends in {separator!r}; {{}} leaves that out"
    elif below == {width - 2} and lines[first].endswith(separator):
        repair, words = f"sed '{first + 1}s/{separator}$//'", f"the header ends in {separator!r}; {{}} leaves that out"
    elif below == {width} and len(set(names)) == len(names):
        repair = f"sed '{first + 1}s/^/row{separator}/'"
        words = "every row has one value more than the header, perhaps row names from R; {} gives them a name"
    elif head and all(2 * count < usual if at < head else count == usual for at, count in counts.items()):
        repair, words = f"sed 1,{head}d", "if a title stands before the header, {} leaves it out"
    else:
        return ""
    return words.format(command(repair, file))
