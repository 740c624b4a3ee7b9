"""Files written whole or not at all, new folders, and files from elsewhere, read with care."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import yaml

from neurona.errors import ConfigError, RunError

PART_BYTES = 2**20

MOST_BYTES = 2**26
"""Of a file of settings or figures; one of ours has some thousands."""


def make_new(path: Path, key: str = "folder") -> Path:
    """Makes a new folder, with a number behind its name if it is taken. Raises ConfigError for ``key``."""
    if path.name in ("", ".."):
        raise ConfigError(key, path, "must name a folder of the run's own")
    if os.path.exists(path) and not os.path.isdir(path):
        raise ConfigError(key, path, "is a file; name a folder")
    number, free = 1, path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with contextlib.suppress(FileExistsError):
                free.mkdir()
                return free
            number += 1
            free = path.with_name(f"{path.name}-{number}")
    except OSError as error:
        raise ConfigError(key, path, f"cannot be made: {error.strerror}") from error


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows, of which the first is the header, as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or, whatever happens, leaves the one there as it was. Raises RunError as ``replacing``."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` once it is whole and on the disk, or not at all. Its folder is there
    already: one that has been removed does not come back.

    Raises RunError if it cannot be written.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        for cause in (error, error.__context__):  # torch reports a failure of its own while handling the disk's
            if isinstance(cause, OSError):
                raise unwritable(path, cause) from error
        raise


class InParts(io.RawIOBase):
    """A file to which nothing is written in larger parts than 1 MiB, whatever ``write`` is given. On a virtual machine
    with Linux 6.18 one write of 16 MiB takes ten times as long as sixteen of this size.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file

    def write(self, data: Any) -> int:
        """data: anything that holds bytes. Returns their number."""
        contents = memoryview(data).cast("B")
        for start in range(0, len(contents), PART_BYTES):
            self.file.write(contents[start : start + PART_BYTES])
        return len(contents)


def link(source: Path, target: Path) -> None:
    """Makes ``target`` another name of ``source``'s contents, or a copy of them where a file has one name only.

    Whole or not at all. Raises RunError as ``replacing``.
    """
    if target.exists() and target.samefile(source):  # renaming would do nothing, and leave the temporary name
        return
    temporary = _temporary(target)
    try:
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        temporary.replace(target)
    except OSError:
        with replacing(target) as file, source.open("rb") as contents:
            shutil.copyfileobj(contents, file)


def is_below(path: str | Path, folder: Path) -> bool:
    """Whether a path, links followed, leads to something in a folder."""
    real, place = os.path.realpath(path), os.path.realpath(folder)
    return real != place and Path(real).is_relative_to(place)


def read_text(path: Path) -> str:
    """The text of a file of settings or figures, which may be a stranger's.

    Raises OSError if there is none, and ValueError for what is no plain file of such a size, or no UTF-8.
    """
    if path.exists() and not (path.is_file() and path.stat().st_size <= MOST_BYTES):
        raise ValueError(f"{path} is no file of settings or figures")
    return path.read_text(encoding="utf-8")


def read_yaml(path: Path) -> str:
    """The text of a YAML file without aliases, of which a short text makes more than a memory holds.

    Raises as ``read_text``, and ValueError for aliases.
    """
    text = read_text(path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
        raise ValueError(f"{path} has aliases")
    return text


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; nothing if it is missing or damaged."""
    try:
        # An integer beyond what a float holds is infinite: it could not be shown.
        contents = json.loads(read_text(path), parse_int=lambda digits: (int if len(digits) < 300 else float)(digits))
    except (OSError, ValueError, RecursionError):
        return {}
    return contents if isinstance(contents, dict) else {}


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def unwritable(path: Path, error: OSError) -> RunError:
    """What to raise where the disk refuses a file."""
    reason = error.strerror or str(error)
    return RunError(f"{path}: cannot be written ({reason}); make room, or give another place with folder=…")
