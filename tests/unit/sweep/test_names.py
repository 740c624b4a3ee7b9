"""What folders of jobs are called: readable, and safe on any file system."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from neurona.runs import jobs
from neurona.sweep import names


@pytest.mark.parametrize(
    ("varying", "name"),
    [
        ([], "7"),
        (["model.activation=relu", "seed=0"], "7_relu_seed0"),
        (["optimizer.lr=0.00123456789", "optimizer=adam"], "7_lr0.001235_adam"),
        (["model.hidden=[64,64]", "model.bias=false"], "7_hidden64-64_biasfalse"),
        (["trainer.max_epochs=1000000", "a=-1.5", "b=1e-3"], "7_max_epochs1000000_a-1.5_b0.001"),
        (["optimizer/schedule=one_cycle", "+data.x=null"], "7_one_cycle_xnull"),
        (["data.path='../../etc/pass wd\u00e4:*'"], "7_etc-pass-wd"),
        (["data.path=."], "7_path"),
        (["+a.b@c.d='\u00e4'"], "7_d"),
    ],
)
def test_a_name_is_the_number_and_what_varies(varying: list[str], name: str) -> None:
    assert names.name(7, varying) == name


@pytest.mark.parametrize("text", ["x" * 500, "\u00fc" * 500, "/" * 90, "\0\n\t", "CON", "a.", "-", "1_000", "~", "'"])
def test_any_value_makes_a_name_that_a_file_system_takes_and_hydra_reads(text: str, tmp_path: Path) -> None:
    name = names.name(12, [f"data.path={text}", f"b={text}"])
    assert re.fullmatch(r"12(_[A-Za-z0-9_.+-]+)?", name)
    assert len(name) <= 60
    assert not name.endswith(".")
    (line,) = names.with_folder(12, [], [f"data.path={text}", f"b={text}"], {})
    assert OverridesParser.create().parse_override(line).value() == name  # a text, whatever it looks like
    assert names.folder_of(tmp_path, 12, [line]) == tmp_path / name
    (tmp_path / name).mkdir()
    assert jobs.folders(tmp_path) == {12: tmp_path / name}


def test_a_job_that_has_begun_keeps_its_folder(tmp_path: Path) -> None:
    for name in ("0", "1_tanh", "10_x", "2_caf\u00e9", "sweep_configs", "3x"):
        (tmp_path / name).mkdir()
    (tmp_path / "4.log").touch()
    folders = jobs.folders(tmp_path)
    assert list(folders.items()) == [(0, tmp_path / "0"), (1, tmp_path / "1_tanh"), (10, tmp_path / "10_x")]
    lines = [names.with_folder(number, ["seed=5"], ["seed=5"], folders) for number in range(3)]
    assert [line[:-1] for line in lines] == [["seed=5"]] * 3
    assert [names.folder_of(tmp_path, 0, line).name for line in lines] == ["0", "1_tanh", "2_seed5"]
    assert names.folder_of(tmp_path, 3, ["seed=5"]) == tmp_path / "3"
