"""Whether a cell may use the GPU, judged by its text and by the values of its names;
nothing is run.

A cell that cannot is not held up while its lease is suspended. What is not known for
sure counts as a use: to resume a lease for nothing costs a second, a cell that runs
without it costs its user the cell.
"""

from __future__ import annotations

import ast
import dis
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

CPU_ONLY = frozenset(sys.stdlib_module_names) | {
    "IPython", "PIL", "dateutil", "ipywidgets", "matplotlib", "numpy", "packaging", "psutil", "pytz", "requests",
    "scipy", "seaborn", "tqdm", "traitlets", "yaml",
}  # fmt: skip
"""Libraries that use no GPU by themselves."""
CPU_UNLESS_ACCELERATED = frozenset({"pandas", "polars"})
"""Libraries that cuDF may stand in for."""
DATA = frozenset(
    {
        "PIL",
        "datetime",
        "dateutil",
        "decimal",
        "fractions",
        "matplotlib",
        "numpy",
        "pandas",
        "pathlib",
        "polars",
    }
    | {"pytz", "random", "re", "requests", "scipy", "time", "uuid", "zoneinfo"}
)
"""Libraries whose objects hold nothing of others."""
HARMLESS_MAGICS = frozenset(
    {
        "autoreload",
        "cd",
        "config",
        "env",
        "gpu",
        "load_ext",
        "ls",
        "matplotlib",
        "pip",
        "pwd",
        "who",
        "whos",
    }
)
RUNS_ANYTHING = frozenset(
    {"__import__", "compile", "eval", "exec", "globals", "locals", "vars"}
)
MAX_VALUES = 2000
"""Values that are inspected; beyond that it is not known."""

_PLAIN = (
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    bool,
    type(None),
    type(...),
    range,
    slice,
    object,
)
_CONTAINERS = (list, tuple, set, frozenset, deque)
_DESCRIPTORS = (
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.WrapperDescriptorType,
)


def may_use_gpu(code: str, namespace: Mapping[str, Any]) -> bool:
    """Whether running `code` (as Python, magics transformed) with `namespace` as its
    globals may use the GPU.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return False  # it will not run
    inspection = _Inspection(namespace)
    try:
        for name in _names(tree):
            inspection.check_name(name)
    except (_Unknown, RecursionError):
        return True
    return False


class _Unknown(Exception):
    """It may."""


def _is_plain(value: Any) -> bool:
    """Whether a value holds nothing of others."""
    return type(value) in _PLAIN or isinstance(value, _DESCRIPTORS)


class _Inspection:
    """Which values have been inspected. Its methods raise `_Unknown` unless what they
    are given has no way to a GPU.
    """

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self._namespace = namespace
        self._seen: set[int] = set()

    def check_name(self, name: str) -> None:
        if name in RUNS_ANYTHING:
            raise _Unknown
        if name in self._namespace:
            self._check(self._namespace[name])

    def _check(self, value: Any) -> None:
        if id(value) in self._seen or _is_plain(value):
            return
        self._seen.add(id(value))
        if len(self._seen) > MAX_VALUES:
            raise _Unknown
        if isinstance(value, types.ModuleType):
            _check_library(value.__name__)
        elif isinstance(value, dict):
            self._check_all([*value.keys(), *value.values()])
        elif isinstance(value, _CONTAINERS):
            self._check_all(value)
        elif isinstance(value, type):
            self._check_class(value)
        else:
            self._check_other(value)

    def _check_all(self, values: Iterable[Any]) -> None:
        for value in list(values):
            self._check(value)

    def _check_other(self, value: Any) -> None:
        if isinstance(value, types.FunctionType):
            self._check_function(value)
        elif isinstance(value, types.MethodType):
            self._check_all([value.__self__, value.__func__])
        elif isinstance(value, types.BuiltinFunctionType):
            self._check(value.__self__)
        elif isinstance(value, property):
            self._check_all([value.fget, value.fset, value.fdel])
        elif isinstance(value, (staticmethod, classmethod)):
            self._check(value.__func__)
        else:
            self._check_object(value)

    def _check_function(self, function: types.FunctionType) -> None:
        """A user's function is followed through the names it uses; a library's is as
        good as its library.
        """
        if function.__globals__ is not self._namespace:
            _check_library(function.__module__ or "?")
            return
        for name in _names_of(function.__code__):
            self.check_name(name)
        cells = [
            cell.cell_contents
            for cell in function.__closure__ or ()
            if _is_filled(cell)
        ]
        self._check_all(
            [
                *cells,
                *(function.__defaults__ or ()),
                *(function.__kwdefaults__ or {}).values(),
            ]
        )

    def _check_class(self, value: type) -> None:
        if value.__module__ != self._namespace.get("__name__", "__main__"):
            _check_library(value.__module__)
            return
        self._check_all(
            part
            for name, part in vars(value).items()
            if not name.startswith("__") or callable(part)
        )
        self._check_all(value.__bases__)

    def _check_object(self, value: Any) -> None:
        """A user's object is inspected; an object of a library is trusted where such
        objects hold nothing of others.
        """
        home = type(value).__module__
        if home == self._namespace.get("__name__", "__main__"):
            self._check(type(value))
            self._check(getattr(value, "__dict__", None))
            return
        _check_library(home)
        # An array of Python objects may hold anything.
        holds_objects = str(getattr(value, "dtype", "")) == "object"
        if home.partition(".")[0] not in DATA or holds_objects:
            raise _Unknown


def _check_library(name: str) -> None:
    root = name.partition(".")[0]
    if root in CPU_ONLY:
        return
    if root not in CPU_UNLESS_ACCELERATED or "cudf" in sys.modules:
        raise _Unknown


def _names(tree: ast.AST) -> Iterator[str]:
    """Names that the code reads, sets or deletes: what is deleted may hold the
    device.
    """
    harmless: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_harmless_magic(node):
            harmless.update(ast.walk(node))
        if isinstance(node, ast.Import):
            for alias in node.names:
                _check_library(alias.name)
        elif isinstance(node, ast.ImportFrom):
            _check_library(node.module or "?")
        elif isinstance(node, ast.Name) and node not in harmless:
            yield node.id


def _is_harmless_magic(call: ast.Call) -> bool:
    match call:
        case ast.Call(
            func=ast.Attribute(attr="run_line_magic"),
            args=[ast.Constant(str(name)), *_],
        ):
            return name in HARMLESS_MAGICS
    return False


def _names_of(code: types.CodeType) -> Iterator[str]:
    """Global names that a function's code uses, those of functions inside it included.
    Raises where it imports.
    """
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            _check_library(str(step.argval))
        elif step.opname.endswith(("_GLOBAL", "_NAME")):
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_of(constant)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True
