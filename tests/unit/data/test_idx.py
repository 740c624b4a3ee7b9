from __future__ import annotations

import gzip
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from neurona.data import idx
from neurona.data.fashion_mnist import FashionMnist
from neurona.data.idx import IdxImages
from neurona.data.mnist import Mnist
from neurona.errors import DataError

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RANDOM.integers(0, 256, (60, 3, 2), np.uint8),
    "train-labels-idx1-ubyte": np.arange(60, dtype=np.uint8) % 10,
    "t10k-images-idx3-ubyte": RANDOM.integers(0, 256, (20, 3, 2), np.uint8),
    "t10k-labels-idx1-ubyte": np.arange(20, dtype=np.uint8) % 10,
}
LABELS = "train-labels-idx1-ubyte"
IMAGES = "train-images-idx3-ubyte"


def encoded(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


FILES = {name: encoded(values) for name, values in ARRAYS.items()}
PACKED = {name: gzip.compress(content, mtime=0) for name, content in FILES.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_reads_what_was_written(tmp_path: Path, packed: bool) -> None:
    for name, content in (PACKED if packed else FILES).items():
        (tmp_path / (name + ".gz" * packed)).write_bytes(content)
    data = Mnist(root=str(tmp_path))
    data.prepare_data()
    assert (data.spec.num_features, data.spec.image_shape) == (6, (3, 2))
    assert data.spec.class_names == tuple("0123456789")
    assert data.features.dtype == torch.uint8
    images, labels = (np.concatenate([ARRAYS[p + s] for p in ("train", "t10k")]) for s in (IMAGES[5:], LABELS[5:]))
    np.testing.assert_array_equal(data.features.numpy(), images.reshape(80, 6))
    np.testing.assert_array_equal(data.targets.numpy(), labels)
    assert data.test_rows.tolist() == list(range(60, 80))
    assert len(data.val_rows) == 5
    np.testing.assert_allclose(data.preprocessing(data.features), images.reshape(80, 6) / 255, rtol=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {name + ".gz" * packed for name in FILES}


def test_gzip_is_told_by_content(root: Path) -> None:
    (root / IMAGES).write_bytes(PACKED[IMAGES])
    np.testing.assert_array_equal(idx.read(root / IMAGES, 3), ARRAYS[IMAGES])


def with_shape(name: str, *shape: int) -> bytes:
    return FILES[name][:4] + struct.pack(f">{len(shape)}I", *shape) + FILES[name][4 + 4 * len(shape) :]


damaged_gzip = bytearray(PACKED[IMAGES])
damaged_gzip[-5] ^= 1  # in the checksum
DAMAGE = {
    "no byte": (IMAGES, b"", "starts with nothing"),
    "other magic": (IMAGES, b"<!DOCTYPE html>", "not an IDX file of unsigned bytes in 3 dimensions.* 3c 21 44 4f"),
    "other type": (IMAGES, b"\0\0\x0d\3" + FILES[IMAGES][4:], "not an IDX file of unsigned bytes.*keep it"),
    "images for labels": (LABELS, FILES[IMAGES], "in 1 dimension: it starts with 00 00 08 03; .*keep it"),
    "cut header": (IMAGES, FILES[IMAGES][:10], "truncated within its header"),
    "cut values": (IMAGES, FILES[IMAGES][:-1], "truncated: 359 values where its header states 360"),
    "cut most": (IMAGES, FILES[IMAGES][:20], "truncated"),
    "more values": (IMAGES, FILES[IMAGES] + b"\0", "longer than the 360 values"),
    "huge shape": (IMAGES, with_shape(IMAGES, 2**32 - 1, 2**32 - 1, 2**32 - 1), "truncated"),
    "huge shape, gzip": (IMAGES, gzip.compress(with_shape(IMAGES, 2**32 - 1, 28, 28)), "truncated"),
    "no image": (IMAGES, with_shape(IMAGES, 0, 3, 2)[:16], "empty"),
    "cut gzip": (IMAGES, PACKED[IMAGES][:-20], "damaged gzip"),
    "cut gzip checksum": (IMAGES, PACKED[IMAGES][:-6], "damaged gzip"),
    "gzip checksum": (IMAGES, bytes(damaged_gzip), "damaged gzip"),
    "gzip header": (IMAGES, PACKED[IMAGES][:2] + b"\xff" * 40, "damaged gzip"),
    "gzip body": (IMAGES, PACKED[IMAGES][:10] + b"\xff" * 40, "damaged gzip"),
    "label": (LABELS, encoded(np.arange(60, dtype=np.uint8) % 11), "label 10 out of range.*keep it, and set data.root"),
    "colours": (
        IMAGES,
        encoded(np.zeros((60, 3, 2, 3), np.uint8)),
        "in 3 dimensions: .* 00 00 08 04; .*keep it, and set",
    ),
    "fewer labels": (LABELS, encoded(ARRAYS[LABELS][:59]), f"59 labels for the 60 images of {IMAGES}"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(root: Path, kind: str) -> None:
    name, content, problem = DAMAGE[kind]
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        Mnist(root=str(root)).setup()
    assert str(caught.value).startswith(str(root / name))
    assert sum(words in str(caught.value) for words in ("delete it", "belong together", "keep it")) == 1


def test_a_folder_in_place_of_a_file(root: Path) -> None:
    (root / IMAGES).unlink()
    (root / IMAGES).mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        Mnist(root=str(root)).setup()


def test_parts_of_different_sizes(root: Path) -> None:
    (root / "t10k-images-idx3-ubyte").write_bytes(encoded(np.zeros((20, 3, 3), np.uint8)))
    with pytest.raises(DataError, match="differ in size"):
        Mnist(root=str(root)).setup()


def test_reading_never_downloads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "download", lambda *_: pytest.fail("downloaded"))
    (root / LABELS).unlink()
    with pytest.raises(DataError, match=rf"{root}: has no {LABELS}; .*data.root"):
        Mnist(root=str(root)).setup()


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A mirror with two folders: good/ has the files, bad/ has each damaged on the way."""
    for folder in ("good", "bad"):
        (tmp_path / "mirror" / folder).mkdir(parents=True)
        for name, content in PACKED.items():
            (tmp_path / "mirror" / folder / f"{name}.gz").write_bytes(content + b"!" * (folder == "bad"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "mirror"))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


def unreachable() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def checksum(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def downloading(root: Path, mirrors: tuple[str, ...]) -> IdxImages:
    class Mirrored(Mnist):
        md5: ClassVar = {name: checksum(content) for name, content in PACKED.items()}

    Mirrored.mirrors = mirrors
    return Mirrored(root=str(root))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_downloads_what_is_missing_from_the_first_mirror_that_works(tmp_path: Path, server: str) -> None:
    folder = tmp_path / "new" / "images"
    data = downloading(folder, (unreachable(), f"{server}absent/", f"{server}bad/", f"{server}good/"))
    data.prepare_data()
    assert names(folder) == {f"{name}.gz" for name in FILES}
    data.setup()
    assert data.features.shape == (80, 6)


def test_keeps_what_is_there(root: Path, server: str) -> None:
    (root / LABELS).unlink()
    before = (root / IMAGES).stat().st_mtime_ns
    downloading(root, (f"{server}good/",)).prepare_data()
    assert names(root) == (set(FILES) - {LABELS}) | {f"{LABELS}.gz"}
    assert (root / IMAGES).stat().st_mtime_ns == before


def test_a_failed_download_leaves_nothing_and_names_what_to_do(tmp_path: Path, server: str) -> None:
    folder, closed = tmp_path / "new" / "images", unreachable()
    with pytest.raises(DataError) as caught:
        downloading(folder, (closed, f"{server}bad/")).prepare_data()
    message = str(caught.value)
    for part in (str(folder), *FILES, closed, "refused", "bad/", "MD5", "place the files there", "data.root"):
        assert part in message
    assert not (tmp_path / "new").exists()


def test_processes_that_start_at_once_download_each_file_once(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, fetch = [], idx._fetch
    monkeypatch.setattr(idx, "_fetch", lambda url, *rest: (fetched.append(url), fetch(url, *rest)))
    threads = [
        threading.Thread(target=downloading(tmp_path / "images", (f"{server}good/",)).prepare_data) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path / "images") == {f"{name}.gz" for name in FILES}
    assert len(fetched) == 4


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot hold the data .*data\.root"):
        Mnist(root=str(tmp_path / "file")).prepare_data()


@pytest.mark.parametrize(("data_class", "folder"), [(Mnist, "mnist"), (FashionMnist, "fashion_mnist")])
@pytest.mark.skipif(
    "NEURONA_DATA_ROOT" not in os.environ, reason="needs NEURONA_DATA_ROOT, the folder of the real files"
)
def test_real_files(data_class: type[IdxImages], folder: str) -> None:
    data = data_class(root=str(Path(os.environ["NEURONA_DATA_ROOT"]) / folder))
    assert data.spec.num_features == 784
    assert (len(data.train_rows), len(data.val_rows), len(data.test_rows)) == (55_000, 5_000, 10_000)
    assert len(data.spec.class_names) == data.spec.num_classes == 10
    for name, md5 in data.md5.items():
        assert checksum((data.root / f"{name}.gz").read_bytes()) == md5
