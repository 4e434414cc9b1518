"""What Prometheus reads."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from jupyter_aistack.broker.api.figures import HostFigures
from jupyter_aistack.broker.charged_totals import ChargedTotals
from jupyter_aistack.core.accounting.usage_report import Rates
from jupyter_aistack.core.model.device import Device, DeviceKind, Inventory
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.policy import IdlePolicy, Queue
from jupyter_aistack.core.model.sample import Usage
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.scheduling.activity import idle_leases
from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.server.rest.metrics import exposition
from jupyter_aistack.testing import holder
from tests.fakes.rest_server import Ask


def figures(*devices: Device, **fields: Any) -> HostFigures:
    return HostFigures(
        **{
            "at": 0.0,
            "inventory": Inventory(host="box", devices=devices),
            **fields,
        }
    )


def gpu(number: int, **fields: Any) -> Device:
    known = {"name": "H200", "memory_bytes": 10, **fields}
    return Device(id=f"GPU-{number}", host="box", kind=DeviceKind.GPU, index=0, **known)


def lease(**fields: Any) -> Lease:
    known = {"id": "l-1", "queue": "q", **fields}
    return Lease(
        token=1,
        request_id="r-1",
        spec=parse_spec("1"),
        holder=holder(user="ann"),
        slices=(),
        granted_at=0.0,
        expires_at=1000.0,
        **known,
    )


def read(text: str) -> dict[str, list[Any]]:
    return {
        family.name: list(family.samples)
        for family in text_string_to_metric_families(text)
    }


async def test_scrape_shows_what_is_leased_and_who_waits(
    ask: Ask, jp_fetch: Any
) -> None:
    await ask("POST", "leases", {"spec": "3/4"})
    await ask("POST", "leases", {"spec": "1/2"})
    response = await jp_fetch("aistack", "metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    result = read(response.body.decode())
    (device,) = (
        s for s in result["aistack_device_granted_ratio"] if s.labels["kind"] == "gpu"
    )
    assert device.value == 0.75
    assert device.labels["simulated"] == "true"
    assert [
        (s.labels["queue"], s.value) for s in result["aistack_requests_waiting"]
    ] == [("default", 1.0)]
    assert {s.labels["state"]: s.value for s in result["aistack_leases"]}[
        "granted"
    ] == 1.0


async def test_scrape_sees_a_change_made_just_before(ask: Ask, jp_fetch: Any) -> None:
    from tests.fakes.waiting import until

    await jp_fetch("aistack", "metrics")
    await ask("POST", "leases", {"spec": "1/4"})
    result: dict[str, list[Any]] = {}

    async def scrape() -> float:
        result.update(read((await jp_fetch("aistack", "metrics")).body.decode()))
        return float(sum(s.value for s in result["aistack_leases"]))

    while await scrape() != 1.0:
        await until(lambda: True)


def test_what_is_not_known_is_left_out() -> None:
    device = gpu(1, name='a "quoted"\nname')
    used = {"GPU-1": Usage(memory_bytes=7)}
    result = read(exposition(figures(device, device_usage=used), {}).decode())
    assert [s.value for s in result["aistack_device_memory_used_bytes"]] == [7.0]
    assert result["aistack_device_memory_used_bytes"][0].labels["name"] == device.name
    assert result["aistack_device_utilization_ratio"] == []
    assert result["aistack_device_power_watts"] == []


async def test_scrape_shows_queues_idle_leases_and_what_was_taken_back(
    ask: Ask, jp_fetch: Any, context: ServerContext
) -> None:
    await ask("POST", "leases", {"spec": "3/4"})
    await ask("POST", "leases", {"spec": "1/2"})
    context.event_counts["LeaseReclaimed"] = 2
    result = read((await jp_fetch("aistack", "metrics")).body.decode())
    (held,) = result["aistack_queue_held_devices"]
    assert (held.labels["queue"], held.value) == ("default", 0.75)
    (longest,) = result["aistack_queue_longest_wait_seconds"]
    assert 0 <= longest.value < 30
    taken = {
        sample.labels["reason"]: sample.value
        for sample in result["aistack_leases_taken_back"]
    }
    assert taken == {"preempted": 0.0, "reclaimed": 2.0}
    assert [sample.value for sample in result["aistack_leases_idle"]] == [0.0]


def test_lease_is_idle_from_its_queues_badge_on() -> None:
    idle = IdlePolicy(badge_seconds=10, notice_seconds=20, reclaim_seconds=30)
    queues = {"a": Queue(name="a", idle=idle), "b": Queue(name="b")}
    leases = [
        lease(queue=name, active_at=at)
        for name, at in (("a", 90.0), ("a", 91.0), ("a", None), ("b", 0.0))
    ]
    assert idle_leases(leases, queues, 100.0) == 1


def test_energy_is_counted_for_devices_users_and_live_leases_only() -> None:
    used = {i: Usage(memory_bytes=7, energy_joules=5.5) for i in ("GPU-1", "GPU-2")}
    snapshot = figures(
        gpu(1), gpu(2, simulated=True), leases=(lease(),), device_usage=used
    )
    charged = [
        ChargedTotals(
            user="ann",
            lease_id="l-1",
            millijoules=3_000,
            estimated_millijoules=500,
            gpu_seconds=2.0,
        ),
        ChargedTotals(
            user="ann", millijoules=4_000, estimated_millijoules=250, gpu_seconds=5.0
        ),
        ChargedTotals(user="bob", gpu_seconds=1.0),
        ChargedTotals(user="", millijoules=9_000),
    ]
    result = read(
        exposition(snapshot, {}, charged, Rates(carbon_g_per_kwh=3.6e6)).decode()
    )
    values = {
        name: {
            s.labels.get("user", s.labels.get("device")): s.value for s in result[name]
        }
        for name in result
    }
    assert values["aistack_device_energy_joules"] == {"GPU-1": 5.5}, (
        "a simulated counter is made up"
    )
    assert values["aistack_lease_energy_joules"] == {"ann": 3.0}
    assert values["aistack_user_energy_joules"] == {"(system)": 9.0, "ann": 7.0}, (
        "bob's is not known, and not zero"
    )
    assert values["aistack_lease_energy_estimated_joules"] == {"ann": 0.5}
    assert values["aistack_user_energy_estimated_joules"] == {"ann": 0.75}
    assert values["aistack_user_gpu_seconds"] == {"ann": 7.0, "bob": 1.0}
    assert values["aistack_user_co2e_grams"] == {"(system)": 9.0, "ann": 7.0}
    assert "aistack_user_co2e_grams" not in read(
        exposition(snapshot, {}, charged).decode()
    )
