"""Folders and files of strangers, damaged or made to harm: each is answered in a line, and nothing else is touched."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

import neurona
from neurona.callbacks.progress import Progress
from neurona.cli.replay import Yamls
from neurona.config.hints import CONFIG_DIR
from neurona.data.iris import Iris
from neurona.errors import DataError, RunError, UserError
from neurona.inspection.loggers import Csv
from neurona.report.__main__ import main as report_main

TRAIN = Path(__file__).parents[2] / "train.py"
MINE = "trainer.callbacks.mine"
PASTE = "lightning.pytorch.callbacks.ModelCheckpoint"


@pytest.fixture
def victim() -> Callable[[], dict[str, bytes]]:
    """What is beside the run, another's run and files of the user's: to be the same before and after."""
    other = Path("logs/other/checkpoints")
    other.mkdir(parents=True)
    for file in (other / "best.ckpt", other.parent / "events.out.tfevents.1.x.end", other.parent / ".lock"):
        file.write_text("precious")
    Path("notes").mkdir()
    Path("notes/mine.txt").write_text("precious")

    def contents() -> dict[str, bytes]:
        here = [path for path in Path.cwd().rglob("*") if not path.is_relative_to(Path("logs/iris").absolute())]
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in here if path.name != "iris"}

    return contents


def store(run: Path, *overrides: str) -> None:
    """Has a run store the configuration that further overrides give."""
    lines = yaml.safe_load((run / "overrides.yaml").read_text())["overrides"]
    kept = [line for line in lines if line.split("=")[0] not in ("folder", "trainer.max_epochs")]
    config, _ = Yamls(CONFIG_DIR).compose([*kept, "trainer.max_epochs=3", *overrides])
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "folder": str(run)}))


def bring_state(run: Path, place: str, names: list[str]) -> None:
    """Gives the run's checkpoints the state of a ModelCheckpoint that knows of checkpoints of these names."""
    callback, worst = ModelCheckpoint(monitor="val/loss"), torch.tensor(9e9)
    state = {"monitor": "val/loss", "dirpath": place, "kth_best_model_path": names[0], "kth_value": worst}
    state |= {"best_model_path": names[0], "best_model_score": worst, "current_score": worst}
    state["last_model_path"] = names[0]
    state["best_k_models"] = dict.fromkeys(names, worst)
    for file in (run / "checkpoints").iterdir():
        contents = torch.load(file)
        torch.save({**contents, "callbacks": {**contents["callbacks"], callback.state_key: state}}, file)


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_state_in_a_checkpoint_removes_nothing_outside(iris_run: Any, victim: Any) -> None:
    run, before = iris_run.folder, victim()
    store(run, f"+{MINE}._target_={PASTE}", f"+{MINE}.monitor=val/loss")
    bring_state(run, "logs/iris/run/checkpoints", [f"local://{Path('notes').absolute()}"])
    with pytest.raises(RunError, match=f"notes: .* not in the run's folder; .*{MINE[:17]}"):
        neurona.run([f"run={run}", "quiet=true", "trainer.max_epochs=4"])
    assert victim() == before
    going_on = neurona.run([f"run={run}", "quiet=true", "trainer.max_epochs=4", f"{MINE}=null"])
    assert (going_on["status"], going_on["epochs"]) == ("finished", 4)


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Checkpoint directory")
def test_a_state_in_a_checkpoint_has_nothing_written_outside(iris_run: Any, victim: Any) -> None:
    """Where a callback writes is told by its settings alone, which are looked at before."""
    run, before = iris_run.folder, victim()
    settings = [f"+{MINE}._target_={PASTE}", f"+{MINE}.monitor=val/loss", f"+{MINE}.filename=own"]
    store(run, *settings, f"+{MINE}.save_last=true", f"+{MINE}.dirpath='${{folder}}/own'")
    bring_state(run, str(Path("notes").absolute()), [str(Path("notes/mine.txt").absolute())])
    figures = neurona.run([f"run={run}", "quiet=true", "trainer.max_epochs=4"])
    assert (figures["status"], victim()) == ("finished", before)
    assert {path.name for path in (run / "own").iterdir()} == {"own.ckpt", "last.ckpt"}


def test_checkpoints_of_a_callback_are_kept_and_removed_where_it_was_told_to(fit: Any) -> None:
    """In the run's folder, one of one's own, or that of a logger."""
    for settings, place in ((f"+{MINE}.dirpath='${{folder}}/own'", "logs/f/own"), (f"+{MINE}.dirpath=own", "own")):
        shutil.rmtree("logs", ignore_errors=True)
        callback = [f"+{MINE}._target_={PASTE}", f"+{MINE}.monitor=val/loss", f"+{MINE}.save_top_k=1", settings]
        fit("folder=logs/f", "trainer.max_epochs=4", *callback)
        assert len(list(Path(place).glob("*.ckpt"))) == 1


