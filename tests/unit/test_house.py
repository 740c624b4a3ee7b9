"""The floors of the house: imports run downwards only, and the core imports nothing of what stands around it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
AROUND = ("tables", "sweep", "report", "export")
REGISTRY = "neurona.config.registry"
"""Names, as text, what is imported once it is asked for."""


TOGETHER = {
    "neurona.data.breast_cancer": "data/test_datasets.py",
    "neurona.data.digits": "data/test_datasets.py",
    "neurona.data.iris": "data/test_datasets.py",
    "neurona.data.wine": "data/test_datasets.py",
    "neurona.data.mnist": "data/test_idx.py",
    "neurona.data.fashion_mnist": "data/test_idx.py",
}
"""Data sets of a few lines, and where they are tested together."""


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(file): file for file in sorted((SOURCE / "neurona").rglob("*.py"))}


def floor(module: str) -> str:
    """The folder of a module; of one at the root of the package, itself."""
    return module.split(".")[1] if "." in module else module


def named(tree: ast.AST) -> set[str]:
    """Every dotted name that a module imports, wherever in it, or has as a text that is not a docstring."""
    names = set[str]()
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                names |= {module, *(f"{module}.{alias.name}" for alias in aliases)}
            case ast.Constant(value=str(text)) if id(node) not in docstrings and re.fullmatch(r"neurona(\.\w+)+", text):
                names.add(text)
            case ast.ImportFrom(level=level):
                assert not level, "relative imports are not read here"
    return names


def imported(module: str) -> set[str]:
    """The modules of this project that a module needs, by import or by name; the registry's names are its purpose."""
    if module == REGISTRY:
        return set()
    names = named(ast.parse(FILES[module].read_text(encoding="utf-8")))
    found = {name if name in FILES else name.rpartition(".")[0] for name in names}
    return (found & FILES.keys()) - {module, "neurona"}


IMPORTS = {module: imported(module) for module in FILES if module != "neurona"}


def test_the_reading_sees_every_kind_of_import() -> None:
    text = "import a.b\nfrom c import d\ndef f():\n    'neurona.no'\n    from e import g\n    return 'neurona.x.Y'\n"
    guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from h import i\n"
    wanted = {"a.b", "c", "c.d", "e", "e.g", "neurona.x.Y", "h", "h.i", "typing", "typing.TYPE_CHECKING"}
    assert named(ast.parse(text + guarded)) == wanted
    assert "neurona.steps.training" in IMPORTS["neurona.classifier"]
    assert "neurona.classifier" in IMPORTS["neurona.stages.fit"]


def test_no_module_imports_one_that_needs_it() -> None:
    try:
        list(TopologicalSorter(IMPORTS).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


def test_no_floor_imports_one_that_needs_it() -> None:
    floors: dict[str, set[str]] = {}
    for module, needed in IMPORTS.items():
        floors.setdefault(floor(module), set()).update({floor(other) for other in needed} - {floor(module)})
    try:
        list(TopologicalSorter(floors).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of floors: {' → '.join(error.args[1])}")


def test_the_core_imports_nothing_of_what_stands_around_it() -> None:
    crossing = [
        f"{module} → {other}"
        for module, needed in IMPORTS.items()
        if floor(module) not in AROUND
        for other in needed
        if floor(other) in AROUND
    ]
    assert not crossing


def test_networks_import_nothing_of_the_project_but_its_errors() -> None:
    needed = {other for module, others in IMPORTS.items() if floor(module) == "models" for other in others}
    assert {other for other in needed if floor(other) != "models"} == {"neurona.errors"}
    assert not IMPORTS["neurona.errors"]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("neurona.models.mlp", ("hydra", "omegaconf", "lightning")),
        ("neurona.cli.command", ("torch", "optuna", "polars", "matplotlib")),
        ("neurona.data.spec", ("torch", "hydra")),
    ],
)
def test_what_an_import_brings(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; sys.exit(' '.join({{*sys.modules}} & {{*{heavy!r}}}) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert done.returncode == 0


def test_every_floor_says_what_it_is_for() -> None:
    for folder in sorted({file.parent for file in FILES.values()}):
        first = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert first, folder


def test_every_module_has_tests_of_its_own() -> None:
    units = Path(__file__).parent
    without = [
        module
        for module, file in FILES.items()
        if file.name != "__init__.py"
        and not (
            units / TOGETHER.get(module, file.relative_to(SOURCE / "neurona").with_name(f"test_{file.name}"))
        ).exists()
    ]
    assert TOGETHER.keys() <= FILES.keys()
    assert not without, without


def test_files_and_functions_are_of_a_size_to_take_in_at_once() -> None:
    for module, file in FILES.items():
        text = file.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 50, f"{module}.{node.name}"


def test_the_tests_that_the_page_on_exactness_names_are_there() -> None:
    root = SOURCE.parent
    page = (root / "docs/exactness.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*(?:tests/|test_).*\|$", page.partition("## Which test holds what")[2], re.MULTILINE)
    assert len(rows) > 15
    files, tests = set(re.findall(r"tests/[\w/]+\.py", page)), set(re.findall(r"(?:::|`)(test_\w+)", page))
    written = "".join((root / file).read_text(encoding="utf-8") for file in sorted(files))
    assert not [test for test in tests if f"def {test}(" not in written]
