"""Which leases count as used, from what was seen of kernels and devices."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from jupyter_aistack.core.model.device import Enforcement, Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease, Notice, NoticeKind
from jupyter_aistack.core.model.policy import IdlePolicy, Policy, Queue
from jupyter_aistack.core.model.request import HolderKind
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.scheduling.activity import ActivitySample, to_touch
from jupyter_aistack.testing import holder

NOW = 1000.0
POLICY = Policy()
ON_GPU = Slice(
    device_id="GPU-0", kind=SliceKind.SHARE, fraction=Fraction(1, 4), memory_bytes=1
)
ON_CPU = Slice(
    device_id="CPU-box", kind=SliceKind.CPU, fraction=Fraction(1, 4), memory_bytes=1
)


def lease(
    name: str = "kernel-1", *, parent: str = "", slice_: Slice = ON_GPU, **fields: Any
) -> Lease:
    text = {"active_at": NOW - 600, **fields}
    return Lease(
        id=f"l-{name}",
        token=1,
        request_id="r-1",
        spec=parse_spec("1/4"),
        holder=holder(name, parent=parent),
        slices=(slice_,),
        granted_at=0.0,
        expires_at=2000.0,
        **text,
    )


def touched(
    *leases: Lease,
    busy: str = "",
    usage: dict[str, float | None] | None = None,
    memory_bytes: int | None = None,
    policy: Policy = POLICY,
) -> list[str]:
    used = {each.id: 0.0 for each in leases} | (usage or {})
    seen = ActivitySample(
        user="ann",
        kernels=frozenset({"kernel-1", "kernel-2"}),
        busy=frozenset(busy.split()),
        usage={
            i: Usage(utilization=share, memory_bytes=memory_bytes)
            for i, share in used.items()
        },
    )
    return to_touch(leases, seen, policy, NOW)


STRANGERS = {
    "of_another_user": {"user": "ben"},
    "a_worker_called_alike": {"kind": HolderKind.WORKER, "parent": "kernel-9"},
    "a_run_called_alike": {"kind": HolderKind.RUN},
    "a_worker_of_another_users_kernel": {
        "user": "ben",
        "kind": HolderKind.WORKER,
        "id": "w",
        "parent": "kernel-1",
    },
}


@pytest.mark.parametrize("fields", STRANGERS.values(), ids=STRANGERS)
def test_what_is_only_called_like_a_kernel_is_not_watched_and_says_nothing_of_it(
    fields: dict[str, Any],
) -> None:
    stranger = replace(lease(), id="l-2", holder=holder(**fields))
    unseen = replace(stranger, active_at=None)
    assert touched(unseen) == []
    assert touched(lease(), stranger, usage={"l-2": 0.9}) == []


def test_a_kernel_that_runs_something_uses_its_lease_and_no_other() -> None:
    assert touched(lease("kernel-1"), lease("kernel-2"), busy="kernel-1") == [
        "l-kernel-1"
    ]


def test_an_open_notebook_in_which_nothing_runs_is_no_use() -> None:
    assert touched(lease()) == []


def test_a_lease_of_a_kernel_is_watched_from_the_moment_it_is_seen() -> None:
    assert touched(lease(active_at=None)) == ["l-kernel-1"]


def test_what_this_server_does_not_run_is_not_watched() -> None:
    script = lease("pid-7", active_at=None)
    assert touched(script, usage={"l-pid-7": 1.0}) == []


@pytest.mark.parametrize(
    ("slice_", "share", "is_use"),
    [
        (ON_GPU, 0.02, True),
        (ON_GPU, 0.01, False),
        (ON_GPU, 0.0, False),
        (ON_GPU, None, True),
        (ON_CPU, 0.04, False),
        (ON_CPU, 0.5, True),
        (ON_CPU, None, True),
    ],
)
def test_a_device_that_works_is_use_though_no_cell_runs(
    slice_: Slice, share: float | None, is_use: bool
) -> None:
    assert bool(touched(lease(slice_=slice_), usage={"l-kernel-1": share})) is is_use


def test_work_that_cannot_be_seen_is_use_where_a_process_can_do_it() -> None:
    unseen = {"l-kernel-1": None}
    assert touched(lease(), usage=unseen, memory_bytes=1) == ["l-kernel-1"]
    assert touched(lease(), usage=unseen, memory_bytes=0) == [], "it opened no GPU"
    nothing = ActivitySample(
        user=holder("kernel-1").user, kernels=frozenset({"kernel-1"})
    )
    assert to_touch([lease()], nothing, POLICY, NOW) == ["l-kernel-1"], "not sampled"


def test_what_a_simulated_device_shows_is_no_use() -> None:
    simulated = lease(enforced_by=Enforcement.SIMULATED)
    assert touched(simulated, usage={"l-kernel-1": 0.9}) == []


def test_a_kernel_and_its_workers_are_in_use_together() -> None:
    both = lease("kernel-1"), lease("worker-0", parent="kernel-1")
    assert touched(*both, busy="kernel-1") == ["l-kernel-1", "l-worker-0"]
    assert touched(*both, usage={"l-worker-0": 0.9}) == [
        "l-kernel-1",
        "l-worker-0",
    ]


def test_use_is_noted_once_a_minute() -> None:
    assert touched(lease(active_at=NOW - 59), busy="kernel-1") == []
    assert touched(lease(active_at=NOW - 60), busy="kernel-1") == ["l-kernel-1"]


def test_use_is_noted_more_often_where_leases_are_idle_sooner() -> None:
    soon = IdlePolicy(badge_seconds=4, notice_seconds=5, reclaim_seconds=6)
    policy = Policy(queues=(Queue(name="default", idle=soon),))
    assert touched(lease(active_at=NOW - 1), busy="kernel-1", policy=policy) == [
        "l-kernel-1"
    ]


def test_use_after_an_idle_notice_is_noted_at_once() -> None:
    notice = Notice(kind=NoticeKind.IDLE, at=NOW - 2, ends_at=NOW + 5)
    used = lease(active_at=NOW - 3, notice=notice)
    assert touched(used, busy="kernel-1") == ["l-kernel-1"]
    assert touched(used) == []