@pytest.mark.parametrize(
    "stored",
    [
        [f"+{MINE}._target_={PASTE}", f"+{MINE}.dirpath=logs/other/checkpoints", f"+{MINE}.filename=best"],
        [f"+{MINE}={{_target_: {PASTE}, dirpath: notes}}"],
        ["logger.tensorboard.save_dir=logs/other"],
        ["logger=csv", "logger.csv.save_dir=notes"],
        ["data=mnist", "data.root=logs/other"],
        ["data=mnist", "data.root=new/folder"],
    ],
    ids=str,
)
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_stored_settings_write_nothing_outside(
    iris_run: Any, victim: Any, monkeypatch: pytest.MonkeyPatch, stored: list[str], stage: str
) -> None:
    monkeypatch.setattr("neurona.data.idx.download", lambda *_: pytest.fail("it downloads"))
    before = victim()
    store(iris_run.folder, *stored)
    has_no_loggers = stage == "test" and stored[0].startswith("logger")
    with contextlib.nullcontext() if has_no_loggers else pytest.raises(UserError):
        neurona.run([f"run={iris_run.folder}", f"stage={stage}", "quiet=true"])
    assert victim() == before


# Runs of which a file is damaged, or a trap.

DEEP = '{"a":' * 200_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


def event(run: Path) -> Path:
    return next(run.glob("events*"))


TRAPS: dict[str, Callable[[Path], object]] = {
    "deep metrics": lambda run: (run / "metrics.json").write_text(DEEP),
    "huge figure": lambda run: change(run, **{"test/accuracy": 10**400, "val/loss": 1.0}),
    "nan": lambda run: change(run, **{"test/accuracy": float("nan")}),
    "infinity": lambda run: change(run, **{"test/accuracy": 1e308, "seconds": float("inf")}),
    "pipe": lambda run: (os.unlink(run / "metrics.json"), os.mkfifo(run / "metrics.json")),
    "deep provenance": lambda run: (run / "provenance.json").write_text(DEEP),
    "seed": lambda run: (run / "config.yaml").write_text("seed: [1, 2]\n" + without_seed(run)),
    "alias": lambda run: (run / "config.yaml").write_text("x: &x [*x]\n" + without_seed(run)),
    "bomb": lambda run: (run / "config.yaml").write_text(BOMB + without_seed(run)),
    "bomb of overrides": lambda run: (run / "overrides.yaml").write_text(BOMB + "overrides: *j\nabsolute: {}\n"),
    "no scalars": lambda run: (run / "config.yaml").write_text("a: !!timestamp x\nb: !!bool x\n" + without_seed(run)),
    "deep yaml": lambda run: (run / "config.yaml").write_text("a: " + "[" * 5_000),
    "event": lambda run: event(run).write_bytes(struct.pack("<QI", 9, 0) + b"\xff" * 13),
    "control": lambda run: change(run, **{"\x1b[2J\ud800": 1.0, "error": "\x1b]0;x\x07", "status": "failed"}),
}


def change(run: Path, **figures: Any) -> None:
    file = run / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **figures}))


def without_seed(run: Path) -> str:
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("seed:"))


def report(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["neurona.report", *arguments])
    return report_main()


