"""Proves exact resume on this machine: ``python tests/verify_resume.py [--kills 20] [--jobs 1] [overrides …]``.

Each configuration runs once uninterrupted. Then it runs anew, killed in random ways at random moments and continued
with ``run=<folder>`` until it ends, from other yamls than it began with and without the environment variable that
its seed is from; weights, figures and TensorBoard's curves must equal the uninterrupted run's to the bit. Without
overrides it goes over ``CONFIGURATIONS``. Exit status: 0 if every run ended identical, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, SIGUSR1, SIGUSR2, Signals
from typing import Any

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "train.py"
EVERY_STEPS = "trainer.callbacks.checkpoints.every_n_steps"

CONFIGURATIONS = {
    "constant": "trainer.max_epochs=150",
    "cosine": "optimizer=adamw optimizer/schedule=cosine model.dropout=0.2 optimizer.clip_norm=1"
    " trainer.max_epochs=130",
    "one_cycle": "optimizer=sgd optimizer.momentum=0.9 optimizer/schedule=one_cycle model.normalization=batch"
    " model.dropout=0.1 trainer.max_epochs=110",
    "plateau": "optimizer=rmsprop optimizer.momentum=0.5 optimizer/schedule=plateau optimizer.schedule.patience=3"
    " trainer.val_check_interval=0.25 trainer.max_epochs=80",
    "accumulate": "optimizer.accumulate=3 optimizer/schedule=cosine model.dropout=0.2 trainer.log_every_n_steps=20"
    f" {EVERY_STEPS}=7 trainer.max_epochs=80",
    "single_steps": "trainer.enable_progress_bar=true optimizer=adamw optimizer/schedule=one_cycle model.dropout=0.2"
    f" {EVERY_STEPS}=30 trainer.max_epochs=60",
    "compiled": "compile=true optimizer=adamw optimizer/schedule=one_cycle model.dropout=0.2"
    f" {EVERY_STEPS}=50 trainer.max_epochs=150",
    "early_stopping": "trainer.callbacks.early_stopping.patience=40 optimizer=sgd optimizer.momentum=0.9"
    " optimizer/schedule=plateau model.dropout=0.2 trainer.max_epochs=300",
    "bf16": "trainer.precision=bf16-mixed model.normalization=batch optimizer/schedule=cosine trainer.max_epochs=80",
    "evaluations": "data.eval_batch_size=4 data.test_fraction=0.5 trainer.val_check_interval=50"
    f" trainer.check_val_every_n_epoch=null {EVERY_STEPS}=40 trainer.max_epochs=60",
    "max_steps": "data.val_fraction=0 optimizer/schedule=one_cycle trainer.max_epochs=-1 trainer.max_steps=4000",
    "ddp_cpu": "trainer=ddp_cpu trainer.devices=2 optimizer/schedule=cosine model.dropout=0.2"
    f" {EVERY_STEPS}=30 trainer.max_epochs=60",
    "table": "data=table data.path={table} data.target=label data.max_one_hot=16 embedding.numbers=periodic"
    " trainer.max_epochs=40 trainer.callbacks.importance.seconds=null"
    f" trainer.callbacks.importance.repeats=200 trainer.callbacks.early_stopping.patience=30 {EVERY_STEPS}=30",
    "class_weights": "classifier.class_weights=balanced classifier.label_smoothing=0.1 optimizer=adamw"
    " optimizer/schedule=cosine trainer.max_epochs=120",
    "mid_epoch": "trainer.val_check_interval=10 optimizer/schedule=plateau optimizer.schedule.patience=2"
    f" optimizer.accumulate=2 model.dropout=0.2 {EVERY_STEPS}=9 trainer.max_epochs=40",
    "own_optimizer": "optimizer=mine optimizer/schedule=cosine model.dropout=0.2 trainer.max_epochs=100",
    "lightnings_way": "+trainer.callbacks.rates._target_=lightning.pytorch.callbacks.LearningRateMonitor"
    " +trainer.callbacks.rates.logging_interval=step optimizer/schedule=one_cycle optimizer.accumulate=2"
    f" optimizer.clip_norm=1 model.dropout=0.2 {EVERY_STEPS}=30 trainer.max_epochs=40",
}
"""Overrides of digits, or a table, and the default network, a few seconds each. Together: every schedule and optimiser,
one of a yaml of one's own too, dropout, batch normalization, class weights, clipping, accumulation, validations within
epochs, steps in chunks, singly, compiled and as Lightning takes them, all kinds of checkpoints, ranks, embeddings and
the importance of columns."""

SEED = "VERIFY_SEED"
"""The environment variable that the seed is from, which is there as a run begins and not as it goes on."""

OWN = """_target_: torch.optim.NAdam
defaults: [{schedule: constant}, _self_]
lr: 1.0e-3
momentum_decay: 0.01
"""
EDITS = {"data": ("batch_size: ", "17"), "optimizer": ("lr: ", "0.5"), "classifier": ("label_smoothing: ", "0.3")}
"""What the yamls of a group say in the project from which runs go on."""

KINDS: dict[str, tuple[list[Signals], int]] = {
    "SIGKILL": ([SIGKILL], -SIGKILL),
    "SIGTERM": ([SIGTERM], 143),
    "SIGINT": ([SIGINT], 130),
    "SIGINT twice": ([SIGINT, SIGINT], 130),
    "SIGUSR1": ([SIGUSR1], 143),
    "SIGUSR2": ([SIGUSR2], 143),
    "power-off": ([SIGKILL], -SIGKILL),
}
"""Ways to end a process: signals, and the exit status that is to follow."""

MOMENTS = {"start": 1, "fit": 5, "write": 3, "end": 1}
"""When, and how often: as the process starts, anywhere in the fit, while a checkpoint is written, around the test."""

START_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
"""Longest wait for the first step, and for the end after a signal; beyond it a process counts as hanging."""

TIMED = ("seconds", "samples_per_second")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each configuration, and the sum. Returns the exit status."""
    parser = argparse.ArgumentParser("python tests/verify_resume.py", description="Proves exact resume.")
    parser.add_argument("--kills", type=int, default=20, help="of each configuration; 0 compares uninterrupted runs")
    parser.add_argument("--jobs", type=int, default=1, help="configurations at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the ways and moments")
    parser.add_argument("--folder", type=Path, help="where runs are kept; its uninterrupted ones are used again")
    parser.add_argument("--only", choices=CONFIGURATIONS, nargs="+", default=CONFIGURATIONS, help="some of them")
    parser.add_argument("overrides", nargs="*", help="a configuration of yours instead, as for train.py")
    given = parser.parse_args(arguments)
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="verify_resume-"))).resolve()
    table = write_table(folder)
    write_projects(folder)
    chosen = {
        name: [f"seed=${{oc.env:{SEED}}}", *CONFIGURATIONS[name].format(table=table).split()] for name in given.only
    }
    if given.overrides:
        chosen = {"yours": given.overrides}
    proofs = [
        Proof(folder / name, overrides, given.kills, random.Random(f"{given.seed} {name}"))
        for name, overrides in chosen.items()
    ]
    with ThreadPoolExecutor(given.jobs) as pool:
        try:
            for proof in pool.map(Proof.make, proofs):
                print(proof, flush=True)
        except KeyboardInterrupt:
            for proof in proofs:
                proof.stop()
            os._exit(130)
    kills, survived, lost = (sum(getattr(proof, name) for proof in proofs) for name in ("made", "survived", "lost"))
    slowest = max(proof.slowest for proof in proofs)
    print(f"{kills} kills: {survived} identical hashes, {lost} lost runs; at most {slowest:.1f} s from signal to exit")
    failed = any(proof.problems for proof in proofs)
    if failed or given.folder:
        print(f"the runs are in {folder}")
    else:
        shutil.rmtree(folder)
    return int(failed)


