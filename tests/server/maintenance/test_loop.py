"""What the server does by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from jupyter_aistack.broker.devices import DeviceManager
from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.server import kernels as kernels_module
from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.server.kernels import KernelRegistry
from jupyter_aistack.server.maintenance.loop import renew_leases
from jupyter_aistack.server.realtime.event_bus import SCHEMA_ID, last_sequence
from jupyter_aistack.testing import holder, simulated_broker
from tests.fakes.rest_server import Ask, until


async def start_kernel(jp_fetch: Any) -> str:
    response = await jp_fetch(
        "api", "kernels", method="POST", body='{"name": "python3"}'
    )
    return str(json.loads(response.body)["id"])


async def test_kernel_that_is_gone_for_a_while_loses_its_lease_and_its_place(
    server: Any,
    jp_fetch: Any,
    workbench: ServerContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when the server gives up on a kernel that keeps dying: nobody is told, and
    nobody else releases.
    """
    kernel_id = await start_kernel(jp_fetch)
    await until(lambda: kernel_id in _kernels(server)._known)
    ours = holder(kernel_id, host=workbench.broker.host)
    lease_id = workbench.broker.submit("1", ours).lease_id
    waiting = workbench.broker.submit("1", ours)
    monkeypatch.setattr(kernels_module, "GRACE_SECONDS", 0.0)
    await server.kernel_manager.shutdown_kernel(kernel_id, now=True)
    await until(lambda: not workbench.broker.lease(lease_id).is_live)
    assert await until(
        lambda: workbench.broker.request(waiting.id).state.value == "cancelled"
    )


async def test_kernels_of_other_servers_are_left_alone(
    server: Any, workbench: ServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels_module, "GRACE_SECONDS", 0.0)
    theirs = holder(
        "kernel-of-another-server", host=workbench.broker.host, pid=os.getpid()
    )
    lease_id = workbench.broker.submit("1/4", theirs).lease_id
    gone = await _kernels(server).gone()
    await workbench.run(renew_leases, workbench.broker, gone)
    assert workbench.broker.lease(lease_id).is_live


async def test_crashed_kernel_is_not_gone_before_its_grace_is_over(
    server: Any, jp_fetch: Any
) -> None:
    kernel_id = await start_kernel(jp_fetch)
    kernels = KernelRegistry(server)
    assert await kernels.gone() == frozenset()
    pid = kernels.pids()[kernel_id]
    manager = server.kernel_manager.get_kernel(kernel_id)
    manager.stop_restarter()
    os.kill(pid, signal.SIGKILL)
    while await manager.provisioner.poll() is None:
        await asyncio.sleep(0.01)
    assert await kernels.gone() == frozenset()
    kernels._missing_since[kernel_id] -= kernels_module.GRACE_SECONDS
    assert await kernels.gone() == {kernel_id}
    await server.kernel_manager.shutdown_kernel(kernel_id, now=True)


async def test_kernel_being_started_is_not_gone(
    server: Any, jp_fetch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels_module, "GRACE_SECONDS", 0.0)
    kernel_id = await start_kernel(jp_fetch)
    kernels = KernelRegistry(server)
    provisioner = server.kernel_manager.get_kernel(kernel_id).provisioner
    monkeypatch.setattr(provisioner, "pid", None)
    monkeypatch.setattr(provisioner, "process", None)
    assert await provisioner.poll() == 0, (
        "a kernel without a process looks ended to whoever only polls"
    )
    assert await kernels.gone() == frozenset()
    monkeypatch.undo()
    await server.kernel_manager.shutdown_kernel(kernel_id, now=True)


def test_lease_freed_by_a_kernel_that_is_gone_is_not_granted_to_it_again() -> None:
    broker = simulated_broker()
    first = broker.submit("1", holder("kernel-1"))
    again, other = (
        broker.submit("1", holder(name)) for name in ("kernel-1", "kernel-2")
    )
    renew_leases(broker, frozenset({"kernel-1"}))
    states = [
        broker.request(request.id).state.value for request in (first, again, other)
    ]
    assert states == ["granted", "cancelled", "granted"]


