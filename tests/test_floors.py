"""The rooms of the house and their order; `tests.house` has the tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.house import (
    MAY_IMPORT,
    MODULES,
    PACKAGE,
    against_the_order,
    imports,
    in_circles,
    module_circles,
    place,
    room_of,
)

IN_ARRAYS = {"cluster_state.py", "fragmentation.py", "scarcity.py", "slots.py"}
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


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_every_module_imports_only_what_its_room_may(path: Path) -> None:
    assert room_of(path) in MAY_IMPORT, "a module in no room: name its room"
    assert against_the_order(path) == set()


def test_no_module_imports_itself_through_others() -> None:
    assert module_circles() == []


def test_a_circle_is_told_from_what_leads_to_it() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert in_circles(arrows) == ["b", "c"]
    assert in_circles({"a": {"b"}, "b": set()}) == []


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
