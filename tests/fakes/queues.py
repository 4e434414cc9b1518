"""Hosts with queues of unlike weights, and requests at random."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from jupyter_aistack.core.model.policy import Policy, Queue
from tests.fakes.world import World, ask, gpus

QUEUES = (
    Queue(name="default"),
    Queue(name="small", limit=Fraction(1, 2)),
    Queue(name="first", priority=5),
    Queue(name="owed", quota=Fraction(1)),
    Queue(name="batch", is_batch=True, weight=Fraction(3)),
)


POLICY = Policy(queues=QUEUES)


def world(*requests: object, policy: Policy = POLICY, count: int = 2) -> World:
    made = World(gpus(count), policy)
    made.submit(*requests)  # type: ignore[arg-type]
    return made


SPECS = st.sampled_from(["1/8", "1/4", "1/3", "1/2", "1", "2", "10GiB", "1/2x2", "3"])


REQUESTS = st.lists(
    st.tuples(
        SPECS,
        st.integers(0, 90),
        st.sampled_from([q.name for q in QUEUES]),
        st.sampled_from(["ann", "bob", "eve"]),
        st.sampled_from([None, None, 0, 50]),
        st.sampled_from([None, 30.0, 5000.0]),
        st.booleans(),
    ),
    max_size=15,
)


def asked(table: list[tuple]) -> list:  # type: ignore[type-arg]
    return [
        ask(
            f"r{n}",
            spec,
            at,
            queue=queue,
            user=user,
            patience_seconds=patience,
            lease_seconds=seconds,
            preemptible=preemptible,
        )
        for n, (spec, at, queue, user, patience, seconds, preemptible) in enumerate(
            table
        )
    ]
