"""Images in IDX files: reading, checking and downloading them.

The format (http://yann.lecun.com/exdb/mnist/): two zero bytes, the type (8: unsigned byte), the number of dimensions,
each dimension as a big-endian 32-bit integer, then the values, row by row.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import math
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

import numpy as np
import torch
from tqdm import tqdm

from neurona.data.base import InMemoryData, Table
from neurona.data.preprocessing import Scaling
from neurona.errors import DataError

REMEDY = "delete it to have it downloaded again, or replace it with an intact copy"
OTHERS = "if it belongs to another data set, keep it, and set data.root to the folder of the right files"
TIMEOUT_SECONDS = 20.0


def read(path: Path, num_dimensions: int) -> np.ndarray:
    """The unsigned bytes of an IDX file, plain or gzip (told by its content), in the shape its header states.

    No more is read than the header states. Raises DataError where the file is damaged, truncated, too long, too large
    for the memory, or holds another type or number of dimensions.
    """
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.open(file) if is_packed else file as content:
                shape = _shape(path, content.read(4 + 4 * num_dimensions), num_dimensions)
                size = math.prod(shape)
                values = content.read(size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(path, f"damaged gzip file ({error}); {REMEDY}") from error
    except (MemoryError, OverflowError):
        raise DataError(
            path, f"truncated, or larger than the memory: its header states {size} values; {REMEDY}"
        ) from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror}); put the IDX file there") from error
    if len(values) < size:
        raise DataError(path, f"truncated: {len(values)} values where its header states {size}; {REMEDY}")
    if len(values) > size:
        raise DataError(path, f"longer than the {size} values its header states; {REMEDY}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _shape(path: Path, header: bytes, num_dimensions: int) -> tuple[int, ...]:
    """The shape that a header states. Raises DataError for another type, number of dimensions, or nothing."""
    magic = header[:4]
    if magic != bytes((0, 0, 8, num_dimensions)):
        expected = f"of unsigned bytes in {num_dimensions} dimension{'s' * (num_dimensions > 1)}"
        remedy = OTHERS if re.match(rb"\0\0[\x08\x09\x0b-\x0e][\1-\xff]", magic, re.DOTALL) else REMEDY
        raise DataError(path, f"not an IDX file {expected}: it starts with {magic.hex(' ') or 'nothing'}; {remedy}")
    if len(header) < 4 + 4 * num_dimensions:
        raise DataError(path, f"truncated within its header; {REMEDY}")
    shape = tuple(np.frombuffer(header[4:], ">u4").tolist())
    if not math.prod(shape):
        raise DataError(path, f"empty: its header states the shape {shape}; {REMEDY}")
    return shape


def download(name: str, md5: str, folder: Path, mirrors: tuple[str, ...]) -> None:
    """Fetch <mirror><name> into the folder from the first mirror that delivers it intact, showing the progress.

    The file appears whole, under its name, or not at all. Raises OSError with every mirror's failure.
    """
    failures = []
    for mirror in mirrors:
        try:
            _fetch(mirror + name, md5, folder / name)
            return
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"{mirror}{name}: {error}")
    raise OSError("; ".join(failures))


def _fetch(url: str, md5: str, path: Path) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with (
            temporary.open("wb") as file,
            urlopen(url, timeout=TIMEOUT_SECONDS) as response,
            tqdm(total=response.length, desc=path.name, unit="B", unit_scale=True, disable=None) as progress,
        ):
            while block := response.read(2**16):
                file.write(block)
                digest.update(block)
                progress.update(len(block))
        if digest.hexdigest() != md5:
            raise ValueError(f"damaged on the way: its MD5 is {digest.hexdigest()}, not {md5}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(kw_only=True, eq=False, repr=False)
class IdxImages(InMemoryData):
    """Images of one byte per pixel in the four IDX files of MNIST's layout, .gz or not, in the folder ``root``.

    The pixels stay uint8 in memory. The published test files are the test part. Missing files are downloaded by
    ``prepare_data`` alone. A data set states its class names, mirrors (each ending in a slash) and the MD5 of each .gz.
    """

    class_names: ClassVar[tuple[str, ...]]
    mirrors: ClassVar[tuple[str, ...]]
    md5: ClassVar[Mapping[str, str]]

    root: Path
    batch_size: int = 128
    val_fraction: float = 1 / 12
    test_fraction: float = field(default=0.0, init=False)
    scaling: Scaling = "unit"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.root = Path(self.root).expanduser()

    def prepare_data(self) -> None:
        """Download what is not in the folder; processes that share the folder take turns. Raises DataError."""
        if not self._missing():
            return
        lock_path = self.root / ".lock"
        new_folders = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = lock_path.open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            problem = f"cannot hold the data ({error.strerror}); set data.root to a folder that can be written"
            raise DataError(self.root, problem) from error
        with lock:
            try:
                for name in self._missing():
                    download(f"{name}.gz", self.md5[name], self.root, self.mirrors)
            except OSError as error:
                raise self._incomplete(f"; the download failed ({error})") from error
            finally:
                lock_path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # up to the first that holds something
                    for folder in new_folders:
                        folder.rmdir()

    def read(self) -> Table:
        train_images, train_labels = self._read_part("train")
        test_images, test_labels = self._read_part("t10k")
        if train_images.shape[1:] != test_images.shape[1:]:
            sizes = f"{train_images.shape[1:]} and {test_images.shape[1:]}"
            problem = f"training and test images differ in size: {sizes}; use files that belong together"
            raise DataError(self.root, problem)
        images = torch.from_numpy(np.concatenate((train_images, test_images)))
        labels = torch.from_numpy(np.concatenate((train_labels, test_labels))).long()
        return Table(images.flatten(1), labels, self.class_names, tuple(images.shape[1:]), num_test=len(test_images))

    def _read_part(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        images_path, labels_path = self._find(f"{part}-images-idx3-ubyte"), self._find(f"{part}-labels-idx1-ubyte")
        if images_path is None or labels_path is None:
            raise self._incomplete()
        images, labels = read(images_path, 3), read(labels_path, 1)
        if len(images) != len(labels):
            problem = f"{len(labels)} labels for the {len(images)} images of {images_path.name}"
            raise DataError(labels_path, f"{problem}; use files that belong together")
        if labels.max() >= len(self.class_names):
            problem = f"label {labels.max()} out of range: the {len(self.class_names)} classes are numbered from 0"
            raise DataError(labels_path, f"{problem}; {OTHERS}")
        return images, labels

    def _missing(self) -> list[str]:
        return [name for name in self.md5 if self._find(name) is None]

    def _incomplete(self, cause: str = "") -> DataError:
        names = ", ".join(self._missing())
        return DataError(self.root, f"has no {names}{cause}; place the files there, .gz or not, or set data.root")

    def _find(self, name: str) -> Path | None:
        """The file of that name, plain before .gz; None where there is neither."""
        return next((path for path in (self.root / name, self.root / f"{name}.gz") if os.path.exists(path)), None)
