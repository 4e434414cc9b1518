"""For whom an instance would have to be created."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model.device import MIGInstance
from jupyter_aistack.core.model.plan import Snapshot
from jupyter_aistack.core.model.policy import Policy, UserLimits
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.scheduling.missing_profiles import missing_profiles
from tests.fakes.world import World, ask, gpus

ONE = MIGInstance(
    uuid="MIG-a",
    profile="1g.10gb",
    memory_bytes=10 * GIB,
    gpu_slices=1,
    compute_slices=1,
)


def snapshot(
    *requests: Request,
    policy: Policy | None = None,
    there: tuple[MIGInstance, ...] = (ONE,),
) -> Snapshot:
    world = World(
        gpus(1, mig_enabled=True, mig=there, mig_offers=("1g.10gb", "3g.40gb")), policy
    )
    world.requests = {request.id: request for request in requests}
    return world.snapshot()


def test_what_a_free_instance_serves_lacks_nothing() -> None:
    assert missing_profiles(snapshot(ask("a", "1g.10gb")), 1.0) == ()


def test_those_behind_the_free_ones_lack_theirs_in_order() -> None:
    waiting = (
        ask("a", "1g.10gb", 0.0),
        ask("b", "3g.40gb", 1.0),
        ask("c", "1g.10gb", 2.0),
    )
    assert missing_profiles(snapshot(*waiting), 3.0) == ("3g.40gb", "1g.10gb")


def test_an_instance_that_waits_for_cores_beside_it_is_there() -> None:
    assert missing_profiles(snapshot(ask("a", "1g.10gb,cpu:8")), 1.0) == ()


@pytest.mark.parametrize("spec", ["1/4", "1", "20GiB", "3g.40gb,model:a100", "cpu:2"])
def test_what_no_instance_could_help_is_left_out(spec: str) -> None:
    assert missing_profiles(snapshot(ask("a", spec)), 1.0) == ()


def test_who_is_at_a_limit_gets_none_made_and_others_do() -> None:
    policy = Policy(limits={"*": UserLimits(slices=1)})
    waiting = [
        ask("a", "3g.40gb", 0.0),
        ask("b", "3g.40gb", 1.0),
        ask("c", "3g.40gb", 2.0, user="bob"),
    ]
    assert missing_profiles(snapshot(*waiting, policy=policy), 3.0) == (
        "3g.40gb",
        "3g.40gb",
    )


def test_a_dead_process_lacks_nothing() -> None:
    request = ask("a", "3g.40gb")
    seen = snapshot(request)
    assert (
        missing_profiles(
            Snapshot(
                inventory=seen.inventory, requests=(request,), dead=frozenset({"a"})
            ),
            1.0,
        )
        == ()
    )
