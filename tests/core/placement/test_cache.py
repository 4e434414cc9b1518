"""What is worked out from the devices alone is right for as long as they are the same."""

from __future__ import annotations

from dataclasses import replace

from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.placement.cache import PlacementCache
from jupyter_aistack.core.placement.placement import Capacity
from jupyter_aistack.core.placement.verdict import PlacementFailure
from jupyter_aistack.core.scheduling.cycle import plan

from .test_placement import box, gpu

HALF = parse_spec("1/2")


def ask(number: int, spec: str) -> Request:
    holder = Holder(kind=HolderKind.KERNEL, id=f"k-{number}", user="ann", host="box")
    return Request(
        id=f"r-{number}", spec=parse_spec(spec), holder=holder, submitted_at=number
    )


def snapshot(inventory: Inventory) -> Snapshot:
    requests = [ask(number, spec) for number, spec in enumerate(("1/2", "1", "1/2"))]
    return Snapshot(inventory=inventory, requests=tuple(requests))


def test_equal_inventories_share_what_is_known_of_them() -> None:
    cache = PlacementCache()
    facts = cache.facts(box(gpu(0), gpu(1)))
    Capacity(facts).when_idle(HALF)
    same = cache.facts(box(gpu(0, free_bytes=1), gpu(1)))
    assert same is facts
    assert list(same.when_idle) == [(HALF, "")]


def test_of_other_devices_nothing_is_known() -> None:
    cache = PlacementCache()
    facts = cache.facts(box(gpu(0)))
    assert not isinstance(Capacity(facts).when_idle(HALF), PlacementFailure)
    broken = cache.facts(box(gpu(0, problem="does not answer")))
    assert broken is not facts
    assert isinstance(Capacity(broken).when_idle(HALF), PlacementFailure)


def test_a_plan_is_the_same_with_and_without_a_cache() -> None:
    cache = PlacementCache()
    for inventory in (box(gpu(0), gpu(1)), box(gpu(0)), box(gpu(0), gpu(1))):
        seen = snapshot(inventory)
        alone = plan(seen, 10.0, ttl_seconds=60.0)
        assert plan(seen, 10.0, ttl_seconds=60.0, cache=cache) == alone
        assert plan(seen, 10.0, ttl_seconds=60.0, cache=cache) == alone


def test_an_inventory_keeps_nothing_of_what_was_planned_with_it() -> None:
    inventory = box(gpu(0))
    before = replace(inventory)
    plan(snapshot(inventory), 10.0, ttl_seconds=60.0)
    assert vars(inventory) == vars(before)
