"""Whom an MPS server works for."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.accounting.measurement import activity_by_process
from jupyter_aistack.core.accounting.mps_service import MPSService

A = frozenset({11, 12})
B = frozenset({21})


def service(**clients: float) -> MPSService:
    return MPSService(
        leases=frozenset({"l-a", "l-b"}),
        servers=frozenset({7}),
        clients={f"l-{name}": share for name, share in clients.items()},
    )


def test_work_is_an_estimate_where_it_is_divided_among_several_clients() -> None:
    several = service(a=0.5, b=0.25)
    assert several.estimated(0.8) == {"l-a", "l-b"}
    assert several.estimated(0.0) == frozenset(), "there is nothing to divide"
    assert service(a=0.5).estimated(0.8) == frozenset()


def test_what_an_mps_server_does_is_its_clients_work() -> None:
    pids = {"l-a": A, "l-b": B}
    alone = activity_by_process({7: 0.8}, pids, service(a=0.25))
    assert alone == ({"l-a": pytest.approx(0.8), "l-b": 0.0}, 0.0)
    shared = activity_by_process({7: 0.8}, pids, service(a=0.5, b=0.25))
    assert shared[0] == {
        "l-a": pytest.approx(0.8 * 2 / 3),
        "l-b": pytest.approx(0.8 / 3),
    }
    beside = activity_by_process({7: 0.4, 99: 0.2}, pids, service(a=0.25))
    assert beside == ({"l-a": pytest.approx(0.4), "l-b": 0.0}, pytest.approx(0.2))
    left = activity_by_process({7: 0.8}, pids, service())
    assert left == ({}, 0.8), "whoever it worked for has left"
