"""Ending a kernel that has started CUDA: in which order, how long, and that all others
end as fast as ever.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease, Outcome
from jupyter_aistack.core.model.sample import DeviceSample, UnitSample
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import ProviderError
from jupyter_aistack.kernel import teardown
from jupyter_aistack.kernel.teardown import (
    SETTLE_SECONDS,
    SURE_SECONDS,
    TERM_SECONDS,
    Teardown,
)
from jupyter_aistack.system.processes import is_alive
from jupyter_aistack.testing import ManualClock
from tests.fakes.bare_provider import BareProvider, Leases, Pids
from tests.fakes.kernel_server import SLEEPER, WriteKernel, active, pid_of
from tests.fakes.scripted import exchange_providers
from tests.fakes.waiting import until

# -- the order of things ---------------------------------------------------------------


class Process:
    """A process that does what a test says, at the moments a test says; what is done to
    it is written down.
    """

    def __init__(
        self,
        *,
        works: float | None = 0.0,
        ends: Callable[[str, float], bool] = lambda done, at: False,
    ) -> None:
        self.clock, self.done = ManualClock(1000.0), list[str]()
        self._works, self._ends, self._has_ended = works, ends, False

    @property
    def age(self) -> float:
        return self.clock() - 1000.0

    def _note(self, what: str) -> None:
        self.done.append(what)
        self._has_ended = self._has_ended or self._ends(what, self.age)

    async def interrupt(self) -> None:
        self._note("interrupt")

    async def is_working(self, since: float) -> bool | None:
        """Until `works` seconds are over, or nobody can tell."""
        return None if self._works is None else since < 1000.0 + self._works

    async def clients(self) -> frozenset[int]:
        return frozenset({12, 11})

    async def terminate(self, pid: int) -> None:
        self._note(f"terminate {pid}")

    async def signal(self, signum: int) -> None:
        self._note(signal.Signals(signum).name)

    async def has_ended(self) -> bool:
        return self._has_ended

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def teardown(self) -> Teardown:
        return Teardown(self, clock=self.clock, sleep=self.sleep)


ALL_OF_IT = ["interrupt", "terminate 11", "terminate 12", "SIGTERM", "SIGKILL"]


async def test_the_signal_that_kills_comes_last_after_the_clients_were_ended_by_their_server() -> (
    None
):
    process = Process()
    await process.teardown().end()
    assert process.done == ALL_OF_IT
    assert process.age == pytest.approx(SURE_SECONDS + TERM_SECONDS)


async def test_work_on_the_device_is_waited_for_until_a_second_of_quiet() -> None:
    process = Process(works=0.8)
    await process.teardown().free_device()
    assert process.age == pytest.approx(0.8 + SURE_SECONDS, abs=0.11)
    assert process.done == ALL_OF_IT[:3]


async def test_work_that_does_not_end_is_not_waited_for_for_ever() -> None:
    process = Process(works=3600)
    await process.teardown().free_device()
    assert process.age == pytest.approx(SETTLE_SECONDS)
    assert process.done == ALL_OF_IT[:3]


async def test_where_no_driver_can_tell_a_second_must_do() -> None:
    process = Process(works=None)
    await process.teardown().free_device()
    assert process.age == pytest.approx(SURE_SECONDS)


async def test_a_process_that_ends_when_it_is_interrupted_is_sent_no_signal() -> None:
    process = Process(ends=lambda done, at: done == "interrupt")
    await process.teardown().end()
    assert (process.done, process.age) == (ALL_OF_IT[:3], 0.0)


async def test_a_process_that_ends_when_it_is_asked_to_is_not_killed() -> None:
    process = Process(ends=lambda done, at: done == "SIGTERM")
    await process.teardown().end()
    assert process.done == ALL_OF_IT[:4]
    assert process.age == pytest.approx(SURE_SECONDS)


# -- on a real server ------------------------------------------------------------------

STUBBORN = """
import signal, sys, time
def hear(signum, frame):
    with open(sys.argv[2], "a") as file:
        file.write(signal.Signals(signum).name + "\\n")
    if signum == signal.SIGTERM and "ends" in sys.argv:
        sys.exit()
for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, hear)
open(sys.argv[2], "a").close()
while True:
    time.sleep(1)
"""


class Card(BareProvider):
    """One real GPU, with a server that lists clients, as far as anybody here can
    tell.
    """

    name = "card"
    memory_bytes = 140 * GIB

    def __init__(self, heard: Path) -> None:
        super().__init__()
        self.held: dict[int, int | None] = {}
        self.done: list[str] = []
        self._heard = heard

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        return Preparation(
            environment={"CUDA_VISIBLE_DEVICES": "GPU-0"},
            expects=Expectation(threads="1"),
        )

    def measure(
        self, devices: Mapping[str, Device], leases: Leases, pids: Pids
    ) -> Mapping[str, DeviceSample]:
        units = {"GPU-0": UnitSample(memory=self.held, busy={})}
        return {"GPU-0": DeviceSample(units=units)}

    def terminate(self, lease: Lease, pid: int) -> None:
        self.done.append(f"{self._heard.read_text()}terminate {pid}")


@pytest.fixture
def heard(tmp_path: Path) -> Path:
    """Where a stubborn kernel writes down what it hears."""
    return tmp_path / "heard"


@pytest.fixture
def card(broker: Broker, heard: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """The host's only device, and a shorter wait for its quiet."""
    monkeypatch.setattr(teardown, "SURE_SECONDS", 0.2)
    provider = Card(heard)
    exchange_providers(broker, provider)
    return provider


