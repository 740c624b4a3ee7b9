from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from neurona.runs import provenance
from neurona.runs.folder import RunFolder


def configuration(**data):
    return OmegaConf.create(
        {
            "seed": 7,
            "init_from": "earlier",
            "data": {"_target_": "neurona.data.mnist.Mnist", "batch_size": 32, **data},
            "model": {"hidden": [8], "inputs": "${data.batch_size}"},
            "logger": {"token": "${oc.env:NEURONA_TEST_SECRET}", "entity": "${oc.env:NEURONA_TEST_UNSET,nobody}"},
        }
    )


OVERRIDES = ["model.hidden=[8]", "logger.token=${oc.env:NEURONA_TEST_SECRET}"]


@pytest.fixture
def described(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NEURONA_TEST_SECRET", "hunter2")
    monkeypatch.delenv("NEURONA_TEST_UNSET", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(tmp_path / "run")
    folder.describe(configuration(root="data", train_path="~/a.csv", target="label", image_path=None), OVERRIDES)
    return folder.path


def test_provenance_tells_command_code_versions_hardware_and_seed(described, tmp_path):
    stored = json.loads((described / "provenance.json").read_text())
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
