from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from neurona.errors import ConfigError, RunError
from neurona.runs import files
from neurona.runs.files import PART_BYTES, InParts, link, write_atomically
from neurona.runs.folder import RunFolder


def test_a_taken_name_gets_a_number(tmp_path):
    folders = [RunFolder.create(tmp_path / "deep" / "2026-01-01") for _ in range(3)]
    assert [folder.path.name for folder in folders] == ["2026-01-01", "2026-01-01-2", "2026-01-01-3"]
    assert all(folder.path.is_dir() for folder in folders)


def test_what_is_in_a_taken_folder_stays(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    folder = RunFolder.create(tmp_path / "run")
    assert folder.path != tmp_path / "run"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_twenty_at_once_get_twenty_folders(tmp_path):
    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(lambda _: RunFolder.create(tmp_path / "runs" / "run"), range(20)))
    assert len({folder.path for folder in folders}) == len(list((tmp_path / "runs").iterdir())) == 20


@pytest.mark.parametrize("name", ["/", ".", ".."])
def test_a_name_that_is_not_the_runs_own_is_refused(name):
    with pytest.raises(ConfigError, match="must name a folder"):
        RunFolder.create(Path(name))


def test_a_file_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "notes").write_text("precious")
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder.create(tmp_path / "notes")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_failure_while_writing_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_atomically(path, "old\n")

    def fails(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(RunError, match=r"metrics\.json: cannot be written \(No space left on device\)"):
        write_atomically(path, "new\n")
    assert path.read_text() == "old\n"
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_writing_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    write_atomically(tmp_path / "a.txt", "a longer text\n")
    write_atomically(tmp_path / "a.txt", "né\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "né\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def no_links(source, target) -> None:
    raise OSError(1, "Operation not permitted")


@pytest.mark.parametrize("size", [0, 5, PART_BYTES, 3 * PART_BYTES + 4])
def test_what_is_written_in_parts_is_the_same(tmp_path, size):
    parts, contents = [], os.urandom(size)
    with (tmp_path / "file").open("wb") as file:
        counting = SimpleNamespace(write=lambda part: parts.append(len(part)) or file.write(part))
        assert InParts(counting).write(bytearray(contents)) == size
    assert (tmp_path / "file").read_bytes() == contents
    assert max(parts, default=0) <= PART_BYTES


@pytest.mark.parametrize("links", [True, False])
def test_a_link_takes_the_place_of_what_was_there_and_keeps_its_contents(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    first, second, target = (tmp_path / name for name in ("first", "second", "target"))
    first.write_text("one")
    second.write_text("two")
    for source in (first, second, second):
        link(source, target)
        assert target.read_text() == source.read_text()
        assert target.samefile(source) == links
    write_atomically(second, "three")
    assert target.read_text() == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second", "target"]


def test_what_is_no_plain_file_of_some_size_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "long").write_text("{}" + " " * 100)
    monkeypatch.setattr(files, "MOST_BYTES", 100)
    for name in ("pipe", "link", "long", "."):
        with pytest.raises(ValueError, match="no file of settings"):
            files.read_text(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        files.read_text(tmp_path / "missing")


def test_yaml_with_aliases_is_not_read(tmp_path):
    for text in ("a: &a [*a]", "a: &a {b: 1}\nc:\n  <<: *a"):
        (tmp_path / "it.yaml").write_text(text)
        with pytest.raises(ValueError, match="aliases"):
            files.read_yaml(tmp_path / "it.yaml")
    (tmp_path / "it.yaml").write_text("a: '*b'\nc: 1*2 # *d\n")
    assert files.read_yaml(tmp_path / "it.yaml").startswith("a: '*b'")


def test_json_that_is_damaged_is_nothing(tmp_path):
    for text in ("", "[]", "{", "9" * 5000, '{"a":' * 200_000, "\udcff"):
        (tmp_path / "it.json").write_text(text, errors="surrogateescape")
        assert files.read_json(tmp_path / "it.json") == {}
    assert files.read_json(tmp_path / "missing.json") == {}
