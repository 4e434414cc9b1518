from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_aistack.core.placement.demand import (
    WHOLE,
    Demand,
    DemandMix,
    Node,
    PlacementTarget,
)
from jupyter_aistack.core.placement.packing import POLICIES, Packer
from jupyter_aistack.exceptions import InvalidRequest

MODELS = ("A10", "T4")
SHARES = (100, 250, 333, 470, 810, WHOLE)
policies = pytest.mark.parametrize("policy", POLICIES)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    gpus = draw(st.sampled_from((0, 1, 1, 1, 2, 4)))
    return Demand(
        cpu_milli=draw(st.sampled_from((0, 1000, 4000, 9000))),
        memory_mib=draw(st.sampled_from((0, 1024, 8192))),
        gpus=gpus,
        share_milli=draw(st.sampled_from(SHARES)) if gpus else 0,
        models=frozenset(draw(st.sets(st.sampled_from(MODELS), max_size=1))),
    )


@st.composite
def clusters(draw: st.DrawFn) -> list[Node]:
    count = draw(st.integers(1, 4))
    return [
        Node(
            name=f"n{i}",
            cpu_milli=draw(st.sampled_from((8000, 32000))),
            memory_mib=draw(st.sampled_from((8192, 65536))),
            gpus=draw(st.integers(0, 4)),
            model=draw(st.sampled_from(MODELS)),
        )
        for i in range(count)
    ]


def could_go_somewhere(
    nodes: Sequence[Node],
    held: Sequence[tuple[Demand, PlacementTarget]],
    demand: Demand,
) -> bool:
    """Counted afresh from what is held, not from the arrays of the fleet."""
    for i, node in enumerate(nodes):
        here = [(d, s) for d, s in held if s.node == i]
        cpu = node.cpu_milli - sum(d.cpu_milli for d, _ in here)
        memory = node.memory_mib - sum(d.memory_mib for d, _ in here)
        free = [
            WHOLE - sum(d.share_milli for d, s in here if g in s.gpus)
            for g in range(node.gpus)
        ]
        assert cpu >= 0
        assert memory >= 0
        assert all(share >= 0 for share in free)
        able = sum(share >= demand.share_milli for share in free)
        fits_model = not demand.models or node.model in demand.models
        if (
            fits_model
            and cpu >= demand.cpu_milli
            and memory >= demand.memory_mib
            and able >= demand.gpus
        ):
            return True
    return False


@policies
@settings(max_examples=60, deadline=None)
@given(
    nodes=clusters(),
    arrivals=st.lists(demands(), max_size=30),
    leaves=st.randoms(use_true_random=False),
)
def test_nothing_is_over_granted_and_only_what_fits_nowhere_is_refused(
    policy: str, nodes: list[Node], arrivals: list[Demand], leaves: random.Random
) -> None:
    packer = Packer(nodes, policy=policy)
    held: list[tuple[Demand, PlacementTarget]] = []
    for demand in arrivals:
        fits = could_go_somewhere(nodes, held, demand)
        spot = packer.place(demand)
        assert (spot is not None) == fits
        if spot is not None:
            assert len(set(spot.gpus)) == demand.gpus
            assert not demand.models or nodes[spot.node].model in demand.models
            held.append((demand, spot))
        if held and leaves.random() < 0.3:
            packer.free(*held.pop(leaves.randrange(len(held))))
    could_go_somewhere(nodes, held, Demand())
    for demand, spot in held:
        packer.free(demand, spot)
    fresh = Packer(nodes).cluster
    assert (packer.cluster.cpu == fresh.cpu).all()
    assert (packer.cluster.shares == fresh.shares).all()
    assert packer.cluster.free_milli == fresh.free_milli


@policies
@settings(max_examples=30, deadline=None)
@given(
    nodes=clusters(),
    history=st.lists(demands(), max_size=20),
    arrivals=st.lists(demands(), max_size=20),
    chance=st.randoms(use_true_random=False),
)
def test_the_same_is_decided_again_whatever_the_order_of_the_history(
    policy: str,
    nodes: list[Node],
    history: list[Demand],
    arrivals: list[Demand],
    chance: random.Random,
) -> None:
    first = Packer(nodes, policy=policy, history=history)
    chance.shuffle(history)
    second = Packer(nodes, policy=policy, history=history)
    assert [first.place(d) for d in arrivals] == [second.place(d) for d in arrivals]


