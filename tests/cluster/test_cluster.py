"""A real Slurm, and two hosts: ``python -m pytest -n0 -m cluster``. See docs/cluster.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.cluster
@pytest.mark.parametrize("script", ["slurm.sh", "two_hosts.sh"])
def test_every_check_of_the_script_holds(script: str) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [Path(__file__).with_name(script)], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout
