"""What the integration tests share: the shipped train.py, in this process or in one of its own, and finished runs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import neurona

TRAIN = Path(__file__).parents[2] / "train.py"

Tags = dict[str, list[int]]


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Run:
    """A run folder, read."""

    folder: Path

    @property
    def metrics(self) -> dict[str, Any]:
        return self.read("metrics.json")

    def read(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def checkpoint(self, name: str = "last") -> dict[str, Any]:
        return torch.load(self.folder / "checkpoints" / f"{name}.ckpt", weights_only=True)

    def weights(self, name: str = "last") -> str:
        """SHA-256 of the checkpoint's tensors and their names."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self.checkpoint(name)["state_dict"].items()):
            digest.update(key.encode() + str(tensor.dtype).encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def contents(self) -> dict[str, bytes]:
        """Every file of the folder but its log, for comparing before and after."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and path.name != "train.log")
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder; a run's console output goes to what is sys.stdout when it starts."""
    monkeypatch.chdir(tmp_path)
    yield
    logging.getLogger("neurona").handlers.clear()


@pytest.fixture(scope="session")
def read_run() -> Callable[[Path | str], Run]:
    return lambda folder: Run(Path(folder))


@pytest.fixture(scope="session")
def read_job() -> Callable[[Path | str, int], Run]:
    """The folder of a sweep's job of a number, whatever is said after it."""

    def read(sweep: Path | str, number: int) -> Run:
        (folder,) = (path for path in Path(sweep).iterdir() if path.is_dir() and path.name.split("_")[0] == str(number))
        return Run(folder)

    return read


@pytest.fixture(scope="session")
def newest() -> Callable[[], Run]:
    """The run folder made last below the working folder."""

    def find() -> Run:
        files = Path.cwd().rglob("provenance.json")
        return Run(max(files, key=lambda file: file.stat().st_mtime_ns).parent)

    return find


@pytest.fixture
def fit(newest: Callable[[], Run]) -> Callable[..., Run]:
    """``neurona.run`` for a new run; silent, two epochs of iris without pictures unless told otherwise."""

    def call(*overrides: str) -> Run:
        neurona.run(["data=iris", "trainer.max_epochs=2", "quiet=true", "inspect=none", *overrides])
        return newest()

    return call


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """``python train.py …`` in this process, for all but what only a process of its own can show: the working folder's
    train.py, if it has one.
    """

    def call(*arguments: str) -> Done:
        program = Path("train.py").absolute() if Path("train.py").exists() else TRAIN
        logging.getLogger("neurona").handlers.clear()
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", [str(program), *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(program), run_name="__main__")
        assert isinstance(end.value.code, int)
        return Done(end.value.code, *capsys.readouterr())

    return call


def run_process(folder: Path, *arguments: str, program: str | None = None) -> Done:
    command = [sys.executable, *(["-c", program] if program else []), str(TRAIN), *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    done = subprocess.run(command, cwd=folder, env=inherited, capture_output=True, text=True, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def train_process(tmp_path: Path) -> Callable[..., Done]:
    """``python train.py …`` in a process of its own. program: Python to run instead, train.py its first argument."""
    return lambda *arguments, program=None: run_process(tmp_path, *arguments, program=program)


@pytest.fixture(scope="session")
def default_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Run]:
    """``python train.py``, once for all tests; not to be changed."""
    folder = tmp_path_factory.mktemp("default")
    done = run_process(folder)
    assert done.status == 0, done.err
    (provenance,) = folder.glob("logs/digits/*/provenance.json")
    return done, Run(provenance.parent)


@pytest.fixture
def default_run(default_process: tuple[Done, Run], tmp_path: Path) -> Run:
    """A copy of the default run, as ``logs/digits/…`` of the working folder."""
    original = default_process[1].folder
    copy = Path("logs", "digits", original.name)
    shutil.copytree(original, copy)
    return Run(copy)


@pytest.fixture(scope="session")
def _iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iris") / "run"
    neurona.run(["data=iris", "trainer.max_epochs=2", "quiet=true", f"folder={folder}"])
    return folder


@pytest.fixture
def iris_run(_iris: Path) -> Run:
    """A copy of a run of two epochs of iris, fitted once for all tests, as ``logs/iris/run`` of the working folder."""
    return Run(Path(shutil.copytree(_iris, "logs/iris/run")))


@pytest.fixture
def scalars() -> Callable[[Path], Tags]:
    """TensorBoard's own reading of a run folder: the steps of each scalar, in their order in the files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder: Path) -> Tags:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    return read
