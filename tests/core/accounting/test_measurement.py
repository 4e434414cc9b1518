"""Whose use it is: how a sample is divided among leases."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.accounting.measurement import activity_by_process
from jupyter_aistack.core.accounting.mps_service import MPSService

A = frozenset({11, 12})
B = frozenset({21})


def test_work_that_an_mps_server_may_hide_is_unknown_and_not_zero() -> None:
    pids = {"l-a": A, "l-b": B}
    behind = MPSService(leases=frozenset({"l-a"}))
    assert activity_by_process({7: 0.5}, pids, behind) == ({"l-b": 0.0}, 0.5)
    assert activity_by_process({7: 0.5, 11: 0.1}, pids, behind) == (
        {"l-a": 0.1, "l-b": 0.0},
        0.5,
    )
    both = MPSService(leases=frozenset({"l-a", "l-b"}))
    assert activity_by_process({}, pids, both) == ({"l-a": 0.0, "l-b": 0.0}, 0.0)


def test_shares_of_time_never_add_up_to_more_than_the_gpu() -> None:
    busy, others = activity_by_process(
        {11: 0.9, 21: 0.9, 99: 0.2}, {"l-a": A, "l-b": B}
    )
    assert busy == {"l-a": pytest.approx(0.45), "l-b": pytest.approx(0.45)}
    assert others == pytest.approx(0.1)
    assert activity_by_process({}, {"l-a": A}, whole=0.3) == ({"l-a": 0.0}, 0.3)
    assert activity_by_process(None, {"l-a": A}) == ({}, None)
