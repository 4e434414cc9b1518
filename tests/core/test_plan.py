from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.device import Device, DeviceKind, Inventory
from jupyter_aistack.core.lease import Outcome
from jupyter_aistack.core.plan import Action, End, Grant, Reject, Snapshot, grant_to_lease, plan
from jupyter_aistack.core.queues import Queue
from jupyter_aistack.core.request import Request, parse_spec
from jupyter_aistack.core.units import GIB
from jupyter_aistack.testing import holder

GPUS = tuple(
    Device(id=f"GPU-{n}", host="testbox", kind=DeviceKind.GPU, index=n, name="H100", memory_bytes=80 * GIB)
    for n in range(2)
)
BOX = Inventory(host="testbox", devices=GPUS)
QUEUES = (Queue(name="default"), Queue(name="small", limit=Fraction(1, 2)), Queue(name="first", priority=5))


def ask(name: str, spec: str = "1/4", at: float = 0.0, **fields: object) -> Request:
    return Request(id=name, spec=parse_spec(spec), holder=holder(name), submitted_at=at, **fields)  # type: ignore[arg-type]


def snap(*requests: Request, **fields: object) -> Snapshot:
    return Snapshot(inventory=BOX, requests=requests, queues=QUEUES, **fields)  # type: ignore[arg-type]


def predict(snapshot: Snapshot, actions: tuple[Action, ...]) -> Snapshot:
    """The snapshot as it will be once `actions` are applied."""
    grants = [a for a in actions if isinstance(a, Grant)]
    decided = {a.request_id for a in actions if isinstance(a, Reject)} | {g.request.id for g in grants}
    fresh = tuple(grant_to_lease(g, f"predicted-{n}", n, g.expires_at) for n, g in enumerate(grants))
    waiting = tuple(r for r in snapshot.requests if r.id not in decided)
    return replace(snapshot, leases=snapshot.leases + fresh, requests=waiting)


def granted(snapshot: Snapshot, now: float = 10.0) -> list[str]:
    return [a.request.id for a in plan(snapshot, now, ttl_seconds=60).actions if isinstance(a, Grant)]


def test_who_came_first_is_served_first() -> None:
    assert granted(snap(ask("late", "2", at=2), ask("early", "1", at=1))) == ["early"]


def test_a_queue_of_higher_priority_and_a_request_of_higher_priority_go_first() -> None:
    snapshot = snap(ask("a", "2", at=1), ask("b", "2", at=2, queue="first"), ask("c", "2", at=0, priority=-1))
    assert granted(snapshot) == ["b"]


def test_small_requests_cannot_starve_a_large_one() -> None:
    one = grant_to_lease(Grant(request=ask("held", "1/2"), slices=_slices("1/2"), expires_at=99), "l-1", 1, 0.0)
    snapshot = snap(ask("whole", "2", at=1), ask("small", "1/4", at=2), leases=(one,))
    todo = plan(snapshot, 10.0, ttl_seconds=60)
    assert not todo.actions
    assert todo.reasons["whole"] == "waits for 1 on each of 2 devices; 1 of 2 are free"
    assert "earlier request goes first" in todo.reasons["small"]


def test_a_request_that_was_not_to_wait_is_rejected_with_the_reason() -> None:
    snapshot = snap(ask("a", "2", at=1), ask("b", "1/4", at=2, patience_seconds=0))
    rejected = plan(snapshot, 10.0, ttl_seconds=60).rejections()
    assert [r.request_id for r in rejected] == ["b"]
    assert "not to wait" in rejected[0].reason


def test_a_queue_never_holds_more_than_its_limit() -> None:
    snapshot = snap(
        ask("a", "1/2", queue="small"), ask("b", "1/4", at=1, queue="small"), ask("c", "1", at=2, queue="small")
    )
    todo = plan(snapshot, 10.0, ttl_seconds=60)
    assert granted(snapshot) == ["a"]
    assert todo.reasons["b"] == "queue small may hold 1/2 devices at once"
    assert [r.request_id for r in todo.rejections()] == ["c"]


def test_leases_past_their_time_or_without_a_living_holder_end() -> None:
    leases = tuple(
        grant_to_lease(Grant(request=ask(f"r{n}"), slices=(), expires_at=at), f"l{n}", n, 0.0)
        for n, at in ((1, 5), (2, 50), (3, 50))
    )
    todo = plan(snap(leases=leases, dead=frozenset({"l2"})), 10.0, ttl_seconds=60)
    assert [(a.lease_id, a.outcome) for a in todo.actions if isinstance(a, End)] == [
        ("l1", Outcome.EXPIRED),
        ("l2", Outcome.ABANDONED),
    ]


def test_a_reason_that_is_known_already_is_not_told_again() -> None:
    first = plan(snap(ask("a", "2"), ask("b", "2", at=1)), 10.0, ttl_seconds=60)
    again = snap(ask("a", "2"), ask("b", "2", at=1, reason=first.reasons["b"]))
    assert plan(again, 10.0, ttl_seconds=60).reasons == {}


SPECS = st.sampled_from(["1/8", "1/4", "1/3", "1/2", "1", "2", "10GiB", "1/2x2", "3"])
REQUESTS = st.lists(
    st.tuples(SPECS, st.floats(0, 100), st.sampled_from([q.name for q in QUEUES]), st.sampled_from([None, 0, 50])),
    max_size=15,
)


@given(REQUESTS)
def test_a_plan_grants_no_more_than_there_is_and_applied_twice_changes_nothing(
    asked: list[tuple[str, float, str, float | None]],
) -> None:
    requests = tuple(
        ask(f"r{n}", spec, at, queue=queue, patience_seconds=patience)
        for n, (spec, at, queue, patience) in enumerate(asked)
    )
    todo = plan(snap(*requests), 100.0, ttl_seconds=60)
    assert todo == plan(snap(*reversed(requests)), 100.0, ttl_seconds=60)
    decided = [a.request_id if isinstance(a, Reject) else a.request.id for a in todo.actions if not isinstance(a, End)]
    assert len(decided) == len(set(decided))
    assert {*decided, *todo.reasons} == {r.id for r in requests}
    for device in GPUS:
        pieces = [s for a in todo.actions if isinstance(a, Grant) for s in a.slices if s.device_id == device.id]
        assert sum(p.fraction for p in pieces) <= 1
        assert sum(p.memory_bytes for p in pieces) <= device.memory_bytes
    after = predict(snap(*requests), todo.actions)
    assert not plan(after, 100.0, ttl_seconds=60).actions


def _slices(spec: str) -> tuple:  # type: ignore[type-arg]
    return next(a.slices for a in plan(snap(ask("x", spec)), 0.0, ttl_seconds=60).actions if isinstance(a, Grant))
