"""One lease for a process, however many of its threads and tasks ask."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jupyter_aistack.client.client import Client, LeaseHandle, attached
from jupyter_aistack.client.embedded import EmbeddedTransport
from jupyter_aistack.client.transports import JSON, Transport
from jupyter_aistack.exceptions import LeaseError
from tests.fakes.waiting import wait_until

THREADS = 6


@pytest.fixture
def cpu_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("AISTACK_PROVIDERS", "cpu")
    # threadpoolctl sets it when it is imported, for as long as the process lives.
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "True")
    client = Client(EmbeddedTransport())
    yield client
    client.close()


class HeldAnswers(Transport):
    """Answers as another transport does; the answer to a request is held back until it
    is let go.
    """

    kind = "embedded"

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.has_asked = threading.Event()
        self.may_answer = threading.Event()

    def call(self, verb: str, payload: Mapping[str, Any]) -> JSON:
        answer = self._inner.call(verb, payload)
        if verb == "request":
            self.has_asked.set()
            assert self.may_answer.wait(30)
        return answer


def affinities() -> dict[str, frozenset[int]]:
    """The cores of each thread of this process."""
    threads = {name: int(name) for name in os.listdir("/proc/self/task")}
    return {name: frozenset(os.sched_getaffinity(id_)) for name, id_ in threads.items()}


def test_while_one_thread_asks_another_is_told_so(cpu_client: Client) -> None:
    environment = dict(os.environ)
    held = HeldAnswers(cpu_client._transport)
    slow = Client(held)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow.request, "cpu:1")
        assert held.has_asked.wait(30)
        with pytest.raises(LeaseError, match=r"another thread .* asking for cpu:1"):
            cpu_client.request("cpu:1")
        assert dict(os.environ) == environment
        held.may_answer.set()
        lease = first.result(30)
    assert attached() is lease
    assert [each["id"] for each in cpu_client.leases()] == [lease.id]
    lease.release()
    assert dict(os.environ) == environment


def take_turns(client: Client, barrier: threading.Barrier) -> bool | None:
    """Ask for a core at the same moment as the others; whether what the process had was
    what was granted, None for a refusal.
    """
    barrier.wait(30)
    try:
        with client.request("cpu:1") as lease:
            cores = frozenset(lease.prepared.cores)
            is_whole = (
                os.environ["AISTACK_LEASE"] == lease.id
                and os.environ["OMP_NUM_THREADS"] == "1"
                and os.sched_getaffinity(0) == cores
            )
            return is_whole and bool(lease.verified)
    except LeaseError:
        return None


def test_threads_never_half_share_a_lease_and_leave_nothing(cpu_client: Client) -> None:
    environment = dict(os.environ)
    barrier = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: barrier.wait(30), range(THREADS)))
        before = affinities()
        turns = [pool.submit(take_turns, cpu_client, barrier) for _ in range(THREADS)]
        results = [turn.result(60) for turn in turns]
        after = affinities()
    assert True in results
    assert False not in results
    assert after == {
        **after,
        **{name: before[name] for name in before if name in after},
    }
    assert dict(os.environ) == environment
    assert cpu_client.leases() == []


async def test_tasks_of_one_loop_never_half_share_a_lease(cpu_client: Client) -> None:
    environment = dict(os.environ)
    is_held = asyncio.Event()
    may_end = asyncio.Event()

    async def hold() -> bool:
        with cpu_client.request("cpu:1") as lease:
            is_held.set()
            await may_end.wait()
            return os.environ["AISTACK_LEASE"] == lease.id

    holding = asyncio.create_task(hold())
    await is_held.wait()
    with pytest.raises(LeaseError, match="already holds cpu:1"):
        cpu_client.request("cpu:1")
    may_end.set()
    assert await holding
    assert dict(os.environ) == environment


def test_a_thread_that_was_bound_by_its_program_is_bound_as_before(
    cpu_client: Client,
) -> None:
    first_core = min(os.sched_getaffinity(0))
    is_bound = threading.Event()
    may_end = threading.Event()

    def bind_itself() -> None:
        os.sched_setaffinity(0, {first_core})
        is_bound.set()
        may_end.wait(30)

    thread = threading.Thread(target=bind_itself)
    thread.start()
    assert is_bound.wait(30)
    own_id = thread.native_id or 0
    with cpu_client.request("cpu:1"):
        pass
    assert os.sched_getaffinity(own_id) == {first_core}
    may_end.set()
    thread.join()


def test_the_place_is_free_again_after_a_failure(
    cpu_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> JSON:
        raise LeaseError("no")

    with monkeypatch.context() as patch:
        patch.setattr(cpu_client._transport, "call", fail)
        with pytest.raises(LeaseError, match="no"):
            cpu_client.request("cpu:1")
    with cpu_client.request("cpu:1") as lease:
        assert attached() is lease


def test_a_lease_that_waits_takes_no_place(cpu_client: Client) -> None:
    """It is the queue's until it is granted and attached."""
    all_cores = len(os.sched_getaffinity(0))
    everything = cpu_client.request(f"cpu:{all_cores}", attach=False)
    waiting = cpu_client.request("cpu:1", wait=False)
    everything.release()
    wait_until(lambda: waiting.refresh().is_granted)
    with cpu_client.request("cpu:1", attach=False) as other:
        assert isinstance(other, LeaseHandle)
        assert waiting.attach() is attached()
    waiting.release()
