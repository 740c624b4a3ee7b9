"""Signatures of classes and functions, read from their source: nothing is imported, so torch is not either."""

from __future__ import annotations

import ast
import inspect
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NamedTuple

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_LISTS = ("list", "List", "Sequence", "Iterable", "Collection", "tuple", "Tuple")
_MAPPINGS = ("dict", "Dict", "Mapping", "MutableMapping")


@dataclass(frozen=True)
class Parameter:
    """annotation: as written in ``module``. is_required: no default, and keyword-only (code provides the others).
    is_nullable: null is the default.
    """

    module: str
    annotation: ast.expr | None
    is_required: bool = False
    is_nullable: bool = False


@dataclass(frozen=True)
class Signature:
    """Parameters by name; is_open: takes further keywords (``**kwargs``)."""

    parameters: dict[str, Parameter]
    is_open: bool = False


class Alternative(NamedTuple):
    """One member of a union: the test of a plain value, its name in words, and the values where it is a closed set."""

    accepts: Callable[[Any], bool]
    words: str
    choices: tuple[Any, ...] = ()


def from_source(target: str) -> Signature | None:
    """The signature of the class or function at a dotted path; None where the source does not tell.

    Raises LookupError, in words for the user, if the path certainly leads nowhere.
    """
    found = _locate(target)
    if found is None:
        return None
    module, definition = found
    return _constructor(module, definition) if isinstance(definition, ast.ClassDef) else _arguments(module, definition)


