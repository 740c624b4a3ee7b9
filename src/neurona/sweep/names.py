"""What the folders of a sweep's jobs are called: ``0_relu_seed0`` is the number of the job and what varies in it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from neurona.config.overrides import written

SUBDIR = "hydra.sweep.subdir"
MAX_LENGTH = 60
"""Characters of a name."""

NOT_ALONE = ("true", "false", "null", "none", "nan", "inf", "auto")
"""Words that say nothing without the key."""


def name(number: int, varying: Sequence[str]) -> str:
    """The name of a job's folder: at most ``MAX_LENGTH`` ASCII letters, digits and ``. + - _``, so that any file system
    takes it. The number alone tells jobs apart.

    varying: the overrides whose values vary from job to job. A word stands by itself, any other value follows the last
    part of its key.
    """
    parts = [str(number), *filter(None, map(_part, varying))]
    return "_".join(parts)[:MAX_LENGTH].rstrip("._+-")


def _part(override: str) -> str:
    key, _, value = override.partition("=")
    with contextlib.suppress(ValueError):
        value = value if value.isdecimal() else f"{float(value):.4g}"
    value = re.sub(r"[^a-zA-Z0-9_.+-]+", "-", value).strip(".+-" if value[:1] != "-" else ".+")
    is_word = value[:1].isalpha() and value.lower() not in NOT_ALONE
    return value if is_word else re.sub(r"[^a-zA-Z0-9_]+", "-", re.split(r"[./]", key)[-1]).strip("-") + value


def with_folder(
    number: int, overrides: Sequence[str], varying: Sequence[str], folders: Mapping[int, Path]
) -> list[str]:
    """A job's overrides and, for Hydra, the name of its folder. folders: those that ``jobs.folders`` finds; a job that
    has begun keeps its own, whatever it is called.
    """
    folder = folders[number].name if number in folders else name(number, varying)
    return [*overrides, written(SUBDIR, folder)]


def folder_of(sweep: Path, number: int, overrides: Sequence[str]) -> Path:
    """The folder that ``with_folder`` has named; of a sweeper that names none, Hydra's own, the number."""
    names = [line.partition("=")[2].strip("'") for line in overrides if line.startswith(f"{SUBDIR}=")]
    return sweep / (names[-1] if names else str(number))
