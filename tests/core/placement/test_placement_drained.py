"""Nothing new goes to a device that is out of placement by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from jupyter_aistack.core.model.device import Device, MIGInstance
from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.scheduling.forecast import forecast
from tests.fakes.world import World, ask, gpus


def drained(device: Device, until: float | None = None) -> Device:
    drain = Drain(device_id=device.id, host="box", since=0.0, until=until, reason="fan")
    return replace(device, drain=drain)


def box(*indexes: int, count: int = 2, until: float | None = None) -> World:
    """A host of which some devices are drained."""
    return World(
        drained(device, until) if device.index in indexes else device
        for device in gpus(count)
    )


def test_grants_go_elsewhere_and_who_finds_nothing_waits_and_is_told_why() -> None:
    world = box(0)
    world.submit(ask("a", "1"), ask("b", "1", user="bob"))
    world.turn()
    (slice_,) = world.lease_of("a").slices
    assert slice_.device_id == world.inventory.devices[1].id
    (waiting,) = forecast(world.snapshot(), world.now)
    assert waiting.eta_at is None
    assert waiting.reason.endswith("0 is being drained: fan")
    assert waiting.public_reason == waiting.reason


def test_the_end_of_a_drain_is_when_its_device_is_free() -> None:
    world = box(0, 1, until=600.0)
    world.submit(ask("a", "2"))
    world.turn()
    (waiting,) = forecast(world.snapshot(), world.now)
    assert waiting.eta_at == 600.0
    assert "is being drained until 1970-01-01 00:10 UTC: fan" in waiting.reason


@pytest.mark.parametrize("spec", ["1/4", "2", "1g.10gb"])
def test_what_a_drain_alone_keeps_from_is_never_refused_for_good(spec: str) -> None:
    world = box(0, 1)
    if spec == "1g.10gb":
        instance = MIGInstance(uuid="MIG-1", profile=spec, memory_bytes=10 * GIB)
        first, second = world.inventory.devices
        world = World([replace(first, mig=(instance,), mig_enabled=True), second])
    world.submit(ask("a", spec))
    world.turn()
    (waiting,) = world.snapshot().requests
    (told,) = forecast(world.snapshot(), world.now)
    assert told.request.id == waiting.id
    assert "is being drained: fan" in told.reason


def test_nobody_is_asked_back_from_a_drained_device() -> None:
    world = box(count=1)
    world.submit(ask("a", "1", preemptible=True))
    world.turn()
    world.now = 3600.0
    (device,) = world.inventory.devices
    world.inventory = replace(world.inventory, devices=(drained(device),))
    world.submit(ask("b", "1", user="bob"))
    world.turn()
    assert world.lease_of("a").notice is None
    world.inventory = replace(world.inventory, devices=(device,))
    world.turn()
    assert world.lease_of("a").notice is not None, "it would be otherwise"
    assert world.lease_of("a").slices[0].fraction == Fraction(1)