def from_object(target: Callable[..., Any]) -> Signature | None:
    """The names that an imported class or function takes; None where it does not tell."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Signature(dict.fromkeys(named, Parameter("", None)), any(p.kind is p.VAR_KEYWORD for p in parameters))


def is_library(module: str) -> bool:
    """Whether a module belongs to Python or an installed package, rather than to this project or its user."""
    package = module.partition(".")[0]
    spec = _spec(package)
    if package == __name__.partition(".")[0] or spec is None or spec.origin is None:
        return False
    origin = Path(spec.origin)
    installed = {"site-packages", "dist-packages"} & set(origin.parts)
    return not spec.has_location or bool(installed) or origin.is_relative_to(sysconfig.get_path("stdlib"))


def alternatives(annotation: ast.expr | None, module: str) -> list[Alternative]:
    """What an annotation allows a plain value (number, text, list, mapping) to be; if not understood, anything."""

    def any_of(*members: ast.expr) -> list[Alternative]:
        return [alternative for member in members for alternative in alternatives(member, module)]

    match annotation:
        case ast.Constant(value=None):
            return [_NULL]
        case ast.Constant(value=str(text)):
            return alternatives(ast.parse(text, mode="eval").body, module)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return any_of(left, right)
        case ast.Name() | ast.Attribute():
            return _named(annotation, module)
        case ast.Subscript(value=outer, slice=inner):
            members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            match _last_name(outer):
                case "Union":
                    return any_of(*members)
                case "Optional":
                    return [*any_of(*members), _NULL]
                case "Annotated":
                    return any_of(members[0])
                case "Literal":
                    return [_literal([member.value for member in members if isinstance(member, ast.Constant)])]
                case name if name in _LISTS:
                    return [_list(any_of(*(member for member in members if not _is_constant(member, ...))))]
                case name:
                    return [_SIMPLE.get(name, _ANYTHING)]
    return [_ANYTHING]


def fits(value: Any, kinds: Iterable[Alternative]) -> bool:
    """Whether any of the alternatives accepts a plain value."""
    return any(kind.accepts(value) for kind in kinds)


def _literal(choices: list[Any]) -> Alternative:
    def accepts(value: Any) -> bool:  # 1, 1.0 and true are equal, but not the same choice
        return any(type(value) is type(choice) and value == choice for choice in choices)

    return Alternative(accepts, "one of the choices", tuple(choices))


def _list(kinds: list[Alternative]) -> Alternative:
    def accepts(value: Any) -> bool:
        return isinstance(value, list) and all(fits(entry, kinds) for entry in value)

    return Alternative(accepts, f"a list (each entry {' or '.join(dict.fromkeys(kind.words for kind in kinds))})")


def _named(annotation: ast.Name | ast.Attribute, module: str) -> list[Alternative]:
    name = _last_name(annotation)
    if name in _SIMPLE:
        return [_SIMPLE[name]]
    match _lookup(module, annotation.id) if isinstance(annotation, ast.Name) else None:
        case (_, ast.ClassDef() as definition) if not _accepts_plain_values(definition):
            return [Alternative(lambda value: isinstance(value, dict), f"a mapping whose _target_ makes a {name}")]
        case (where, ast.Assign(value=alias) | ast.AnnAssign(value=ast.expr() as alias)):
            return alternatives(alias, where)
    return [_ANYTHING]


def _accepts_plain_values(definition: ast.ClassDef) -> bool:
    """A path, or an enumeration that takes its names as text."""
    return any("Enum" in _last_name(base) or "Path" in _last_name(base) for base in definition.bases)


_NULL = Alternative(lambda value: value is None, "null")
_ANYTHING = Alternative(lambda value: True, "anything")
_SIMPLE = {
    "int": Alternative(lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "float": Alternative(lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number"),
    "bool": Alternative(lambda value: isinstance(value, bool), "true or false"),
    "str": Alternative(lambda value: isinstance(value, str), "text"),
    "Path": Alternative(lambda value: isinstance(value, str), "a path"),
    "Callable": Alternative(lambda value: isinstance(value, dict), "a mapping with a _target_"),
    **dict.fromkeys(_LISTS, Alternative(lambda value: isinstance(value, list), "a list")),
    **dict.fromkeys(_MAPPINGS, Alternative(lambda value: isinstance(value, dict), "a mapping")),
}


def _constructor(module: str, definition: ast.ClassDef) -> Signature | None:
    for member in definition.body:
        if isinstance(member, ast.FunctionDef) and member.name in ("__init__", "__new__"):
            return _arguments(module, member, skip=1)
    parent = _parent(module, definition)
    if definition.keywords or (definition.bases and parent is None):
        return None
    if _is_dataclass(definition):
        return Signature(_fields(module, definition))
    if definition.decorator_list:
        return None
    return _constructor(*parent) if parent else Signature({})


def _fields(module: str, definition: ast.ClassDef) -> dict[str, Parameter]:
    """The fields that a dataclass takes, those it inherits first."""
    parent = _parent(module, definition)
    fields = _fields(*parent) if parent and _is_dataclass(parent[1]) else {}
    for statement in definition.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                if "init=False" in ast.unparse(statement):
                    fields.pop(name, None)
                elif "ClassVar" not in ast.unparse(annotation):
                    fields[name] = Parameter(module, annotation, value is None, _is_constant(value, None))
    return fields


def _is_dataclass(definition: ast.ClassDef) -> bool:
    return any(ast.unparse(decorator).startswith("dataclass") for decorator in definition.decorator_list)


def _parent(module: str, definition: ast.ClassDef) -> tuple[str, ast.ClassDef] | None:
    """The first base class and its module, if it can be found by its name."""
    base = definition.bases[0] if definition.bases else None
    match _lookup(module, base.id) if isinstance(base, ast.Name) else None:
        case (where, ast.ClassDef() as parent):
            return where, parent
    return None


def _arguments(module: str, function: ast.FunctionDef | ast.AsyncFunctionDef, skip: int = 0) -> Signature:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    nulls = {
        a.arg for a, d in zip(reversed(positional), reversed(arguments.defaults), strict=False) if _is_constant(d, None)
    }
    parameters = {a.arg: Parameter(module, a.annotation, is_nullable=a.arg in nulls) for a in positional[skip:]}
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters[argument.arg] = Parameter(module, argument.annotation, default is None, _is_constant(default, None))
    return Signature(parameters, is_open=arguments.kwarg is not None)


def _locate(target: str) -> tuple[str, Definition] | None:
    module, *names = target.split(".")
    if _spec(module) is None:
        raise LookupError(f"there is no package {module}; if it is a missing dependency, install it")
    while names and _spec(f"{module}.{names[0]}") is not None:
        module = f"{module}.{names.pop(0)}"
    found = _lookup(module, names[0]) if len(names) == 1 else None
    if found and isinstance(found[1], Definition):
        return found[0], found[1]
    dynamic = {"*", "__getattr__"} & set(_names(module))
    if names and names[0] not in _names(module) and not dynamic and not is_library(module):
        submodules = [submodule.name for submodule in iter_modules(_folders(module))]
        close = get_close_matches(names[0], [*_names(module), *submodules], n=1)
        raise LookupError(f"{module} has no {names[0]}" + (f"; did you mean {module}.{close[0]}?" if close else ""))
    return None


def _lookup(module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> tuple[str, ast.stmt] | None:
    """Where a name of a module is defined, following imports: that module, and the statement that defines it."""
    if (module, name) in seen:
        return None
    statement = _names(module).get(name)
    if not isinstance(statement, ast.ImportFrom):
        return (module, statement) if statement is not None else None
    package = module if _folders(module) else module.rpartition(".")[0]
    source = resolve_name("." * statement.level + (statement.module or ""), package)
    original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
    return _lookup(source, original, seen | {(module, name)}) if source and _spec(source) else None


@cache
def _names(module: str) -> dict[str, ast.stmt]:
    """The statements that define a module's names, last one first in line; imports of whole modules are left out."""
    spec = _spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return {}
    names: dict[str, ast.stmt] = {}
    pending = list(ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body)
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


@cache
def _spec(module: str) -> ModuleSpec | None:
    """As importlib's find_spec, which would import the parents."""
    parent, _, name = module.rpartition(".")
    try:
        if not parent:
            return find_spec(name)
        return PathFinder.find_spec(module, _folders(parent)) if _folders(parent) else None
    except (ImportError, ValueError):
        return None


def _folders(module: str) -> list[str]:
    spec = _spec(module)
    return list(spec.submodule_search_locations or []) if spec else []


def _last_name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def _is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
