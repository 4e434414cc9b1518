"""The rooms of the house and their order; `tests.house` has the tables."""

from __future__ import annotations

import sys
from pathlib import Path

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
    "jeepney": {"system/device_scopes"},
    "jupyter_client": {"kernel", "cli"},
    "jupyter_server": {"server"},
    "jupyterhub": {"hub"},
    "mlflow": {"tracking"},
    "psycopg": {"ledger/sql"},
    "pynvml": {"providers/nvidia"},
    "sqlalchemy": {"ledger/sql"},
    "torch": {"client/offload", "client/runtime", "compute"},
    "tornado": {"hub", "kernel", "server"},
}
"""Where a third-party library may be imported."""


def test_every_module_is_in_a_room_and_imports_only_what_that_may() -> None:
    assert [place(path) for path in MODULES if room_of(path) not in MAY_IMPORT] == []
    wrong = {place(path): against_the_order(path) for path in MODULES}
    assert {name: rooms for name, rooms in wrong.items() if rooms} == {}


def test_no_module_imports_itself_through_others() -> None:
    assert module_circles() == []


def test_a_circle_is_told_from_what_leads_to_it() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert in_circles(arrows) == ["b", "c"]
    assert in_circles({"a": {"b"}, "b": set()}) == []


def libraries_of(path: Path) -> set[str]:
    """What a module imports that is neither Python's own nor ours."""
    libraries = {name.partition(".")[0] for name in imports(path)}
    return libraries - set(sys.stdlib_module_names) - {PACKAGE}


def test_the_core_takes_the_standard_library_only() -> None:
    core = [path for path in MODULES if room_of(path) == "core"]
    taken = {place(path): libraries_of(path) for path in core}
    assert {name: others for name, others in taken.items() if others} == {
        place(path): {"numpy"} for path in core if path.name in IN_ARRAYS
    }


def test_each_library_has_one_home() -> None:
    strays = [
        f"{place(path)}: {library}"
        for path in MODULES
        for library in libraries_of(path) & HOMES.keys()
        if not place(path).startswith(tuple(HOMES[library]))
    ]
    assert strays == []
