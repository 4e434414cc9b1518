from __future__ import annotations

from fractions import Fraction

import pytest

from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Inventory,
    MIGInstance,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.placement.cache import DeviceFacts
from jupyter_aistack.core.placement.placement import Capacity
from jupyter_aistack.core.placement.tenants import EVERYBODY, ONE_USER, Tenants
from jupyter_aistack.core.placement.verdict import PlacementFailure
from tests.fakes.world import gpus

FIRST, SECOND = "testbox-GPU-0", "testbox-GPU-1"


def share(device_id: str, fraction: str = "1/4") -> Slice:
    return Slice(
        device_id=device_id,
        kind=SliceKind.SHARE,
        fraction=Fraction(fraction),
        memory_bytes=1,
    )


@pytest.fixture
def tenants() -> Tenants:
    return Tenants(gpus(2))


def test_others_are_counted_by_lease_and_device(tenants: Tenants) -> None:
    tenants.move_in([share(FIRST), share(FIRST), share(SECOND)], "ann")
    tenants.move_in([share(FIRST)], "ann")
    assert (tenants.others(FIRST, "bob"), tenants.others(SECOND, "bob")) == (2, 1)
    assert tenants.others(FIRST, "ann") == 0
    assert tenants.closed_to("bob") == [FIRST, SECOND]
    tenants.move_out([share(SECOND)], "ann")
    assert tenants.closed_to("bob") == [FIRST]


def test_a_copy_goes_its_own_way(tenants: Tenants) -> None:
    tenants.move_in([share(FIRST)], "ann")
    twin = tenants.copy()
    twin.move_out([share(FIRST)], "ann")
    assert (tenants.others(FIRST, "bob"), twin.others(FIRST, "bob")) == (1, 0)


def test_cut_gpus_and_cpus_are_everybody_s() -> None:
    [gpu] = gpus(1)
    instance = MIGInstance(uuid="MIG-0", profile="1g.18gb", memory_bytes=1)
    cut = Device(**{**vars(gpu), "mig": (instance,), "mig_enabled": True})
    cpu = Device(**{**vars(gpu), "id": "CPU-box", "kind": DeviceKind.CPU})
    tenants = Tenants([cut, cpu])
    tenants.move_in([share(cut.id), share(cpu.id)], "ann")
    assert tenants.closed_to("bob") == []


def test_everybody_may_be_on_any_device() -> None:
    EVERYBODY.move_in([share(FIRST)], "ann")
    assert EVERYBODY.others(FIRST, "bob") == 0
    assert EVERYBODY.copy() is EVERYBODY


def test_a_share_goes_where_no_other_user_is_and_waits_where_there_is_none(
    tenants: Tenants,
) -> None:
    facts = DeviceFacts(Inventory(host="testbox", devices=gpus(2)))
    capacity = Capacity(facts, tenants=tenants)
    capacity.allocate([share(FIRST)], "ann")
    spec = parse_spec("1/4")
    placed = capacity.place(spec, user="bob")
    assert not isinstance(placed, PlacementFailure)
    assert placed[0].device_id == SECOND
    capacity.allocate(placed, "bob")
    assert capacity.place(spec, user="eve") == PlacementFailure(reason=ONE_USER)
    own = capacity.place(spec, user="ann")
    assert not isinstance(own, PlacementFailure)
    assert own[0].device_id == FIRST