@pytest.fixture
def start(
    kernels: Any, broker: Broker, kernelspec: WriteKernel, card: Card, heard: Path
) -> Any:
    """Starts a kernel on a slice that writes down what it hears, and ends when it is
    asked to, or never.
    """

    async def started(how: str = "ends", *, on_device: bool = True) -> tuple[str, int]:
        argv = ["python", "-S", "-c", STUBBORN, "{connection_file}", str(heard), how]
        kernel_id = await kernels.start_kernel(
            kernel_name=kernelspec("gpu", slice="1/2", argv=argv)
        )
        await active(broker, kernel_id)
        pid = pid_of(kernels, kernel_id)
        await until(heard.exists)
        if on_device:
            card.held, card.answers["clients"] = {pid: GIB, 1: GIB}, frozenset({pid, 1})
        return kernel_id, pid

    return started


def signals(heard: Path) -> list[str]:
    """What the kernel has heard; two interrupts one right after the other may come as
    one.
    """
    return list(dict.fromkeys(heard.read_text().split()))


async def test_kernel_on_a_gpu_is_interrupted_ended_by_its_server_and_asked_to_end(
    kernels: Any, broker: Broker, start: Any, card: Card, heard: Path
) -> None:
    kernel_id, pid = await start()
    await kernels.shutdown_kernel(kernel_id, now=True)
    (done,) = card.done
    assert done.endswith(f"terminate {pid}"), (
        "and not process 1, which is not the kernel's"
    )
    assert "SIGTERM" not in done
    assert signals(heard) == ["SIGINT", "SIGTERM"]
    assert [lease.outcome for lease in broker.leases(live=False)] == [Outcome.RELEASED]


async def test_one_that_does_not_end_is_killed(
    kernels: Any,
    broker: Broker,
    start: Any,
    card: Card,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(teardown, "TERM_SECONDS", 0.2)
    kernel_id, pid = await start("never")
    await kernels.shutdown_kernel(kernel_id, now=True)
    assert not is_alive(pid, None)
    assert broker.leases() == ()


async def test_restart_of_a_kernel_on_a_gpu_is_as_careful_and_keeps_the_lease(
    kernels: Any, broker: Broker, start: Any, card: Card
) -> None:
    kernel_id, pid = await start()
    (lease,) = broker.leases()
    await kernels.restart_kernel(kernel_id, now=True)
    assert [done.rpartition("\n")[2] for done in card.done] == [f"terminate {pid}"]
    assert [held.id for held in broker.leases()] == [lease.id]


async def test_a_server_that_does_not_answer_stops_no_shutdown(
    kernels: Any, broker: Broker, start: Any, card: Card, heard: Path
) -> None:
    kernel_id, _ = await start()
    card.failures["clients"] = ProviderError("the control daemon does not answer")
    await kernels.shutdown_kernel(kernel_id, now=True)
    assert signals(heard) == ["SIGINT", "SIGTERM"]
    assert broker.leases() == ()


async def test_what_comes_before_a_kill_comes_before_any_signal_of_ours_and_may_fail(
    kernels: Any, server: Any, start: Any, card: Card, heard: Path
) -> None:
    calls: list[str] = []

    async def suspend(kernel_id: str, pid: int) -> None:
        calls.append(f"{kernel_id} {set(signals(heard)) - {'SIGINT'}}")
        raise OSError("the helper is gone")

    server.web_app.settings["aistack"].before_kill = suspend
    kernel_id, _ = await start()
    await kernels.shutdown_kernel(kernel_id, now=True)
    assert calls == [f"{kernel_id} set()"], (
        "but for the interrupt that Jupyter's shutdown begins with"
    )
    assert kernel_id not in kernels


async def test_a_kernel_whose_slice_was_taken_back_is_taken_off_the_device_all_the_same(
    kernels: Any, broker: Broker, start: Any, card: Card
) -> None:
    kernel_id, pid = await start()
    (lease,) = broker.leases()
    broker.release(lease.id, lease.token)
    await kernels.shutdown_kernel(kernel_id, now=True)
    assert [done.rpartition("\n")[2] for done in card.done] == [f"terminate {pid}"]


@pytest.mark.parametrize("case", ["CUDA is untouched", "no GPU lease"])
async def test_other_kernels_end_at_once(
    case: str,
    kernels: Any,
    kernelspec: WriteKernel,
    start: Any,
    card: Card,
    heard: Path,
) -> None:
    if case == "CUDA is untouched":
        kernel_id, _ = await start(on_device=False)
    else:
        kernel_id = await kernels.start_kernel(
            kernel_name=kernelspec("plain", argv=SLEEPER)
        )
    await kernels.shutdown_kernel(kernel_id, now=True)
    assert card.done == []
    assert "SIGTERM" not in (heard.read_text() if heard.exists() else "")


async def test_a_kernel_that_crashed_is_not_waited_for(
    kernels: Any, broker: Broker, start: Any, card: Card
) -> None:
    kernel_id, pid = await start()
    provisioner = kernels.get_kernel(kernel_id).provisioner
    provisioner.process.kill()
    await until(lambda: pid_of(kernels, kernel_id) != pid)
    await asyncio.sleep(0)
    assert card.done == []
