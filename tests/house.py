"""The rooms of the house: what each may import, and what its modules do import.

Read from the source, so that imports inside functions and under ``TYPE_CHECKING`` count
too: a circle that is only opened late is still a circle to its reader.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import jupyter_aistack

PACKAGE = "jupyter_aistack"
PACKAGE_ROOT = Path(jupyter_aistack.__file__).parent
MODULES = sorted(PACKAGE_ROOT.rglob("*.py"))

CORE = {"exceptions", "core"}
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "exceptions": set(),
    "core": CORE,
    "system": CORE | {"_version", "system"},
    "ledger": CORE | {"system", "ledger"},
    "providers": CORE | {"system", "providers"},
    "broker": CORE | {"system", "ledger", "providers", "broker"},
    "config": CORE | {"system", "ledger", "providers", "broker", "config"},
    "hostbroker": CORE
    | {"_version", "system", "ledger", "broker", "config", "hostbroker"},
    "kernel": CORE | {"system", "broker", "config", "kernel"},
    "server": CORE
    | {"_version", "system", "broker", "providers", "config", "kernel", "server"},
    "client": CORE | {"system", "client"},
    "hub": CORE | {"_version", "system", "client", "hub"},
    "tracking": CORE | {"system", "client", "tracking"},
    "compute": CORE | {"system", "client", "tracking", "compute"},
    "notebook": CORE | {"system", "client", "tracking", "compute", "notebook"},
    "magics": {"client", "notebook"},
    "cli": CORE | {"_version", "system", "client", "cli"},
    "testing": CORE | {"ledger", "providers", "broker"},
    "__init__": {"_version", "server"},
}
"""What each room may import. A module in no room fails."""

LAZILY: dict[str, set[str]] = {
    "client/embedded.py": {"broker", "config"},
    "cli": {"config", "hostbroker", "ledger", "providers"},
}
"""Rooms or modules that may import more, inside functions only: the embedded transport
is the one door from the using side to the granting side, and the command line opens
what it speaks of."""


def place(path: Path) -> str:
    """Where a module lies, seen from the package: ``core/model/lease.py``."""
    return path.relative_to(PACKAGE_ROOT).as_posix()


def room_of(path: Path) -> str:
    """The first folder below the package, or the name of a loose module."""
    return path.relative_to(PACKAGE_ROOT).parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    """The dotted name a module is imported by."""
    parts = [PACKAGE, *path.relative_to(PACKAGE_ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path): path for path in MODULES}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax, parsed once for all tests."""
    return ast.parse(path.read_text())


def imported(
    tree: ast.Module, package: tuple[str, ...], *, lazy: bool = True
) -> Iterator[str]:
    """Absolute dotted names that a module in `package` imports; without `lazy`, at its
    top only.
    """
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@functools.cache
def imports(path: Path, *, lazy: bool = True) -> frozenset[str]:
    """Absolute dotted names that a module of the package imports."""
    package = (PACKAGE, *path.relative_to(PACKAGE_ROOT).parts[:-1])
    return frozenset(imported(tree_of(path), package, lazy=lazy))


def module_of(name: str) -> str | None:
    """The module of this package that a dotted name belongs to; None for others'."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name or None


def own_imports(path: Path, *, lazy: bool = True) -> set[str]:
    """The modules of this package that a module imports, itself left out."""
    modules = {module_of(name) for name in imports(path, lazy=lazy)}
    return {name for name in modules if name} - {module_name(path)}


def rooms_imported(path: Path, *, lazy: bool = True) -> set[str]:
    """The rooms that a module imports from, its own included."""
    return {room_of(NAMES[name]) for name in own_imports(path, lazy=lazy)}


def against_the_order(path: Path) -> set[str]:
    """The rooms that a module imports from and may not."""
    room = room_of(path)
    allowed = MAY_IMPORT.get(room, set())
    lazily = allowed | LAZILY.get(place(path), LAZILY.get(room, set()))
    at_top = rooms_imported(path, lazy=False) - allowed
    return at_top | (rooms_imported(path) - lazily)


def in_circles(arrows: Mapping[str, set[str]]) -> list[str]:
    """Those that reach themselves along `arrows`, or lie between two that do."""
    left = {name: set(targets) for name, targets in arrows.items()}
    while True:
        targets = set().union(*left.values())
        ends = {name for name in left if name not in targets or not left[name]}
        if not ends:
            return sorted(left)
        left = {name: left[name] - ends for name in left.keys() - ends}


def module_circles() -> list[str]:
    """Modules that import themselves through others."""
    return in_circles({name: own_imports(path) for name, path in NAMES.items()})
