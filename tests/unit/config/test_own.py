"""What lies beside train.py, and what of it may be named."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from neurona.config import own
from neurona.config.make import is_own
from neurona.errors import UserError

FILES = {
    "train.py": "class X: pass",
    "configs/train.yaml": "",
    "mine.py": "from os import system\nfrom evil import Y as Z\nfrom .evil import V\n"
    "W = system\nclass X: pass\ndef build(): pass\n",
    "again.py": "from mine import X as Mine\nfrom nets.wide import Wide\nfrom again import Loop\n",
    "nets/__init__.py": "from .wide import Wide\ntry: from logs.stranger.evil import X\nexcept ImportError: pass\n",
    "nets/wide.py": "class Wide: pass",
    "nets/data/__init__.py": "class Inner: pass",
    "nets/plain/deep.py": "class X: pass",
    "evil/nowhere.py": "class X: pass",
    "logs/__init__.py": "",
    "logs/stranger/__init__.py": "",
    "logs/stranger/evil.py": "class X: pass",
    "runs/__init__.py": "class X: pass",
    "runs/evil.py": "class X: pass",
    "runs/one/overrides.yaml": "",
    "broken.py": "x = 1\nclass X(:\n",
    **{f"{name}/__init__.py": "class X: pass" for name in ("Data", "tests", "benchmarks", ".hidden")},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project that is not on Python's path."""
    place = tmp_path / "project"
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    (place / "linked.py").symlink_to(place / "logs" / "stranger" / "evil.py")
    (place / "link").symlink_to(place / "logs" / "stranger")
    (place / "nets" / "linked").symlink_to(place / "logs" / "stranger")
    monkeypatch.setattr(own, "CONFIG_DIR", place / "configs")
    yield place
    for name in ("mine", "nets", "nets.wide"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "target", ["mine.X", "nets.wide.Wide", "nets.Wide", "nets.data.Inner", "again.Mine", "again.Wide"]
)
def test_what_is_defined_there_may_be_named(target: str) -> None:
    assert isinstance(own.definition(target), ast.ClassDef)
    assert is_own("model", target, ())


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "target",
    [
        *("logs.stranger.evil.X", "link.evil.X", "linked.X", "nets.linked.evil.X", "nets.X", "runs.X", "runs.evil.X"),
        *("train.X", "Data.X", "data.X", "tests.X", "benchmarks.X", ".hidden.X", "evil.nowhere.X", "nets.plain.deep.X"),
        *("mine.system", "mine.os.system", "mine.W", "mine.Z", "mine.V", "again.Loop", "mine.X.Y", "mine", "..mine.X"),
        *("os.system", "sys.exit", "subprocess.Popen", "torch.nn.Linear", "logs/stranger/evil.X", "../project/mine.X"),
    ],
)
def test_what_a_stranger_could_have_brought_may_not(target: str) -> None:
    assert own.definition(target) is None
    assert not is_own("optimizer", target, ())


@pytest.mark.usefixtures("project")
def test_a_function_may_be_named_where_the_projects_own_are() -> None:
    assert [is_own(key, "mine.build", ()) for key in ("optimizer", "optimizer.schedule", "model")] == [
        True,
        True,
        False,
    ]


def test_a_module_is_read_anew_once_it_has_changed(project: Path) -> None:
    assert own.definition("mine.New") is None
    (project / "mine.py").write_text("class New: pass")
    assert own.definition("mine.New") is not None
    with pytest.raises(UserError, match=r"broken\.py, line 2: "):
        own.definition("broken.X")


def test_the_folder_is_that_of_the_train_py_that_runs_or_came_with_the_source(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own.folder() == project
    other = tmp_path / "other"
    (other / "configs").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", [str(other / "train.py")])
    assert own.folder() == project  # there is none
    (other / "train.py").touch()
    (other / "configs" / "train.yaml").touch()
    assert own.folder() == other
    monkeypatch.setattr(sys, "argv", [str(other / "script.py")])
    assert own.folder() == project
    monkeypatch.setattr(sys, "argv", [""])
    monkeypatch.setattr(own, "CONFIG_DIR", tmp_path / "lib" / "configs")  # as where the package alone is installed
    assert own.folder() is None
    assert own.definition("mine.X") is None
    assert own.modules() == []


def test_the_modules_beside_train_py(project: Path) -> None:
    assert own.modules() == ["again", "broken", "mine", "nets"]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "module",
    ["logs.stranger.evil", "link.evil", "nets.linked.evil", "runs.evil", "nets.wide", "nets.none", "mine", "..mine"],
)
def test_no_folder_is_asked_to_become_a_package_that_could_not_be_named(module: str) -> None:
    assert own.unmarked(module) == []


def test_folders_of_ones_own_that_are_no_packages(project: Path) -> None:
    assert own.unmarked("evil.nowhere") == [project / "evil"]
    assert own.unmarked("nets.plain.deep") == [project / "nets" / "plain"]
    (project / "a" / "b").mkdir(parents=True)
    (project / "a" / "b" / "c.py").write_text("class X: pass")
    folders = own.unmarked("a.b.c")
    assert folders == [project / "a", project / "a" / "b"]
    for folder in folders:
        (folder / "__init__.py").touch()
    assert own.definition("a.b.c.X") is not None


def test_the_very_module_is_imported_and_pythons_path_is_left_alone(project: Path, tmp_path: Path) -> None:
    path = list(sys.path)
    assert own.load("nets.wide").__file__ == str(project / "nets" / "wide.py")
    assert sys.path == path
    (tmp_path / "nets.py").touch()
    sys.path.insert(0, str(tmp_path))
    for name in ("nets", "nets.wide"):
        del sys.modules[name]
    assert own.load("nets").__file__ == str(project / "nets" / "__init__.py")
    sys.path.remove(str(tmp_path))
    sys.modules["nets"] = type(sys)("nets")
    with pytest.raises(ImportError, match="another nets"):
        own.load("nets.wide")