@pytest.mark.parametrize("trap", TRAPS)
def test_a_damaged_run_is_left_out_of_a_report(
    iris_run: Any, trap: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        good = Path(shutil.copytree(iris_run.folder, f"logs/iris/good{number}"))
        settings = (good / "config.yaml").read_text()
        (good / "config.yaml").write_text(
            settings.replace("\nseed: 0", f"\nseed: {number}").replace("iris/run", good.name)
        )
        change(good, **{"test/accuracy": 0.5})
    TRAPS[trap](iris_run.folder)
    assert report(monkeypatch, "logs/iris", "--metric", "test/accuracy") == 0
    shown = capsys.readouterr()
    assert "50.00" in shown.out
    assert "nan" not in shown.out.replace("finance", "")
    assert shown.err == ""
    assert "\x1b" not in shown.out
    if trap not in ("deep provenance", "bomb of overrides", "control"):  # which cost no figure
        warning = shown.out.partition("warning: ")[2].splitlines()[0]
        assert warning.startswith("Cannot be read: logs/iris/run")
        assert "good" not in warning


@pytest.mark.parametrize(
    "trap", ["pipe", "huge figure", "deep provenance", "alias", "bomb", "bomb of overrides", "event"]
)
def test_of_a_damaged_run_every_other_use_ends_well_or_in_a_line(
    iris_run: Any, victim: Any, trap: str, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurona.data.idx.download", lambda *_: pytest.fail("it downloads"))
    before, run = victim(), iris_run.folder
    TRAPS[trap](run)
    assert neurona.load(run).predict([[5.1, 3.5, 1.4, 0.2]]).shape == (1,)
    for arguments in (
        ["data=iris", "trainer.max_epochs=1", f"init_from={run}", "folder=logs/iris/new"],
        [f"run={run}"],
        [f"run={run}", "stage=test"],
        *([[f"run={run}", "stage=export"]] if trap == "huge figure" else []),
    ):
        done = train(*arguments, "quiet=true")
        assert done.status in (0, 2), (arguments, done.err)
        assert len(done.err.strip().splitlines()) <= (done.status == 2), done.err
    assert victim() == before


@pytest.mark.parametrize("link", ["report", "report/report.md", "report/report.csv", "report/results.png"])
def test_a_report_writes_through_no_link(
    iris_run: Any, victim: Any, link: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = iris_run.folder.parent / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(Path("notes" if link == "report" else "notes/mine.txt").absolute())
    before = victim()
    assert report(monkeypatch, str(iris_run.folder.parent)) == 2
    assert f"--out={place}: is a link" in capsys.readouterr().err.replace(str(Path.cwd()) + "/", "")
    assert victim() == before


# Files of data.


def idx(shape: tuple[int, ...], values: bytes) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + values


def npz(path: Path, count: int) -> None:
    """An array that claims so many numbers and has two."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({count},), }}".ljust(117).encode() + b"\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 16)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 2, 2), "longer than the 8 values"), ((2**32 - 1,) * 3, "truncated, or larger than the memory")],
)
def test_of_a_packed_image_file_no_more_is_unpacked_than_it_states(shape: tuple[int, ...], message: str) -> None:
    Path("mnist").mkdir()
    Path("mnist/train-labels-idx1-ubyte").write_bytes(idx((2,), b"\0\1"))
    Path("mnist/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(shape, b"")) + gzip.compress(bytes(2**27)))
    for name in ("t10k-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
        Path("mnist", name).write_bytes(b"")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"train-images.*{message}"):
            neurona.run(["data=mnist", "data.root=mnist", "quiet=true"])
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert not Path("logs").exists()


@pytest.mark.parametrize("name", ["claims.npz", "header.csv", "header.csv.gz"])
def test_a_table_that_claims_more_than_memory_holds_is_answered_in_a_line(
    train: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("neurona.tables.reading.MOST_HEADER", 2**16)
    if name.endswith("npz"):
        npz(Path(name), 10**11 * 100)
    else:
        line = b"a," * 2**20
        Path(name).write_bytes(gzip.compress(line) if name.endswith("gz") else line)
    done = train("data=table", f"data.path={name}", "data.target=x")
    assert (done.status, len(done.err.splitlines())) == (2, 1), done.err
    assert name in done.err
    assert not Path("logs").exists()


def test_memory_that_runs_out_is_told_of_in_a_line(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(self: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Iris, "read", too_much)
    done = train("data=iris")
    assert done.status == 1
    assert (
        done.err == "stage=fit: needs more memory than there is; take fewer rows, or a smaller network (MemoryError)\n"
    )


def test_labels_may_have_any_letters(fit: Any) -> None:
    names = ["a\nb", "c\r\td|`<b>`", "\x07"]
    rows = [f'{i % 7}.5,"{names[i % 3]}"' for i in range(90)]
    Path("rows.csv").write_text("\n".join(["x,y", *rows]), newline="")
    table = ["data=table", "data.path=rows.csv", "data.target=y", "inspect=full", "logger=[tensorboard,csv]"]
    run = fit(*table, "trainer.max_epochs=1")
    assert run.metrics["status"] == "finished"
    assert neurona.run([f"run={run.folder}", "trainer.max_epochs=2", "quiet=true"])["status"] == "finished"
    recorded = Csv(save_dir=str(run.folder)).path.read_text()
    assert recorded.count('"val/accuracy_of/a\nb"') == 2
    neurona.run([f"run={run.folder}", "stage=export", "quiet=true"])
    card = (run.folder / "model_card.md").read_text()
    assert "\n  \x07, a b, c d\\|\\`\\<b\\>\\`\n" in card


# What the world does meanwhile.


@pytest.mark.parametrize("logger", ["tensorboard", "csv"])
@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_train_end"])
def test_a_folder_that_is_removed_under_a_fit_does_not_come_back(
    train: Any, monkeypatch: pytest.MonkeyPatch, logger: str, hook: str
) -> None:
    original = getattr(Progress, hook)

    def removing(self: Any, trainer: Any, *arguments: Any) -> None:
        if hook == "on_train_end" or trainer.current_epoch == 1:
            shutil.rmtree("logs/gone")
        original(self, trainer, *arguments)

    monkeypatch.setattr(Progress, hook, removing)
    done = train("data=iris", "trainer.max_epochs=3", "folder=logs/gone", f"logger={logger}", "quiet=true")
    assert done.status == 1
    assert done.err == "logs/gone: has been removed or moved while the run was at work in it\n"
    assert not list(Path("logs").iterdir())


def test_without_standard_streams_a_run_goes_well(tmp_path: Path) -> None:
    command = f"{sys.executable} {TRAIN} data=iris trainer.max_epochs=1 folder=run"
    status = subprocess.run(f"exec {command} 0<&- 1>&- 2>&-", shell=True, cwd=tmp_path, timeout=120).returncode
    assert status == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["status"] == "finished"
