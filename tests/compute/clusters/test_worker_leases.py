"""How long a worker waits for its slice, and how it gives it back."""

from __future__ import annotations

import asyncio
import threading
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_aistack.compute.clusters import worker_leases
from jupyter_aistack.compute.clusters.worker_leases import WorkerLeases
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import AcquireTimeout, ClusterError
from jupyter_aistack.system import cgroup
from jupyter_aistack.system.cgroup import MemoryGroup
from tests.fakes.waiting import until


class Lease:
    """A request that is granted at the `granted_after`-th refresh."""

    def __init__(self, granted_after: int | None = None) -> None:
        self.spec = "1/4"
        self.reason = "no slice is free"
        self.state = "queued"
        self.request = {"state": "queued"}
        self.granted_after = granted_after
        self.refreshes = 0
        self.releases = 0

    @property
    def is_granted(self) -> bool:
        is_due = self.granted_after is not None and self.refreshes >= self.granted_after
        return is_due and not self.releases

    def refresh(self) -> Lease:
        self.refreshes += 1
        return self

    def release(self) -> Lease:
        self.releases += 1
        return self


class Host:
    """The client of a host with these leases."""

    def __init__(self, *, own: set[str], others: set[str]) -> None:
        self.own = own
        self.others = others

    def leases(self) -> list[dict[str, str]]:
        return [{"id": lease_id} for lease_id in self.own | self.others]

    def mine(self) -> dict[str, Any]:
        return {"leases": [{"id": lease_id} for lease_id in self.own]}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_leases, "FIRST_POLL_SECONDS", 0.001)
    monkeypatch.setattr(worker_leases, "LAST_POLL_SECONDS", 0.001)
    monkeypatch.setattr(worker_leases, "SELF_BLOCKED_SECONDS", 0.02)


def wait(
    lease: Lease,
    host: Host | None = None,
    *,
    timeout: float | None = None,
    is_wanted: bool = True,
) -> list[str]:
    """The reasons heard while waiting."""
    reasons: list[str] = []
    client: Any = host or Host(own=set(), others={"l-1"})
    leases = WorkerLeases(client, "1/4", queue="", timeout=timeout, cluster="c")

    async def pause(seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not is_wanted:
            raise ClusterError("worker 0 is no longer wanted")

    waiting = leases.await_grant(
        lease,  # type: ignore[arg-type]
        pause=pause,
        on_wait=reasons.append,
    )
    asyncio.run(waiting)
    return reasons


def test_a_request_is_waited_for_and_each_wait_has_a_reason() -> None:
    assert wait(Lease(granted_after=0)) == []
    assert wait(Lease(granted_after=2)) == ["no slice is free"] * 2


def test_a_timeout_ends_the_wait_with_its_reason() -> None:
    with pytest.raises(AcquireTimeout, match=r"^no slice is free$"):
        wait(Lease(), timeout=0.01)


def test_a_wait_for_own_leases_alone_is_given_up() -> None:
    with pytest.raises(AcquireTimeout, match="held by this notebook itself"):
        wait(Lease(), Host(own={"l-1", "l-2"}, others=set()))


def test_a_wait_for_anothers_lease_goes_on() -> None:
    assert len(wait(Lease(granted_after=40), Host(own={"l-1"}, others={"l-2"}))) == 40


def test_what_is_raised_in_a_pause_ends_the_wait() -> None:
    with pytest.raises(ClusterError, match="worker 0 is no longer wanted"):
        wait(Lease(), is_wanted=False)


def test_a_request_that_has_ended_is_named() -> None:
    lease = Lease()
    lease.request = {"state": "cancelled"}
    lease.state = "cancelled"
    with pytest.raises(ClusterError, match="was cancelled: no slice is free"):
        wait(lease)


def test_a_lease_granted_while_it_left_the_queue_is_released_too() -> None:
    class GrantedMeanwhile(Lease):
        def release(self) -> Lease:
            self.request = {"state": "granted"}
            return super().release()

    lease = GrantedMeanwhile()
    client: Any = Host(own=set(), others=set())
    leases = WorkerLeases(client, "1/4", queue="", timeout=None, cluster="c")
    asyncio.run(leases.release(lease))  # type: ignore[arg-type]
    assert (lease.releases, lease.refreshes) == (2, 1)


def test_live_leases_are_the_hosts() -> None:
    client: Any = Host(own={"l-1"}, others={"l-2"})
    leases = WorkerLeases(client, "1/4", queue="", timeout=None, cluster="c")
    assert asyncio.run(leases.live_ids()) == {"l-1", "l-2"}


def test_a_worker_on_a_gpu_has_its_share_of_the_containers_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = (MemoryGroup(limit=GIB, used=0),)
    monkeypatch.setattr(cgroup, "memory_groups", lambda *_: limited)
    gpus = [{"id": f"GPU-{n}", "kind": "gpu"} for n in range(2)]
    host = SimpleNamespace(host=lambda: {"devices": gpus})
    half = SimpleNamespace(device_id="GPU-0", fraction=Fraction(1, 2))
    lease: Any = SimpleNamespace(slices=(half,))
    client: Any = host
    leases = WorkerLeases(client, "1/2", queue="", timeout=None, cluster="c")
    assert asyncio.run(leases.host_memory_bytes(lease)) == GIB // 4


def test_a_request_of_a_caller_that_was_cancelled_is_kept_for_its_release() -> None:
    asked = threading.Event()
    answered = threading.Event()
    kept: list[object] = []

    class SlowHost(Host):
        def request(self, spec: str, **options: Any) -> Lease:
            asked.set()
            answered.wait(10)
            return Lease()

    async def cancel_amid_the_request() -> None:
        client: Any = SlowHost(own=set(), others=set())
        leases = WorkerLeases(client, "1/4", queue="", timeout=None, cluster="c")
        request = asyncio.ensure_future(leases.request(0, kept.append))
        await until(asked.is_set)
        request.cancel()
        await asyncio.sleep(0)
        answered.set()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(cancel_amid_the_request())
    assert len(kept) == 1
