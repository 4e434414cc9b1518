"""What Prometheus reads."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from jupyter_aistack.server.metrics import exposition

from .conftest import Ask

USE = {"memory_bytes": 7, "utilization": None, "power_watts": None, "energy_joules": None}


def read(text: str) -> dict[str, list[Any]]:
    return {family.name: list(family.samples) for family in text_string_to_metric_families(text)}


async def test_scrape_shows_what_is_leased_and_who_waits(ask: Ask, jp_fetch: Any) -> None:
    await ask("POST", "leases", {"spec": "3/4"})
    await ask("POST", "leases", {"spec": "1/2"})
    response = await jp_fetch("aistack", "metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = read(response.body.decode())
    (device,) = (s for s in found["aistack_device_granted_ratio"] if s.labels["kind"] == "gpu")
    assert device.value == 0.75
    assert device.labels["simulated"] == "true"
    assert [(s.labels["queue"], s.value) for s in found["aistack_requests_waiting"]] == [("default", 1.0)]
    assert {s.labels["state"]: s.value for s in found["aistack_leases"]}["granted"] == 1.0


async def test_scrape_sees_a_change_made_just_before(ask: Ask, jp_fetch: Any) -> None:
    from .conftest import until

    await jp_fetch("aistack", "metrics")
    await ask("POST", "leases", {"spec": "1/4"})
    found: dict[str, list[Any]] = {}

    async def scrape() -> float:
        found.update(read((await jp_fetch("aistack", "metrics")).body.decode()))
        return float(sum(s.value for s in found["aistack_leases"]))

    while await scrape() != 1.0:
        await until(lambda: True)


def test_what_is_not_known_is_left_out() -> None:
    device = {"id": "GPU-1", "index": 0, "kind": "gpu", "name": 'a "quoted"\nname', "simulated": False}
    device |= {"memory_bytes": 10, "free_fraction": "1/3", "foreign_memory_bytes": 0}
    snapshot = {
        "host": {"host": "box", "devices": [device], "queues": []},
        "leases": [],
        "queue": [],
        "usage": {"devices": {"GPU-1": USE}, "leases": {}},
    }
    found = read(exposition(snapshot).decode())
    assert [s.value for s in found["aistack_device_memory_used_bytes"]] == [7.0]
    assert found["aistack_device_memory_used_bytes"][0].labels["name"] == device["name"]
    assert found["aistack_device_utilization_ratio"] == []
    assert found["aistack_device_power_watts"] == []
