"""The arguments of classes and functions, read from their source before anything is imported, or from the imported
objects.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any, Literal, NamedTuple, Union, get_type_hints

from neurona.config import own, registry
from neurona.config.own import Definition


@dataclass(frozen=True)
class Signature:
    """parameters: the annotation of each by its name, Any where the source does not tell. required: those without a
    default that are keyword-only (code provides the others). is_open: takes further keywords (``**kwargs``), whichever
    they are; those that a constructor hands on to its parent's are among the parameters.
    """

    parameters: Mapping[str, Any]
    required: frozenset[str] = frozenset()
    is_open: bool = False


Reader = Callable[[str], Signature | None]
"""From a dotted path to the signature of the class or function there."""

BUILTINS = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}
LISTS = ("list", "List", "tuple", "Tuple", "Sequence")


def at(key: str, target: str, read: Reader) -> Signature | None:
    """The keys that a node may have beside its ``_target_``. The node ``optimizer`` also has those of ``Optimization``,
    but not ``params``, which the code provides.
    """
    signature = read(target)
    if key != "optimizer" or signature is None:
        return signature
    step = read(registry.OPTIMIZATION)
    assert step is not None
    own = {name: annotation for name, annotation in step.parameters.items() if name not in step.required}
    arguments = {name: annotation for name, annotation in signature.parameters.items() if name != "params"}
    return Signature({**arguments, **own}, signature.required, signature.is_open)


def from_source(target: str) -> Signature | None:
    """The signature of the class or function at a dotted path; None where the source does not tell.

    Raises LookupError, in words for the user, if the path certainly leads nowhere.
    """
    is_installed = target.startswith("neurona.") or is_library(target)
    return _of_installed(target) if is_installed else _from_source(target)


@cache
def _of_installed(target: str) -> Signature | None:
    """Remembered, as nothing changes the code of a process that has begun; of one's own, a notebook has it anew."""
    return _from_source(target)


def _from_source(target: str) -> Signature | None:
    place = _locate(target)
    if place is None:
        return None
    module, definition = place
    if isinstance(definition, ast.ClassDef):
        return _constructor(list(_lineage(module, definition)))
    return _arguments(module, definition)


def from_object(target: Callable[..., Any]) -> Signature | None:
    """The signature of an imported class or function; None where Python does not tell."""
    if not isinstance(target, type):
        return _as_called(target)
    return _of_classes([kind for kind in target.__mro__[:-1] if "__init__" in vars(kind)] or [target])


def _of_classes(lineage: Sequence[type]) -> Signature | None:
    """The signature of the first of those classes, each of which inherits from the next and has a constructor."""
    signature = _as_called(lineage[0])
    handing = _handing(_definition_of(lineage[0].__init__)) if signature and signature.is_open else None  # type: ignore[misc]
    parent = _of_classes(lineage[1:]) if handing and lineage[1:] else None
    return _with_further(signature, parent, handing) if signature and parent and handing else signature


def _as_called(target: Callable[..., Any]) -> Signature | None:
    """The signature that Python itself gives."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    annotations = _annotations(target)
    for parameter in parameters:
        if parameter.default is None and parameter.name in annotations:
            annotations[parameter.name] = Union[annotations[parameter.name], None]  # noqa: UP007  (of any two objects)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Signature(
        {p.name: annotations.get(p.name, Any) for p in named},
        frozenset(p.name for p in named if p.kind is p.KEYWORD_ONLY and p.default is p.empty),
        is_open=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


class Handing(NamedTuple):
    """How a constructor hands its ``**kwargs`` on to its parent's: arguments that it gives itself, by their number and
    by name. is_all: nothing else is done with them.
    """

    positional: int
    names: frozenset[str]
    is_all: bool


def _handing(function: ast.stmt | None) -> Handing | None:
    """None if they are not handed on, or the source does not show it."""
    if not isinstance(function, ast.FunctionDef) or function.args.kwarg is None:
        return None
    rest = function.args.kwarg.arg
    uses = sum(isinstance(node, ast.Name) and node.id == rest for node in ast.walk(function))
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="__init__"), args=args, keywords=keywords) if any(
                keyword.arg is None and ast.unparse(keyword.value) == rest for keyword in keywords
            ):
                others = [argument for argument in args if not isinstance(argument, ast.Starred)]
                names = frozenset(keyword.arg for keyword in keywords if keyword.arg)
                return Handing(len(others) - (not isinstance(owner, ast.Call)), names, is_all=uses == 1)
    return None


def _with_further(signature: Signature, parent: Signature, handing: Handing) -> Signature:
    """The signature of a constructor that hands its ``**kwargs`` on to its parent's."""
    fixed = {*list(parent.parameters)[: handing.positional], *handing.names, *signature.parameters}
    further = {name: annotation for name, annotation in parent.parameters.items() if name not in fixed}
    return Signature(
        {**signature.parameters, **further},
        signature.required | (parent.required & further.keys()),
        is_open=parent.is_open or not handing.is_all,
    )


