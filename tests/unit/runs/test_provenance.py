from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from neurona.runs import provenance


def test_provenance_tells_command_code_versions_hardware_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = provenance.provenance(7)
    json.dumps(stored)  # what it is stored as
    assert stored["seed"] == 7
    assert stored["command"] == sys.argv
    assert stored["folder"] == str(tmp_path)
    assert stored["versions"]["torch"] == torch.__version__
    assert stored["versions"]["python"] == platform.python_version()
    assert stored["hardware"]["cores"] == os.cpu_count()
    assert {"lightning", "hydra-core", "torchmetrics", "numpy"} <= stored["versions"].keys()


def test_provenance_has_the_commit_of_the_source_and_none_without_git(monkeypatch):
    here = Path(provenance.__file__).parent
    reply = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    checkout = provenance.provenance(0)["git"]
    assert (checkout["commit"] if checkout else None) == (reply.stdout.strip() if reply.returncode == 0 else None)
    monkeypatch.setenv("PATH", "")
    provenance.checkout.cache_clear()
    assert provenance.provenance(0)["git"] is None
    provenance.checkout.cache_clear()
