"""Workers whose lease has ended are told apart from those of which that is not known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_aistack.compute.clusters import lease_watch
from jupyter_aistack.compute.clusters.lease_watch import LeaseWatch
from jupyter_aistack.exceptions import LedgerUnavailable
from tests.fakes.waiting import until


def worker(lease_id: str, *, is_computing: bool = True) -> Any:
    lease = SimpleNamespace(id=lease_id)
    return SimpleNamespace(lease=lease, is_computing=is_computing)


class Looks:
    """Leases that are live, as seen at one look after the other."""

    def __init__(self, *answers: Callable[[], set[str]]) -> None:
        self.answers = list(answers)
        self.count = 0

    async def live_ids(self) -> set[str]:
        answer = self.answers[min(self.count, len(self.answers) - 1)]
        self.count += 1
        return answer()


def unknown() -> set[str]:
    raise LedgerUnavailable("the ledger does not answer")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_watch, "LEASE_CHECK_SECONDS", 0.001)


async def watch(looks: Looks, workers: list[Any], times: int) -> list[str]:
    """The leases that were lost within so many looks."""
    lost: list[str] = []

    async def on_lost(worker: Any, lease_id: str) -> None:
        workers.remove(worker)
        lost.append(lease_id)

    leases: Any = looks
    watch = LeaseWatch(leases, lambda: workers, on_lost)
    watch.start()
    watch.start()
    await until(lambda: looks.count >= times)
    watch.stop()
    return lost


async def test_a_lease_that_has_ended_is_lost_once() -> None:
    workers = [worker("l-1"), worker("l-2")]
    looks = Looks(lambda: {"l-1", "l-2"}, lambda: {"l-1"})
    assert await watch(looks, workers, 4) == ["l-2"]


async def test_what_is_not_known_ends_no_work() -> None:
    workers = [worker("l-1"), worker("l-2")]
    assert await watch(Looks(unknown), workers, 3) == []
    assert await watch(Looks(unknown, lambda: {"l-2"}), workers, 4) == ["l-1"]


async def test_a_worker_that_does_not_compute_is_left_alone() -> None:
    workers = [worker("l-1"), worker("l-2", is_computing=False)]
    assert await watch(Looks(lambda: {"l-1"}), workers, 3) == []