def _definition_of(function: Callable[..., Any]) -> ast.stmt | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None


def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of its parameters; none where one of them names what is imported for type checkers alone."""
    try:
        if is_dataclass(target):  # whose fields may come from several modules
            return get_type_hints(target)
        parameters = inspect.signature(target, eval_str=True).parameters.values()
        return {p.name: p.annotation for p in parameters if p.annotation is not p.empty}
    except (NameError, AttributeError, TypeError):
        return {}


def is_library(module: str) -> bool:
    """Whether a module belongs to Python or an installed package, rather than to this project or its user."""
    package = module.partition(".")[0]
    spec = _spec(package)
    if package == __name__.partition(".")[0] or spec is None or spec.origin is None:
        return False
    origin = Path(spec.origin)
    installed = {"site-packages", "dist-packages"} & set(origin.parts)
    return not spec.has_location or bool(installed) or origin.is_relative_to(sysconfig.get_path("stdlib"))


Lineage = Sequence[tuple[str, ast.ClassDef] | None]
"""Classes and their modules, in the order in which Python looks for a constructor; None: one that is not to be read."""


def _lineage(module: str, definition: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef] | None]:
    """A class and what it inherits from, depth first."""
    yield module, definition
    if definition.keywords:
        yield None
    for base in definition.bases:
        parent = _class(module, base)
        yield from _lineage(*parent) if parent else [None]


def _constructor(lineage: Lineage) -> Signature | None:
    if not lineage:
        return Signature({})
    if lineage[0] is None:
        return None
    module, definition = lineage[0]
    for member in definition.body:
        if isinstance(member, ast.FunctionDef) and member.name in ("__init__", "__new__"):
            signature, handing = _arguments(module, member, skip=1), _handing(member)
            parent = _constructor(lineage[1:]) if handing else None
            if handing and parent:
                return _with_further(signature, parent, handing)
            return signature if handing is None or is_library(module) else None
    if _is_dataclass(definition):
        if None in lineage:
            return None
        fields = _fields(module, definition)
        required = frozenset(name for name, (_, is_required) in fields.items() if is_required)
        return Signature({name: kind for name, (kind, _) in fields.items()}, required)
    if definition.decorator_list:
        return None
    return _constructor(lineage[1:])


def _fields(module: str, definition: ast.ClassDef) -> dict[str, tuple[Any, bool]]:
    """The fields that a dataclass takes, those it inherits first: what each is, and whether it has no default."""
    parent = _class(module, definition.bases[0]) if definition.bases else None
    fields = _fields(*parent) if parent and _is_dataclass(parent[1]) else {}
    for statement in definition.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                if "init=False" in ast.unparse(statement):
                    fields.pop(name, None)
                elif "ClassVar" not in ast.unparse(annotation):
                    fields[name] = _kind(module, annotation, value), value is None
    return fields


def _is_dataclass(definition: ast.ClassDef) -> bool:
    return any(ast.unparse(decorator).startswith("dataclass") for decorator in definition.decorator_list)


def _class(module: str, base: ast.expr) -> tuple[str, ast.ClassDef] | None:
    """The class that a module means by a name, and its own module, if it can be read."""
    match _lookup(module, base.id) if isinstance(base, ast.Name) else None:
        case (where, ast.ClassDef() as definition):
            return where, definition
    return None


def _arguments(module: str, function: ast.FunctionDef | ast.AsyncFunctionDef, skip: int = 0) -> Signature:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    without = [None] * (len(positional) - len(arguments.defaults))
    pairs = [*zip(positional, [*without, *arguments.defaults], strict=True)][skip:]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    parameters = {argument.arg: _kind(module, argument.annotation, default) for argument, default in pairs}
    defaults = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    required = frozenset(argument.arg for argument, default in defaults if default is None)
    return Signature(parameters, required, is_open=arguments.kwarg is not None)


def _kind(module: str, annotation: ast.expr | None, default: ast.expr | None) -> Any:
    """What an argument may be: None too where that is the default; anything where the annotation cannot be read, as
    prose, ``tuple[()]`` and an alias that names itself cannot.
    """
    try:
        kind = _annotation(module, annotation)
    except (SyntaxError, TypeError, RecursionError):
        return Any
    return _any_of([kind, None]) if isinstance(default, ast.Constant) and default.value is None else kind


def _annotation(module: str, expression: ast.expr | None) -> Any:
    """What an annotation in the source of a module means: numbers, texts, lists of them, and ``Literal``. The names in
    ``Annotated[str, tuple(TABLE)]``, a dictionary's keys, are kept as its metadata. Any where the source does not tell.
    """
    match expression:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return _annotation(module, ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _any_of([_annotation(module, left), _annotation(module, right)])
        case ast.Subscript(value=ast.Name(id=outer), slice=inner):
            members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _subscripted(module, outer, members)
        case ast.Name(id=name) if name in BUILTINS and name not in _names(module):
            return BUILTINS[name]
        case ast.Name(id=name) if not _is_class_of_library(module, name):
            match _lookup(module, name):
                case (where, ast.Assign(value=value)):
                    return _annotation(where, value)
    return Any


def _is_class_of_library(module: str, name: str) -> bool:
    """Whether a name that a module uses is a library's and spelled as a class (PEP 8), which is no type to read on: its
    module, such as torch's own, takes long to parse.
    """
    statement = _names(module).get(name)
    if isinstance(statement, ast.ImportFrom):
        module, name = own.origin(statement, name, module, is_package=bool(_folders(module)))
    return is_library(module) and not name.strip("_").isupper()


def _subscripted(module: str, outer: str, members: Sequence[ast.expr]) -> Any:
    constants = [member.value for member in members if isinstance(member, ast.Constant)]
    if outer == "Literal" and len(constants) == len(members):
        return Literal[tuple(constants)]
    if outer == "Annotated" and (table := re.fullmatch(r"tuple\((\w+)\)", ast.unparse(members[1]))):
        match _lookup(module, table[1]):
            case (_, ast.Assign(value=ast.Dict(keys=keys))):
                return Annotated[str, tuple(key.value for key in keys if isinstance(key, ast.Constant))]
    if outer in (*LISTS, "Optional", "Union"):
        kinds = [_annotation(module, member) for member in members if ast.unparse(member) != "..."]
        if outer in LISTS:
            return list[_any_of(kinds)]  # type: ignore[misc]
        return _any_of([*kinds, *([None] if outer == "Optional" else [])])
    return Any


def _any_of(kinds: Sequence[Any]) -> Any:
    return Any if Any in kinds else Union[tuple(kinds)]  # noqa: UP007  (of any objects)


def _locate(target: str) -> tuple[str, Definition] | None:
    module, *names = target.split(".")
    if _spec(module) is None:
        if module in sys.modules:  # the cells of a notebook
            return None
        raise LookupError(f"there is no package {module}; if it is a missing dependency, install it")
    while names and _spec(f"{module}.{names[0]}") is not None:
        module = f"{module}.{names.pop(0)}"
    match _lookup(module, names[0]) if len(names) == 1 else None:
        case (where, ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() as definition):
            return where, definition
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
    source, original = own.origin(statement, name, module, is_package=bool(_folders(module)))
    return _lookup(source, original, seen | {(module, name)}) if source and _spec(source) else None


def _names(module: str) -> Mapping[str, ast.stmt]:
    spec = _spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return {}
    return own.statements(Path(spec.origin))


def _spec(module: str) -> ModuleSpec | None:
    """As importlib's find_spec, which would import the parents; it also finds what lies beside ``train.py``."""
    file = own.source(module)
    return _spec_on_path(module) if file is None else spec_from_file_location(module, file)


@cache
def _spec_on_path(module: str) -> ModuleSpec | None:
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
