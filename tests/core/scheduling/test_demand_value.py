from __future__ import annotations

from tests.fakes.world import World, ask, gpus


def test_where_halves_are_asked_for_a_third_leaves_the_half_whole() -> None:
    box = World(gpus(4))
    box.submit(
        *(ask(f"half-{n}", "1/2", n) for n in range(6)), ask("third", "1/3", 9.0)
    )
    box.turn(10)
    box.release("half-0")
    box.submit(ask("another", "1/3", box.now))
    box.turn()
    home = {
        name: lease.slices[0].device_id
        for name in box.holds()
        for lease in [box.lease_of(name)]
    }
    assert home["another"] == home["third"] != home["half-1"], (
        "best fit would have cut up the free half"
    )


def test_without_shares_to_compare_the_fullest_device_is_taken() -> None:
    box = World(gpus(2))
    box.submit(ask("a", "1/4"), ask("b", "1", 1.0), ask("c", "1/4", 2.0))
    box.turn(5)
    assert (
        box.lease_of("a").slices[0].device_id == box.lease_of("c").slices[0].device_id
    )
    assert set(box.holds()) == {"a", "b", "c"}