async def test_living_holder_is_renewed_and_dead_one_reaped(
    ask: Ask, workbench: ServerContext
) -> None:
    _, answer = await ask("POST", "leases", {"spec": "1/4"})
    broker = workbench.broker
    started = broker.clock()
    child = await asyncio.create_subprocess_exec("sleep", "60")
    dying = broker.submit("1/4", holder(host=broker.host, pid=child.pid)).lease_id
    child.kill()
    await child.wait()
    await until(lambda: not broker.lease(dying).is_live)
    assert broker.lease(dying).outcome.value == "abandoned"  # type: ignore[union-attr]
    broker.host_state.clock = lambda: started + 50  # under a third of its time is left
    await until(lambda: broker.lease(answer["lease"]["id"]).expires_at > started + 100)


def test_drivers_are_left_asleep_while_nothing_is_leased_or_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = simulated_broker()
    asked = []

    def discover(self: DeviceManager) -> Inventory:
        asked.append(1)
        return Inventory(host=self.host)

    monkeypatch.setattr(DeviceManager, "_discover", discover)
    renew_leases(broker, frozenset())
    assert asked == []


def test_worker_of_a_kernel_that_is_gone_loses_its_lease_too() -> None:
    broker = simulated_broker()
    own = broker.submit("1/4", holder("kernel-1")).lease_id
    workers = broker.submit("1/4", holder("worker-0", parent="kernel-1")).lease_id
    others = broker.submit("1/4", holder("kernel-2")).lease_id
    renew_leases(broker, frozenset({"kernel-1"}))
    assert [broker.lease(i).is_live for i in (own, workers, others)] == [
        False,
        False,
        True,
    ]


async def test_lease_events_reach_the_bus_with_opaque_ids_only(
    ask: Ask, server: Any
) -> None:
    heard: list[dict[str, Any]] = []

    async def listen(logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        heard.append(data)

    server.event_logger.add_listener(schema_id=SCHEMA_ID, listener=listen)
    _, answer = await ask("POST", "leases", {"spec": "1/4"})
    await ask("DELETE", f"leases/{answer['lease']['id']}")
    await until(lambda: "LeaseReleased" in {event["kind"] for event in heard})
    granted = next(event for event in heard if event["kind"] == "LeaseGranted")
    assert {
        key: value for key, value in granted.items() if not key.startswith("__")
    } == {
        "kind": "LeaseGranted",
        "lease_id": answer["lease"]["id"],
        "request_id": answer["request"]["id"],
    }
    assert len(heard) == len(
        {(event["kind"], event["lease_id"], event["request_id"]) for event in heard}
    )


async def test_events_reach_a_browsers_subscription(ask: Ask, jp_ws_fetch: Any) -> None:
    socket = await jp_ws_fetch("api", "events", "subscribe")
    await ask("POST", "leases", {"spec": "1/4"})
    async with asyncio.timeout(10):
        while (heard := json.loads(await socket.read_message()))[
            "schema_id"
        ] != SCHEMA_ID:
            pass
    assert heard["kind"] in ("RequestQueued", "LeaseGranted")
    socket.close()


def test_schema_lists_every_kind_of_event() -> None:
    import yaml

    from jupyter_aistack.core.model.events import EventKind
    from jupyter_aistack.server.realtime.event_bus import SCHEMA_PATH

    schema = yaml.safe_load(SCHEMA_PATH.read_text())
    assert schema["$id"] == SCHEMA_ID
    assert schema["properties"]["kind"]["enum"] == [kind.value for kind in EventKind]


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 40])
def test_end_of_the_history_is_found(number: int) -> None:
    broker = simulated_broker()
    while len(broker.events()) < number:
        broker.submit("1/64", holder(f"kernel-{len(broker.events())}"))
    assert last_sequence(broker) == len(broker.events())


def _kernels(server: Any) -> KernelRegistry:
    (extension,) = server.extension_manager.extension_apps["jupyter_aistack"]
    kernels: KernelRegistry = extension._kernels
    return kernels