def write_table(folder: Path) -> Path:
    """A table of numbers, some of them missing, and categories, some to be embedded; the label depends on both."""
    rng = random.Random(0)
    rows = [(rng.gauss(0, 1), rng.randrange(3), rng.randrange(40)) for _ in range(2000)]
    lines = [
        f"{x if rng.random() < 0.9 else ''},{'abc'[few]},n{many},{x + few > 1 - many % 2}" for x, few, many in rows
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.csv").write_text("\n".join(["number,few,many,label", *lines]))
    return folder / "table.csv"


def write_projects(folder: Path) -> None:
    """Two copies of train.py and its yamls: that in which runs begin, and that, edited, from which they go on."""
    for name in ("begun", "edited"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / "configs", folder / name / "configs")
        for program in ROOT.glob("*.py"):  # one's own code lies there too
            shutil.copy(program, folder / name)
    (folder / "begun" / "configs" / "optimizer" / "mine.yaml").write_text(OWN)
    for group, (key, value) in EDITS.items():
        for yaml in (folder / "edited" / "configs" / group).glob("*.yaml"):
            yaml.write_text(re.sub(rf"\b{key}\S+", key + value, yaml.read_text()))


class Proof:
    """Runs of one configuration, killed and continued until there were so many kills; at least one run."""

    def __init__(self, folder: Path, overrides: Sequence[str], wanted: int, rng: random.Random) -> None:
        self.folder, self.overrides, self.wanted, self.rng = folder, overrides, wanted, rng
        self.kills: Counter[str] = Counter()
        self.survived, self.runs, self.lost, self.slowest = 0, 0, 0, 0.0
        self.problems: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def made(self) -> int:
        return self.kills.total()

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        head = f"{self.folder.name:<15}{self.made:>4} kills of {self.runs} runs: {self.survived} identical hashes"
        return "\n    ".join([f"{head} ({kinds})", *self.problems])

    def make(self) -> Proof:
        self.folder.mkdir(parents=True, exist_ok=True)
        reference = self.folder / "uninterrupted"
        if not _is_finished(reference):
            self._start(reference).wait()
        if not _is_finished(reference):
            self.problems.append(f"the uninterrupted run did not finish: see {reference}.log")
            return self
        expected, seconds = outcome(reference), _figures(reference)["seconds"]
        while self.runs == 0 or self.made < self.wanted:
            self.runs += 1
            run, before = self.folder / str(self.runs), self.made
            if problem := self._carry_through(run, seconds):
                self.lost += 1
                self.problems.append(f"{run} is lost: {problem}, see {run}.log")
                continue
            if different := differences(expected, outcome(run)):
                self.problems.append(f"{run} differs from the uninterrupted run in {', '.join(different)}")
                continue
            if self.made == before:  # the uninterrupted one may have had to fill the compiler's cache
                seconds = min(seconds, _figures(run)["seconds"])
            self.survived += self.made - before
            shutil.rmtree(run)
        return self

    def _carry_through(self, run: Path, seconds: float) -> str | None:
        """Starts a run, kills and continues it until it is finished. Returns why it is lost, if it is.

        seconds: how long it takes uninterrupted.
        """
        while not _is_finished(run):
            process = self._start(run)
            kind = self.rng.choice(list(KINDS))
            moment = self.rng.choices(list(MOMENTS), list(MOMENTS.values()))[0]
            signals, expected = KINDS[kind]
            try:
                target = self._await(moment, process, run, seconds) if self.made < self.wanted else None
                if target is None:
                    if process.wait() == 0 and _is_finished(run):
                        return None
                    return f"it ended with status {process.returncode}"
                signalled = time.monotonic()
                self._send(signals, target, process)
                status = process.wait(PATIENCE_SECONDS)
                self.slowest = max(self.slowest, time.monotonic() - signalled)
            except subprocess.TimeoutExpired:
                return f"{kind} ({moment}) did not end it"
            finally:
                self.stop()
            if _is_finished(run):  # the kill came too late and does not count
                return None
            self.kills[kind] += 1
            if target != process.pid and expected == -SIGKILL:
                expected = 1  # a rank that is killed is a failure of the whole
            # Before and after the run, a signal does what it does to any program.
            if status != expected and not (status == -signals[0] and (moment == "start" or len(signals) > 1)):
                self.problems.append(f"{kind} ({moment}) ended with status {status}, see {run}.log")
            if kind == "power-off":
                self._cut_off(run / "checkpoints")
        return None

    def _start(self, run: Path) -> subprocess.Popen[bytes]:
        """``train.py``: that run continued, once those who were at it are gone, or a new one."""
        continued = (run / "config.yaml").exists()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while continued and _is_held(run) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not continued:
            shutil.rmtree(run, ignore_errors=True)
        arguments = [f"run={run}"] if continued else [f"folder={run}", *self.overrides]
        train = self.folder.parent / ("edited" if continued else "begun") / "train.py"
        environment = os.environ | ({} if continued else {SEED: "3"})
        with open(f"{run}.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(train), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for this program
            )
        return self._process

    def stop(self) -> None:
        """Ends the process, and with it those that it has started."""
        if self._process:
            self._process.kill()

    def _await(self, moment: str, process: subprocess.Popen[bytes], run: Path, seconds: float) -> int | None:
        """Waits for the moment to kill the process. Returns whom: it, or its rank 0; None if it has ended by then."""
        if moment == "start":
            return process.pid if _lives(process, self.rng.uniform(0, START_SECONDS)) else None
        # TensorBoard's file is made just before the first step; its name holds the pid.
        earlier = set(run.glob("events.*"))
        if not _lives(process, PATIENCE_SECONDS, lambda: bool(set(run.glob("events.*")) - earlier), every=0.02):
            return None
        writers = [int(file.name.split(".")[-2]) for file in set(run.glob("events.*")) - earlier]
        lives = _lives(process, seconds * self.rng.uniform(0.9 if moment == "end" else 0.0, 1.0))
        if lives and moment == "write":
            lives = _lives(process, 0.5, lambda: any(run.glob("checkpoints/*.tmp")))
        return self.rng.choice([process.pid, *writers]) if lives else None

    def _send(self, signals: Sequence[Signals], target: int, process: subprocess.Popen[bytes]) -> None:
        for number in signals:
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    os.kill(target, number)
            time.sleep(self.rng.uniform(0, 0.1) if len(signals) > 1 else 0)

    def _cut_off(self, checkpoints: Path) -> None:
        """What a power cut leaves: a part of the file being written, and at times of the one just completed."""
        last, previous, temporary = (checkpoints / name for name in ("last.ckpt", "previous.ckpt", ".last.ckpt.tmp"))
        if last.exists():
            contents = last.read_bytes()
            temporary.unlink(missing_ok=True)
            temporary.write_bytes(contents[: self.rng.randrange(len(contents))])
            if previous.exists() and not previous.samefile(last) and self.rng.random() < 0.5:
                os.truncate(last, self.rng.randrange(len(contents)))


def _lives(
    process: subprocess.Popen[bytes], seconds: float, seen: Callable[[], bool] = lambda: False, every: float = 0.0005
) -> bool:
    """Waits until it is seen, looking so often, or the time has passed; False if the process ends first."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline or seen():
            return True
        time.sleep(every)
    return False


def _is_held(run: Path) -> bool:
    with (run / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def outcome(run: Path) -> dict[str, Any]:
    """What must be the same, by name: hashes of the weights, the figures, the points of each TensorBoard curve, the
    importance of a table's columns.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it says that it drops what interrupted processes wrote
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    figures = {name: value for name, value in _figures(run).items() if name not in TIMED}
    hashes = {name: _hash(run / "checkpoints" / name) for name in ("last.ckpt", "best.ckpt")}
    points = {
        tag: [(point.step, 0 if tag.startswith("vitals/speed/") else point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    files = {file.name: file.read_text(encoding="utf-8") for file in run.glob("importance.csv")}
    return {**hashes, **figures, **files, **{f"the curve {tag}": curve for tag, curve in points.items()}}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of what is not the same in two outcomes."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _hash(checkpoint: Path) -> str:
    """SHA-256 of the names, types, shapes and bytes of a checkpoint's ``state_dict``."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"].items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _figures(run: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((run / "metrics.json").read_text(encoding="utf-8")))
    return {}


def _is_finished(run: Path) -> bool:
    return _figures(run).get("status") == "finished"


if __name__ == "__main__":
    signal.signal(SIGINT, signal.default_int_handler)  # a background job ignores it, and so would the runs
    sys.exit(main())
