"""Microseconds per optimiser step: neurona, a plain torch loop and the peers, side by side.

Every contender lives in a process of its own, unless ``--one-process``. They are asked in turn, A B C A B C …, for one
repeat each: new weights, an untimed epoch, then the timed ones. Ratios are taken within a round, to the faster of the
plain loops.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import harness
import worker
from contenders import CONTENDERS
from networks import NETWORKS, Network

LOOPS = ("loop", "loop-1-thread")
"""The faster of them is the baseline: two threads slow a small network, one thread a large one."""

VALIDATED = "loop-validated"
"""A loop that does what neurona's epoch does besides checkpoints and reports: a validation."""

TERMINAL = struct.pack("HHHH", 40, 120, 0, 0)  # rows, columns


class Failed(RuntimeError):
    """A contender that raised."""


class Worker:
    """A contender's process. Its output goes to a terminal that nobody looks at: progress bars are drawn."""

    def __init__(self, request: dict[str, Any], environment: dict[str, str]) -> None:
        reader, writer = os.pipe()
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, TERMINAL)
        command = [sys.executable, str(harness.HERE / "worker.py"), json.dumps({**request, "descriptor": writer})]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, pass_fds=[writer], env=environment, text=True
        )
        os.close(writer)
        os.close(theirs)
        threading.Thread(target=_drain, args=(ours,), daemon=True).start()
        self.answers = os.fdopen(reader, encoding="utf-8")

    def answer(self) -> dict[str, Any]:
        line = self.answers.readline()
        fields: dict[str, Any] = json.loads(line) if line else {"error": f"exited with {self.process.wait()}"}
        if "error" in fields:
            raise Failed(fields["error"])
        return fields

    def repeat(self, epochs: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(epochs, file=self.process.stdin, flush=True)
        return self.answer()

    def end(self) -> None:
        """Lets the process end; ``close`` waits for it."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def close(self) -> None:
        self.end()
        self.process.wait()
        self.answers.close()


class Inline:
    """A contender in this very process, in a Worker's place."""

    def __init__(self, request: dict[str, Any], environment: dict[str, str]) -> None:
        self.request = request

    def answer(self) -> dict[str, Any]:
        self._repeat = self._do(worker.make, self.request)
        return {}

    def repeat(self, epochs: int) -> dict[str, Any]:
        import torch

        torch.set_float32_matmul_precision("highest")  # whatever the contender before has set
        return self._do(worker.timed, self._repeat, epochs)

    def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception:
            raise Failed(traceback.format_exc()) from None

    def end(self) -> None:
        """There is no process to end."""

    close = end


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:  # the other end is closed
        os.close(descriptor)


def obstacle(name: str, device: str) -> str | None:
    """Why a contender cannot be timed here."""
    if device not in CONTENDERS[name].devices:
        return f"it does not run on {device}"
    missing = [module for module in CONTENDERS[name].requires if find_spec(module) is None]
    return f"{', '.join(missing)} not installed: pip install -e '.[bench]'" if missing else None


def compare(network: Network, names: list[str], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The answers of every contender that could be timed, one a round."""
    environment = dict(os.environ)
    if options.threads:
        environment |= dict.fromkeys(harness.THREAD_VARIABLES, str(options.threads))
    scratch = Path(tempfile.mkdtemp(prefix="throughput-"))
    kind = Inline if options.one_process else Worker
    workers: dict[str, Worker | Inline] = {}
    answers: dict[str, list[dict[str, Any]]] = {}
    try:
        write = [sys.executable, str(harness.HERE / "synthetic.py"), json.dumps(asdict(network)), str(scratch)]
        subprocess.run(write, check=True)
        for name in names:
            folder = scratch / name
            folder.mkdir()
            for array in ("features.npy", "targets.npy"):
                os.link(scratch / array, folder / array)
            request = {
                "contender": name,
                "network": asdict(network),
                "folder": str(folder),
                "threads": options.threads,
                "device": options.device,
            }
            workers[name] = kind(request, environment)
        for name in names:
            try:
                workers[name].answer()
                answers[name] = []
            except Failed as error:
                print(f"{name} cannot be made: {error}", file=sys.stderr)
                workers.pop(name).close()
        for index in range(options.repeats):
            for name in list(workers):
                try:
                    answers[name].append(workers[name].repeat(options.epochs or network.epochs))
                except Failed as error:
                    print(f"{name} failed: {error}", file=sys.stderr)
                    workers.pop(name).close()
                    del answers[name]
            figures = {name: f"{median(per_step(repeats, 'seconds')):,.0f}" for name, repeats in answers.items()}
            shown = ", ".join(f"{name} {figure}" for name, figure in figures.items())
            print(f"round {index + 1} of {options.repeats}, µs per step so far: {shown}", file=sys.stderr)
    finally:
        for made in workers.values():
            made.end()
        for made in workers.values():
            made.close()
        shutil.rmtree(scratch)
    expected = network.steps_per_epoch * (options.epochs or network.epochs)
    for name, repeats in answers.items():
        if wrong := [repeat["steps"] for repeat in repeats if repeat["steps"] != expected]:
            raise RuntimeError(f"{name} took {wrong} optimiser steps where {expected} are due: not the same work")
    return answers


def per_step(repeats: list[dict[str, Any]], name: str) -> list[float]:
    """Microseconds."""
    return [1e6 * repeat[name] / repeat["steps"] for repeat in repeats]


def baseline(answers: dict[str, list[dict[str, Any]]]) -> str | None:
    loops = [name for name in LOOPS if name in answers]
    return min(loops, key=lambda name: median(per_step(answers[name], "seconds")), default=None)


def rows(
    answers: dict[str, list[dict[str, Any]]], network: Network, peaks: dict[str, float] | None = None
) -> list[list[str]]:
    """One line of the table for each contender. peaks: TFLOP/s of large matrix products by precision; what share of it
    the network's products reach stands behind the rate.
    """
    lines = []
    base = baseline(answers)
    for name, repeats in answers.items():
        whole, steps, cpu = (per_step(repeats, field) for field in ("seconds", "step_seconds", "cpu_seconds"))
        line = [name, f"{median(whole):,.0f}", f"{median(steps):,.0f}", f"{median(cpu):,.0f}"]
        for values, field, of in (
            (whole, "seconds", base),
            (whole, "seconds", VALIDATED),
            (steps, "step_seconds", base),
        ):
            line.append(str(harness.ratios(values, per_step(answers[of], field))) if of in answers else "")
        rate = network.flops_per_step / median(steps) / 1e3
        products = network.products_per_step / median(steps) / 1e6
        share = f" ({products / peaks[CONTENDERS[name].precision]:.1%})".replace("%", " %") if peaks else ""
        lines.append([*line, f"{rate:,.0f}{share}", str(repeats[-1]["threads"]), f"{repeats[-1]['loss']:.3f}"])
    return lines


HEADER = (
    "contender",
    "µs per step",
    "steps alone",
    "CPU µs",
    "ratio",
    "to validated",
    "steps alone",
    "GFLOP/s",
    "threads",
    "loss",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="contenders: " + "; ".join(f"{name}: {contender.words}" for name, contender in CONTENDERS.items()),
    )
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--epochs", type=int, help="timed epochs of a repeat; each network has its own number")
    parser.add_argument("--threads", type=int, help="for every library; without it, each library's own choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="contenders without it are left out")
    parser.add_argument(
        "--one-process", action="store_true", help="with --device cuda, where it takes long to start one for each"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of one epoch: does it run?")
    parser.add_argument("--json", type=Path, help="file for every repeat's figures")
    options = parser.parse_args()
    if options.one_process and options.device == "cpu":
        parser.error("--one-process needs --device cuda: on a CPU, what one contender sets others would have too")
    if options.quick:
        options.repeats, options.epochs = 2, 1

    found = harness.environment()
    names = []
    for name in options.contenders:
        if reason := obstacle(name, options.device):
            print(f"{name} is left out: {reason}")
        else:
            names.append(name)
    threads = f"{options.threads} threads for every library" if options.threads else "each library's own threads"
    harness.introduce(found, f"median of {options.repeats} repeats, ratios (least–most); {threads}; {options.device}")
    peaks = None
    if options.device == "cuda":
        peaks = harness.ask("peak.py", {})
        found["gpu"] = peaks.pop("gpu")
        found["peaks"] = peaks
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in peaks.items())
        print(f"{found['gpu']}; products of large matrices, TFLOP/s: {rates}; behind GFLOP/s the share of that\n")
    results: dict[str, Any] = {"environment": found, "networks": {}}
    for name in options.network:
        network = NETWORKS[name]
        shape = "-".join(map(str, network.widths))
        epochs = options.epochs or network.epochs
        print(f"{name}: {shape}, batch {network.batch_size}, {epochs} × {network.steps_per_epoch} steps\n")
        answers = compare(network, names, options)
        print(harness.table(HEADER, rows(answers, network, peaks)))
        print(f"\nratio: to {baseline(answers) or 'no contender, as none is a plain loop'}\n", flush=True)
        results["networks"][name] = answers
        harness.save(options.json, results)


if __name__ == "__main__":
    main()
