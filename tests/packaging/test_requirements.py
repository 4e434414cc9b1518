"""What the project asks for: light when bare, all of it declared, and pinned as it was
tested.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import (
    PackageNotFoundError,
    distribution,
    packages_distributions,
)
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PINNED = {
    "torch": "2.13.0",
    "dask": "2026.7.1",
    "distributed": "2026.7.1",
    "dask-cuda": "26.10.0",
    "mlflow": "3.17.2",
    "mlflow-skinny": "3.17.2",
    "mlflow-tracing": "3.17.2",
}
OLDEST_PYTHON = "3.11.2"
"""That of Debian 12."""
# Spoken to when the user's own environment has them; never asked for.
GUESTS = {"amdsmi", "cupy", "jax", "rmm", "tensorflow", "threadpoolctl"}


def requirements(pyproject: dict[str, Any], *extras: str) -> list[Requirement]:
    """The bare requirements and those of `extras`, without the references to our own
    extras.
    """
    project = pyproject["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]
    return [
        Requirement(line) for line in lines if not line.startswith("jupyter_aistack[")
    ]


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def brought_in(requirement: Requirement, seen: set[str]) -> set[str]:
    """`seen` and every distribution that installing `requirement` here brings, directly
    or not.
    """
    name = canonicalize_name(requirement.name)
    if name in seen:
        return seen
    seen.add(name)
    try:
        needs = [Requirement(line) for line in distribution(name).requires or []]
    except PackageNotFoundError:
        return seen
    for need in needs:
        if need.marker is None or any(
            need.marker.evaluate({"extra": extra})
            for extra in ("", *requirement.extras)
        ):
            brought_in(need, seen)
    return seen


def test_bare_install_brings_in_nothing_heavy(pyproject: dict[str, Any]) -> None:
    everything: set[str] = set()
    for requirement in requirements(pyproject):
        brought_in(requirement, everything)
    assert "jupyter-server" in everything
    assert not everything & {
        "torch",
        "dask",
        "distributed",
        "mlflow",
        "numpy",
        "pandas",
        "jupyterlab",
        "anywidget",
    }
    assert len(everything) < 100


def test_constraints_are_plain_pins(root: Path) -> None:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wrong = [
        line
        for line in lines
        if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)
    ]
    assert not wrong


def test_constraints_hold_the_versions_that_go_together(pins: dict[str, str]) -> None:
    assert {name: pins[name] for name in PINNED} == PINNED
    assert pins["cuda-bindings"].startswith("13.")


def test_constraints_serve_the_oldest_python_that_is_in_use(
    pins: dict[str, str],
) -> None:
    wrong = []
    for name, version in pins.items():
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        allowed = SpecifierSet(installed.metadata.get("Requires-Python") or "")
        if installed.version == version and OLDEST_PYTHON not in allowed:
            wrong.append(f"{name} {version} needs Python {allowed}")
    assert not wrong


def test_every_requirement_is_pinned_within_what_it_allows(
    pyproject: dict[str, Any], pins: dict[str, str]
) -> None:
    extras = list(pyproject["project"]["optional-dependencies"])
    wrong = [
        f"{requirement}: {pins.get(canonicalize_name(requirement.name), 'not pinned')}"
        for requirement in requirements(pyproject, *extras)
        if not requirement.specifier.contains(
            pins.get(canonicalize_name(requirement.name), "0")
        )
    ]
    assert not wrong


def imported_modules(folder: Path) -> Iterator[tuple[str, str]]:
    """Every absolute import in `folder`, at any depth, as (file, top-level module)."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            yield from ((file.name, name.partition(".")[0]) for name in names)


def test_every_library_that_is_imported_is_declared(
    root: Path, pyproject: dict[str, Any]
) -> None:
    extras = [
        name for name in pyproject["project"]["optional-dependencies"] if name != "test"
    ]
    declared = {
        canonicalize_name(requirement.name)
        for requirement in requirements(pyproject, *extras)
    }
    known = packages_distributions()
    undeclared = {
        f"{file}: {module}"
        for file, module in imported_modules(root / "jupyter_aistack")
        if module not in sys.stdlib_module_names | GUESTS | {"jupyter_aistack"}
        and not {canonicalize_name(name) for name in known.get(module, [])} & declared
    }
    assert not undeclared