@policies
def test_what_comes_later_changes_nothing_before(policy: str) -> None:
    chance = random.Random(3)
    nodes = [
        Node(name=str(i), cpu_milli=32000, memory_mib=65536, gpus=4) for i in range(10)
    ]
    kinds = [
        Demand(cpu_milli=3000, memory_mib=1024, gpus=1, share_milli=share)
        for share in SHARES
    ]
    start = [chance.choice(kinds) for _ in range(50)]
    entry, other = Packer(nodes, policy=policy), Packer(nodes, policy=policy)
    together = [entry.place(d) for d in start + kinds[:1] * 20]
    assert [other.place(d) for d in start + kinds[-1:] * 20][:50] == together[:50]


def test_room_that_was_given_back_is_given_again() -> None:
    packer = Packer([Node(name="box", cpu_milli=8000, memory_mib=1024, gpus=1)])
    demand = Demand(cpu_milli=8000, memory_mib=1024, gpus=1, share_milli=WHOLE)
    spot = packer.place(demand)
    assert spot == PlacementTarget(node=0, gpus=(0,))
    assert packer.place(demand) is None
    packer.free(demand, spot)
    assert packer.place(demand) == spot
    packer.free(demand, spot)
    with pytest.raises(InvalidRequest, match="never placed on GPUs"):
        packer.free(demand, spot)


def test_an_unknown_policy_is_named_with_those_there_are() -> None:
    with pytest.raises(
        InvalidRequest, match="'magic' is unknown; allowed are scarcity, fgd, best-fit"
    ):
        Packer([], policy="magic")


def test_a_demand_without_gpus_goes_where_cpu_is_plenty() -> None:
    scarce = Node(name="scarce", cpu_milli=16000, memory_mib=65536, gpus=8, model="T4")
    plenty = replace(scarce, name="plenty", cpu_milli=128000)
    history = [Demand(cpu_milli=2000, memory_mib=1024, gpus=1, share_milli=WHOLE)] * 10
    spot = Packer([scarce, plenty], history=history).place(
        Demand(cpu_milli=8000, memory_mib=1024)
    )
    assert spot == PlacementTarget(node=1)


def test_who_takes_any_model_leaves_the_wanted_one_alone() -> None:
    nodes = [
        Node(name=m, cpu_milli=64000, memory_mib=65536, gpus=8, model=m) for m in MODELS
    ]
    anywhere = Demand(cpu_milli=1000, memory_mib=64, gpus=1, share_milli=WHOLE)
    picky = replace(anywhere, models=frozenset({"A10"}))
    packer = Packer(nodes, history=[anywhere, picky])
    spots = [packer.place(anywhere) for _ in range(8)]
    assert {spot.node for spot in spots if spot} == {1}
    assert all(packer.place(picky) for _ in range(8))


def test_a_history_is_overruled_by_what_really_comes() -> None:
    half = Demand(gpus=1, share_milli=500)
    mix = DemandMix([half] * 5000, at_most=100)
    assert (mix.total, mix.gpu_total) == (100, 50)
    for _ in range(300):
        mix.add(replace(half, share_milli=250))
    assert [count for _, count in mix.items()] == [300, 100]


def test_a_small_task_fills_the_hole_that_fits_it() -> None:
    nodes = [Node(name="box", cpu_milli=64000, memory_mib=65536, gpus=4)]

    def task(share: int) -> Demand:
        return Demand(cpu_milli=1000, memory_mib=64, gpus=1, share_milli=share)

    history = [task(650), task(320), task(530), task(470)] * 5
    packer = Packer(nodes, history=history)
    spots = [packer.place(task(share)) for share in (650, 530, 320, 470)]
    assert [spot.gpus[0] for spot in spots if spot] == [0, 1, 0, 1]


def test_ours_allocates_more_than_best_fit_where_cpu_is_short_on_some_nodes() -> None:
    chance = random.Random(1)
    tight = [
        Node(name=f"t{i}", cpu_milli=48000, memory_mib=10**6, gpus=8, model="T4")
        for i in range(20)
    ]
    ample = [
        Node(name=f"a{i}", cpu_milli=96000, memory_mib=10**6, gpus=2, model="A10")
        for i in range(20)
    ]
    kinds = [
        Demand(cpu_milli=cpu, memory_mib=64, gpus=1, share_milli=share)
        for cpu, share in (
            (2000, WHOLE),
            (12000, WHOLE),
            (6000, 480),
            (3000, 310),
            (4000, 660),
            (1000, 820),
        )
    ]
    arrivals = [chance.choice(kinds) for _ in range(400)] + [
        Demand(cpu_milli=16000, memory_mib=64)
    ] * 30
    chance.shuffle(arrivals)
    left = {}
    for policy in ("scarcity", "best-fit"):
        packer = Packer(tight + ample, policy=policy)
        for demand in arrivals:
            packer.place(demand)
        left[policy] = packer.cluster.free_milli
    assert left["scarcity"] < 0.95 * left["best-fit"]
