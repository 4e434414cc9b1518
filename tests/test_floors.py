"""The floors of the house, read from the imports themselves."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jupyter_aistack

ROOT = Path(jupyter_aistack.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py"))
GRANTING = {
    "bookkeeper",
    "broker",
    "checkpoint",
    "config",
    "cutting",
    "devices",
    "faults",
    "kernel",
    "ledger",
    "policies",
    "providers",
    "reports",
    "residing",
    "server",
    "service",
    "sight",
    "watch",
    "suspending",
}
USING = {
    "client",
    "held",
    "transports",
    "attach",
    "caps",
    "clusters",
    "frameworks",
    "training",
    "tracking",
    "magics",
    "notebook",
    "notices",
    "offload",
    "widgets",
}
IN_ARRAYS = {"fleet", "fragmentation", "scarcity"}
"""Modules of the core that work in numpy; the others open them at first use only."""
HOMES = {
    "sqlalchemy": {"ledger"},
    "pynvml": {"providers"},
    "amdsmi": {"providers"},
    "cuda": {"checkpoint"},
    "tornado": {"server", "kernel"},
    "jupyter_server": {"server"},
    "jupyter_client": {"kernel", "cli", "demo"},
    "distributed": {"clusters", "training"},
    "dask": {"clusters", "training"},
    "torch": {"training", "attach", "offload"},
    "mlflow": {"tracking"},
    "anywidget": {"widgets"},
}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Dotted names a module imports, relative ones made absolute; without ``lazy``, only those at its top."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else tree.body
    package = ("jupyter_aistack", *path.relative_to(ROOT).parts[:-1])
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def parts_imported(path: Path, *, lazy: bool = True) -> set[str]:
    return {name.split(".")[1] for name in imported(path, lazy=lazy) if name.startswith("jupyter_aistack.")}


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) == "core"], ids=lambda p: p.stem)
def test_the_core_takes_the_standard_library_only(path: Path) -> None:
    others = {name.partition(".")[0] for name in imported(path)} - set(sys.stdlib_module_names) - {"jupyter_aistack"}
    assert others == ({"numpy"} if path.stem in IN_ARRAYS else set())
    assert not {name.rpartition(".")[2] for name in imported(path, lazy=False)} & IN_ARRAYS or path.stem in IN_ARRAYS
    assert parts_imported(path) <= {"core", "exceptions"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_two_towers_never_import_each_other(path: Path) -> None:
    part, wanted = part_of(path), parts_imported(path, lazy=False)
    if part in GRANTING:
        assert not wanted & USING
    if part in USING:
        assert not wanted & GRANTING
        door = {"broker", "config", "service"} if part == "transports" else set()
        assert not (parts_imported(path) & GRANTING) - door


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_library_has_one_home(path: Path) -> None:
    for name in imported(path):
        library = name.partition(".")[0]
        assert part_of(path) in HOMES.get(library, {part_of(path)}), f"{library} does not live here"
