"""The user's own code: modules beside ``train.py``, whose classes a configuration may name without ``allow``.

A run folder from a stranger names code, and lies below the project more often than not. So a module counts only where
Python finds it as a file of the project's own folder, not through a link, nor in what holds runs or data; and of what
is in it only what its source defines, which is read before anything is imported.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import sys
from collections.abc import Iterator
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

from neurona.config.hints import CONFIG_DIR
from neurona.errors import UserError

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

PROJECT = ("train.py", "configs/train.yaml")
"""Files by which the project's folder is known."""

EXCLUDED = ("logs", "data", "tests", "benchmarks", "train")
"""What lies beside ``train.py`` and is not to be named, in small letters."""


def folder() -> Path | None:
    """The folder of ``train.py``: of the one that runs, else of the one that came with this source; None where there is
    none, as in a folder of installed packages.
    """
    program = Path(next(iter(sys.argv), "")).absolute()
    places = (*([program.parent] if program.name == "train.py" else []), CONFIG_DIR.parent)
    return next((place for place in places if all((place / name).is_file() for name in PROJECT)), None)


def source(module: str) -> Path | None:
    """The file of a module beside ``train.py``; None for any other."""
    project = folder()
    first, *others = module.split(".")
    if project is None or _is_excluded(first):
        return None
    file = _file(first, project)
    if file is not None and file.name == "__init__.py" and _holds_runs(file.parent):
        return None
    for name in others:
        file = _file(name, file.parent) if file is not None and file.name == "__init__.py" else None
    return file


def _file(name: str, place: Path) -> Path | None:
    """The file that Python imports for a module of a folder, if it is one of source, and no link leads to it."""
    spec = PathFinder.find_spec(name, [str(place)]) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        return None
    file, real = Path(spec.origin), place.resolve()
    is_plain = file.resolve() in (real / f"{name}.py", real / name / "__init__.py")
    return file if is_plain else None


def unmarked(module: str) -> list[Path]:
    """The folders on the way to a module beside ``train.py`` that lack the ``__init__.py`` of a package; none where it
    could not be named with it either.
    """
    project, names = folder(), module.split(".")
    if project is None or _is_excluded(names[0]) or not all(map(str.isidentifier, names)):
        return []
    file = project.joinpath(*names).with_suffix(".py")
    is_plain = file.is_file() and file.resolve() == project.resolve() / file.relative_to(project)
    if not is_plain or _holds_runs(project / names[0]):
        return []
    ways = [project.joinpath(*names[:depth]) for depth in range(1, len(names))]
    return [way for way in ways if not (way / "__init__.py").exists()]


def _is_excluded(first: str) -> bool:
    return first.casefold() in EXCLUDED or first in sys.builtin_module_names


@functools.cache
def _holds_runs(package: Path) -> bool:
    return any(package.rglob("overrides.yaml"))


def modules() -> list[str]:
    """The names of the modules and packages beside ``train.py``."""
    project = folder()
    names = sorted(file.stem for file in project.iterdir()) if project else []
    return [name for name in dict.fromkeys(names) if source(name) is not None]


def classes(package: str) -> list[str]:
    """The dotted paths of the classes that a module or package beside ``train.py`` defines."""
    file, found = source(package), list[str]()
    if file is None:
        return found
    for name, statement in statements(file).items():
        if isinstance(statement, ast.ClassDef):
            found.append(f"{package}.{name}")
    for other in sorted(file.parent.iterdir()) if file.name == "__init__.py" else ():
        with contextlib.suppress(UserError):  # it is not Python, and nobody has named it
            found += classes(f"{package}.{other.stem}") if other.stem != "__init__" else []
    return found


def definition(target: str) -> Definition | None:
    """The statement that defines the class or function at a dotted path, if it stands in a module beside ``train.py``.

    A package may have it from another module beside ``train.py``. Raises UserError for a source that is not Python.
    """
    module, _, name = target.rpartition(".")
    seen = set[tuple[str, str]]()
    while (file := source(module)) is not None and (module, name) not in seen:
        seen.add((module, name))
        match statements(file).get(name):
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() as statement:
                return statement
            case ast.ImportFrom() as statement:
                module, name = origin(statement, name, module, is_package=file.name == "__init__.py")
            case _:
                return None
    return None


def load(module: str) -> ModuleType:
    """A module, imported. A name beside ``train.py`` means that file, wherever Python was started.

    Raises ImportError if another module of this name has been imported before.
    """
    project = folder()
    if project is None or source(module) is None:
        return import_module(module)
    first = module.partition(".")[0]
    file, before = source(first), getattr(sys.modules.get(first), "__file__", None)
    if first in sys.modules and not (file and before and file.resolve() == Path(before).resolve()):
        raise ImportError(f"another {first}, {before}, has been imported; rename one of them")
    with _on_path(project):
        return import_module(module)


@contextlib.contextmanager
def _on_path(project: Path) -> Iterator[None]:
    invalidate_caches()
    sys.path.insert(0, str(project))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(project))


def origin(statement: ast.ImportFrom, name: str, module: str, *, is_package: bool) -> tuple[str, str]:
    """The module that a statement of another module imports a name from, and the name there; no module where a relative
    import leads out of the package.
    """
    package = module if is_package else module.rpartition(".")[0]
    original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
    try:
        return resolve_name("." * statement.level + (statement.module or ""), package), original
    except ImportError:
        return "", original


def statements(file: Path) -> dict[str, ast.stmt]:
    """The statements that define a source's names, last one first in line; imports of whole modules are left out."""
    return _statements(file, file.stat().st_mtime_ns)


@functools.cache
def _statements(file: Path, changed: int) -> dict[str, ast.stmt]:
    names: dict[str, ast.stmt] = {}
    try:
        pending = ast.parse(file.read_bytes()).body
    except SyntaxError as error:
        raise UserError(f"{file}, line {error.lineno}: {error.msg}") from None
    while pending:
        statement = pending.pop(0)
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names[name] = statement
            case ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name: statement for alias in aliases}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = statement
            case ast.If(body=body, orelse=orelse) | ast.Try(body=body, orelse=orelse):
                pending = [*body, *orelse, *pending]
    return names
