"""The table of a sweep's jobs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from neurona.report.summary import summary

Make = Callable[..., Path]


def test_a_line_for_each_job(make_run: Make, tmp_path: Path) -> None:
    for number in (0, 2, 10):
        overrides = ["data=iris", f"seed={number}"]
        figures = {"val/loss": 0.25, "seconds": 1.04}
        make_run(f"sweep/{number}", number, 0.9, overrides=overrides, figures=figures)
    make_run("sweep/1", status="failed", overrides=["data=iris", "seed=1"], figures={"error": "killed\nby -9"})
    sweep = tmp_path / "logs" / "sweep"
    (sweep / "3").mkdir()  # it begins
    (sweep / "4").mkdir()
    (sweep / "4" / "metrics.json").write_text('{"status": "failed", "error": "MemoryError: no room"}')
    (sweep / "multirun.yaml").touch()
    header, *lines = (re.split(r"  +", line) for line in summary(sweep).splitlines())
    assert header == ["job", "overrides", "status", "test/accuracy", "val/loss", "seconds", "folder", "error"]
    finished = [[str(n), f"seed={n}", "finished", "0.9000", "0.2500", "1.0", str(sweep / str(n))] for n in (0, 2, 10)]
    assert [line for line in lines if line[0] in ("0", "2", "10")] == finished
    assert lines[1] == ["1", "seed=1", "failed", "–", "–", "–", str(sweep / "1"), "killed"]
    assert (lines[3][0], lines[3][-1]) == ("4", "MemoryError: no room")
    assert [line[0] for line in lines] == ["0", "1", "2", "4", "10"]


def test_it_imports_nothing_heavy() -> None:
    program = "import sys, neurona.report.summary; print({'torch', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
