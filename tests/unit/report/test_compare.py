"""The report's files and words, of runs made by hand."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from neurona.errors import ConfigError
from neurona.report.__main__ import main
from neurona.report.compare import report

Make = Callable[..., Path]
HOSTILE = "tags=['<script>alert(1)</script>|`$x$`']"


class Page(HTMLParser):
    """Everything a page holds. Fails on a tag that is closed before those within it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes)
        if "href" in attributes:
            self.links.append(str(attributes["href"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def logs(make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three activations over three seeds, and one run for each thing that goes wrong."""
    monkeypatch.chdir(tmp_path)
    for name, mean in (("relu", 0.9), ("$tanh$", 0.89), ("sigmoid", 0.5)):
        for seed, extra in enumerate((0.0, 0.01, 0.03)):
            accuracy = mean + (extra if name != "$tanh$" else 0.03 - extra)
            make_run(f"{name}{seed}", seed, accuracy, settings={"model.activation": name}, overrides=[HOSTILE])
    make_run("single", 0, 0.95, settings={"model.activation": "gelu"})
    make_run("broken", 3, status="failed", figures={"error": "loss is <nan>"}, settings={"model.activation": "relu"})
    make_run("gone & lost", 4, status="running", settings={"model.activation": "relu"})
    (make_run("torn") / "metrics.json").write_text("{")
    return Path("logs")


def test_the_settings_of_most_runs_are_said_once(make_run: Make, tmp_path: Path) -> None:
    usual = {
        "model.activation": "relu",
        "model.dropout": 0.0,
        "optimizer.lr": 1e-3,
        "data.batch_size": 32,
        "model.bias": 1,
    }
    for index, key in enumerate(["", *usual, *usual]):
        make_run(str(index), index // 6, 0.9, settings=usual | ({key: "other"} if key else {}))
    text = report([tmp_path / "logs"], None, [], None)
    common = "batch_size=32, activation=relu, bias=1, dropout=0, lr=0.001"
    assert f"A group is named by what differs from most runs, which have {common}." in text
    assert text.count("activation=relu") == 1


def test_the_terminal_says_what_can_be_said(logs: Path) -> None:
    text = report([logs], None, [], None)
    opening = text.splitlines()[0]
    assert opening.startswith("13 runs: ")
    assert set(re.findall(r"\d+ [a-z]+(?=[,.])", opening)) == {"10 finished", "1 failed", "1 lost", "1 damaged"}
    assert opening.endswith("Compared by test/accuracy (%): higher is better.")
    assert "What varies: model.activation ($tanh$, gelu, relu, sigmoid)." in text
    assert "Among groups of at least two runs, the best mean is that of activation=relu." in text
    assert "Not significantly different from it (p ≥ 0.05): activation=$tanh$." in text
    assert "Significantly worse (p < 0.05): activation=sigmoid" not in text  # the differences by seed do not spread
    assert (
        "Not tested, because there is only one run or the runs do not differ: activation=gelu; activation=sigmoid."
        in text
    )
    assert re.search(r"activation=relu +3 +91.33 ± 1.53 +91.00 +87.54 to 95.13 +best +– +1 failed, 1 lost", text)
    assert re.search(r"failed +logs/broken +loss is <nan>", text)
    assert re.search(r"lost +logs/gone & lost +its process is gone; .* \"run='logs/gone & lost'\"", text)
    assert f"warning: Cannot be read: {Path('logs', 'torn', 'metrics.json')}" in text


def test_debug_runs_are_left_out_wherever_they_are(make_run: Make, tmp_path: Path) -> None:
    make_run("iris/a", 0, 0.9)
    make_run("iris/b", 1, 0.8, settings={"debugging": False})  # as runs of earlier versions did not say
    make_run("debug/c", 2, 0.1, settings={"debugging": True})
    make_run("mine", 0, 0.2, settings={"debugging": True})
    text = report([tmp_path / "logs"], None, [], None)
    assert text.splitlines()[0].startswith("2 runs: 2 finished. Left out: 2 debug runs. Compared by test/accuracy")
    assert "85.00 ± 7.07" in text  # of one group
    with pytest.raises(ConfigError, match=r"debug: has only debug runs, which are left out"):
        report([tmp_path / "logs" / "debug"], None, [], None)


def test_the_page_holds_everything_itself(logs: Path) -> None:
    report([logs], None, [], None)
    text = (logs / "report" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"data:image/png;base64,[^\"]+", "", text))
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "loss is <nan>" in page.text
    assert page.images
    for image in page.images:
        assert str(image["src"]).startswith("data:image/png;base64,iVBOR")
        assert image["alt"]
    for link in page.links:
        assert (logs / "report" / unquote(link)).is_dir()
    assert len(page.links) == 13 + 3


def test_markdown_links_and_escapes(logs: Path) -> None:
    report([logs], None, [], None)
    text = (logs / "report" / "report.md").read_text(encoding="utf-8")
    assert "](../gone%20%26%20lost)" in text
    assert r"loss is \<nan\>" in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.split(r"(?<!\\)\|", line)) == 10 for line in tables if "activation=" in line and "±" in line)
    assert all(len(re.split(r"(?<!\\)\|", line)) == 6 for line in tables if "train.py" in line and "lost" not in line)
    for name in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (logs / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_the_csv_has_every_figure(logs: Path) -> None:
    report([logs], None, [], None)
    with (logs / "report" / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["folder"]: row for row in csv.DictReader(file)}
    assert len(rows) == 13
    row = rows["logs/relu1"]
    assert (row["model.activation"], row["seed"], row["status"]) == ("relu", "1", "finished")
    assert float(row["test/accuracy"]) == 0.91
    assert HOSTILE in row["command"].replace("'\"'\"'", "'")
    assert rows["logs/broken"]["error"] == "loss is <nan>"
    assert rows["logs/torn"]["status"] == "damaged"


def test_a_search_shows_its_settings(make_run: Make, tmp_path: Path) -> None:
    for index in range(12):
        settings = {"optimizer.lr": 10 ** -(1 + index / 4), "model.dropout": index % 4 / 10}
        make_run(str(index), 0, 0.5 + index / 100, settings=settings)
    text = report([tmp_path / "logs"], None, [], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("report.csv", "report.html", "report.md", "search.png")
    ]
    assert "No group has more than one run, so nothing is tested" in text
    assert re.search(r"separates the better half of the runs from all of them \(PED-ANOVA\): optimizer.lr \d+ %", text)


def test_runs_that_have_no_figures_yet(make_run: Make, tmp_path: Path) -> None:
    folder = make_run("only", status="interrupted")
    text = report([folder], None, [], None)
    assert "No run has finished with test/accuracy yet." in text
    assert (tmp_path / "logs" / "report" / "report.html").exists()
    assert not (folder / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "path=nowhere: is not a folder"),
        (["logs", "--metric", "test/acuracy"], "did you mean test/accuracy? There are test/accuracy"),
        (["logs", "--metric", "test/acc"], "did you mean test/accuracy? There are test/accuracy"),
        (["logs", "--by", "seed"], "--by=seed: a seed never makes a group"),
        (["logs", "--by", "model.activatoin"], "did you mean model.activation?"),
        (["logs", "--out", "logs/relu0/report"], "is within the run"),
        (["logs", "--out", "file/report"], "cannot be made"),
    ],
)
def test_mistakes(
    logs: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("file").touch()
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    assert main() == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(logs: Path) -> None:
    logs.chmod(0o500)
    with pytest.raises(ConfigError, match="give another folder with --out"):
        report([logs], None, [], None)
    logs.chmod(0o700)


def test_an_occupied_name(logs: Path) -> None:
    (logs / "report" / "report.csv").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be written"):
        report([logs], None, [], None)
