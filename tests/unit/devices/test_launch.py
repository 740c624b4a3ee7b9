"""Processes are started as ranks, end together, and die with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from neurona.devices import launch


def start(code: str, number: int = 2) -> int:
    """Runs Python code as so many ranks, ``rank`` being its number."""
    return launch.start(number, [sys.executable, "-c", f"import os, sys, time\nrank = int(os.environ['RANK'])\n{code}"])


def test_every_process_knows_its_rank_and_where_to_meet(tmp_path):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    code = f"open(f'{tmp_path}/{{rank}}', 'w').write(' '.join(os.environ[name] for name in {names}))"
    assert start(code, 3) == 0
    lines = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    assert [line[:5] for line in lines] == [[str(rank), str(rank), "3", "3", "127.0.0.1"] for rank in range(3)]
    assert len({line[5] for line in lines}) == 1


def test_rank_zero_alone_is_heard(capfd):
    assert start("print('rank', rank)") == 0
    assert capfd.readouterr() == ("rank 0\n", "")


def test_a_process_that_fails_ends_the_others_and_what_it_said_is_shown(capfd, monkeypatch):
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    begun = time.monotonic()
    assert start("time.sleep(60) if rank == 0 else sys.exit('no disk')") == 1
    assert time.monotonic() - begun < 5
    assert capfd.readouterr().err == "no disk\nprocess 1 of 2 ended with status 1, which ended the run\n"


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_is_named_and_the_other_heard(capfd, killed):
    assert start(f"os.kill(os.getpid(), 9) if rank == {killed} else (time.sleep(0.2), sys.exit('to continue'))") == 1
    assert capfd.readouterr().err == f"to continue\nprocess {killed} of 2 was killed by signal 9, which ended the run\n"


def test_a_mistake_that_rank_zero_has_explained_is_told_once(capfd):
    assert start("print(f'optimizer.lr: {rank}', file=sys.stderr); sys.exit(2)") == 2
    assert capfd.readouterr().err == "optimizer.lr: 0\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)])
def test_signals_reach_every_process(tmp_path, number, status):
    code = f"""
import os, pathlib, signal, sys, time
rank = os.environ['RANK']
def end(*_):
    pathlib.Path('{tmp_path}', f'{{rank}}-ended').touch()
    sys.exit({status})
signal.signal({int(number)}, end)
pathlib.Path('{tmp_path}', f'{{rank}}-ready').touch()
while True:
    time.sleep(0.05)
"""
    line = f"import sys; from neurona.devices.launch import start; sys.exit(start(2, [sys.executable, '-c', {code!r}]))"
    parent = subprocess.Popen([sys.executable, "-c", line])
    wait_for(lambda: len(list(tmp_path.glob("*-ready"))) == 2)
    parent.send_signal(number)
    assert parent.wait(10) == status
    assert len(list(tmp_path.glob("*-ended"))) == 2


def test_a_signal_that_comes_before_a_process_can_handle_it_ends_the_run_as_it_would_later(tmp_path):
    code = f"import os, pathlib, time; pathlib.Path('{tmp_path}', os.environ['RANK']).touch(); time.sleep(60)"
    line = f"import sys; from neurona.devices.launch import start; sys.exit(start(2, [sys.executable, '-c', {code!r}]))"
    parent = subprocess.Popen([sys.executable, "-c", line])
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.send_signal(signal.SIGUSR1)
    assert parent.wait(10) == 143


def test_processes_die_with_the_one_that_started_them(tmp_path):
    code = f"""
import os, pathlib, time
from neurona.devices import launch
launch.end_with_parent()
pathlib.Path('{tmp_path}', str(os.getpid())).touch()
time.sleep(60)
"""
    line = f"import sys; from neurona.devices import launch; launch.start(2, [sys.executable, '-c', {code!r}])"
    parent = subprocess.Popen([sys.executable, "-c", line])
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(is_alive(int(path.name)) for path in tmp_path.iterdir()))


def test_a_process_that_hangs_dies_in_the_end():
    code = """
import signal, time
from neurona.devices import launch
launch.PATIENCE_SECONDS = 0.2
signal.signal(signal.SIGTERM, signal.SIG_IGN)
launch.end_with(0)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    process.stdin.close()
    assert process.wait(10) == -signal.SIGKILL


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with launch.handed_on(lambda signum: None) as received:
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGUSR1)
        assert received == {signal.SIGUSR1}
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # an orphan may wait for whoever adopts it
        return file.read().split()[2] != "Z"
