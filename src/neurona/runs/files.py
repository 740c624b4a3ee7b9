"""Files written whole or not at all, and new folders."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from neurona.errors import ConfigError, RunError


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


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or, whatever happens, leaves the one there as it was. Raises RunError as ``replacing``."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` once it is whole and on the disk, or not at all.

    Raises RunError if it cannot be written.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def unwritable(path: Path, error: OSError) -> RunError:
    """What to raise where the disk refuses a file."""
    reason = error.strerror or str(error)
    return RunError(f"{path}: cannot be written ({reason}); make room, or give another place with folder=…")
