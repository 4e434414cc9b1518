"""The rooms of the house and their order, read from the imports of every module.

Imports inside functions and under ``TYPE_CHECKING`` count too, unless a table says why
they may not: a circle that is only opened late is still a circle to its reader.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jupyter_aistack

PACKAGE = "jupyter_aistack"
ROOT = Path(jupyter_aistack.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

CORE = {"exceptions", "core"}
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "exceptions": set(),
    "core": CORE,
    "system": CORE | {"system"},
    "ledger": CORE | {"ledger"},
    "providers": CORE | {"system", "providers"},
    "broker": CORE | {"system", "ledger", "providers", "broker"},
    "config": CORE | {"system", "ledger", "providers", "broker"},
    "kernel": CORE | {"system", "broker", "config", "kernel"},
    "server": CORE
    | {"_version", "system", "broker", "providers", "config", "kernel", "server"},
    "client": CORE | {"system", "client"},
    "tracking": CORE | {"client", "tracking"},
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
    "cli": {"config", "ledger", "providers"},
}
"""Rooms or modules that may import more, inside functions only: the embedded transport
is the one door from the using side to the granting side, and the command line opens
what it speaks of."""

IN_ARRAYS = {"cluster_state.py", "fragmentation.py", "scarcity.py"}
"""Modules of ``core/placement`` that work in numpy; no other module of the core does."""

HOMES = {
    "IPython": {"magics", "notebook", "tracking", "client"},
    "amdsmi": {"providers/amd"},
    "anywidget": {"notebook/widgets"},
    "cuda": {"providers/nvidia/checkpoint"},
    "dask": {"compute"},
    "distributed": {"compute"},
    "jupyter_client": {"kernel", "cli"},
    "jupyter_server": {"server"},
    "mlflow": {"tracking"},
    "pynvml": {"providers/nvidia"},
    "sqlalchemy": {"ledger/sql"},
    "torch": {"client/offload", "client/runtime", "compute"},
    "tornado": {"kernel", "server"},
}
"""Where a third-party library may be imported."""


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(name: str) -> str:
    """The room of a path below the package, or of a dotted name below it."""
    return name.replace(".", "/").split("/")[0].removesuffix(".py") or "__init__"


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path): path for path in MODULES}


def imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Dotted names that a module imports, absolute; without ``lazy``, at its top only."""
    tree = ast.parse(path.read_text())
    package = (PACKAGE, *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own_imports(path: Path, *, lazy: bool = True) -> set[str]:
    """The modules of this package that a module imports."""
    found = set()
    for name in imports(path, lazy=lazy):
        while name and name not in NAMES:
            name = name.rpartition(".")[0]
        if name:
            found.add(name)
    return found - {module_name(path)}


def rooms_imported(path: Path, *, lazy: bool = True) -> set[str]:
    names = own_imports(path, lazy=lazy)
    return {room_of(NAMES[name]) for name in names}


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_every_module_imports_only_what_its_room_may(path: Path) -> None:
    assert room_of(path) in MAY_IMPORT, "a module in no room: name its room here"
    allowed = MAY_IMPORT[room_of(path)]
    lazily = allowed | LAZILY.get(place(path), LAZILY.get(room_of(path), set()))
    assert rooms_imported(path, lazy=False) <= allowed
    assert rooms_imported(path) <= lazily


def test_no_module_imports_itself_through_others() -> None:
    arrows = {name: own_imports(path) for name, path in NAMES.items()}
    while True:
        ends = {name for name, wanted in arrows.items() if not wanted & arrows.keys()}
        if not ends:
            break
        for name in ends:
            del arrows[name]
    assert sorted(arrows) == []


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room_of(path) == "core"], ids=place
)
def test_the_core_takes_the_standard_library_only(path: Path) -> None:
    libraries = {name.partition(".")[0] for name in imports(path)}
    others = libraries - set(sys.stdlib_module_names) - {PACKAGE}
    assert others == ({"numpy"} if path.name in IN_ARRAYS else set())


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_each_library_has_one_home(path: Path) -> None:
    for name in imports(path):
        library = name.partition(".")[0]
        homes = HOMES.get(library)
        is_home = homes is None or place(path).startswith(tuple(homes))
        assert is_home, f"{library} does not live here"
