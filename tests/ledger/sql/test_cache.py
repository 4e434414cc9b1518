"""What a ledger remembers of what it has read never hides what has been written since,
by whomever.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_aistack.core.model.condition import (
    ConditionKind,
    ConditionUpdate,
    new_condition,
)
from jupyter_aistack.core.model.lease import Lease, LeaseTransition, Notice, NoticeKind
from jupyter_aistack.core.model.plan import Plan, Reject
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.sql.cache import DecodeCache
from jupyter_aistack.ledger.sql.ledger import SQLLedger

Wish = Callable[..., Request]
Granter = Callable[..., Lease]
Pair = tuple[SQLLedger, SQLLedger]


NEW = new_condition(ConditionKind.NOTE, "new", 2.0)


@pytest.fixture
def pair(url: str) -> Iterator[Pair]:
    """Two ledgers over one database, as two processes have them."""
    both = SQLLedger(url), SQLLedger(url)
    yield both
    for ledger in both:
        ledger.close()


def reservation(name: str, ends_at: float) -> Reservation:
    spec = parse_spec("1/8")
    return Reservation(
        id=name,
        name=name,
        queue="q",
        spec=spec,
        count=2,
        host="box",
        starts_at=5.0,
        ends_at=ends_at,
    )


CHANGES: dict[str, Callable[[Ledger, Lease, Request], object]] = {
    "submitted": lambda other, lease, request: other.submit(
        replace(request, id="r-new")
    ),
    "cancelled": lambda other, lease, request: other.cancel(request.id, 2.0),
    "renewed": lambda other, lease, request: other.renew(
        lease.id, lease.token, 2.0, 99.0
    ),
    "extended": lambda other, lease, request: other.extend(
        lease.id, lease.token, 2.0, 55.0
    ),
    "noted": lambda other, lease, request: other.bind(
        lease.id, lease.token, 2.0, conditions=ConditionUpdate(put=(NEW,))
    ),
    "bound": lambda other, lease, request: other.bind(
        lease.id, lease.token, 2.0, holder=replace(lease.holder, pid=7)
    ),
    "noticed": lambda other, lease, request: other.bind(
        lease.id,
        lease.token,
        2.0,
        notice=Notice(kind=NoticeKind.IDLE, at=2.0, ends_at=9.0),
    ),
    "used": lambda other, lease, request: other.touch([lease.id], 2.0),
    "activated": lambda other, lease, request: other.step(
        lease.id, lease.token, LeaseTransition.ACTIVATE, 2.0, verified=True
    ),
    "ended": lambda other, lease, request: other.step(
        lease.id, lease.token, LeaseTransition.FAIL, 2.0
    ),
    "rejected": lambda other, lease, request: other.apply(
        Plan(
            version=other.read("box", 2.0).version,
            actions=(Reject(request_id=request.id, reason="no"),),
        ),
        2.0,
    ),
    "reserved": lambda other, lease, request: other.reserve(
        reservation("v-1", 50.0), 2.0
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_another_ledger_has_changed_is_seen_at_once(
    pair: Pair, wish: Wish, grant: Granter, change: str
) -> None:
    ledger, other = pair
    lease = grant(ledger, wish("r-1"))
    waiting = ledger.submit(wish("r-2"))
    before = ledger.read("box", 2.0)
    assert ledger.read("box", 2.0) == before
    CHANGES[change](other, lease, waiting)
    after = ledger.read("box", 2.0)
    assert after != before
    assert after == other.read("box", 2.0)


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_ledger_has_changed_itself_is_seen_at_once(
    pair: Pair, wish: Wish, grant: Granter, change: str
) -> None:
    ledger, other = pair
    lease = grant(ledger, wish("r-1"))
    waiting = ledger.submit(wish("r-2"))
    before = ledger.read("box", 2.0)
    CHANGES[change](ledger, lease, waiting)
    after = ledger.read("box", 2.0)
    assert after != before
    assert after == other.read("box", 2.0)


def test_what_another_process_has_written_is_seen(tmp_path: Path, wish: Wish) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    ledger = SQLLedger(url)
    ledger.submit(wish("r-1"))
    assert len(ledger.read("box", 1.0).requests) == 1
    code = f"from jupyter_aistack.ledger.sql.ledger import SQLLedger; SQLLedger({url!r}).cancel('r-1', 1.0)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert ledger.read("box", 1.0).requests == ()
    ledger.close()


def test_a_remembered_lease_still_ends_when_its_time_is_up(
    pair: Pair, wish: Wish, grant: Granter
) -> None:
    ledger, _ = pair
    grant(ledger, wish("r-1"), ends_at=60.0)
    assert (
        len(ledger.read("box", 59.0).leases)
        == len(ledger.read("box", 59.5).leases)
        == 1
    )
    assert ledger.read("box", 60.0).leases == ()


def test_a_remembered_reservation_passes(pair: Pair) -> None:
    ledger, _ = pair
    ledger.reserve(reservation("v-1", 20.0), 1.0)
    assert [kept.id for kept in ledger.read("box", 2.0).reservations] == ["v-1"]
    assert ledger.read("box", 21.0).reservations == ()
    assert [kept.id for kept in ledger.read("box", 3.0).reservations] == [
        "v-1"
    ]  # the clock was set back


def test_hosts_are_not_mistaken_for_one_another(
    pair: Pair, wish: Wish, grant: Granter
) -> None:
    ledger, _ = pair
    grant(ledger, wish("r-1", host="box"))
    grant(ledger, wish("r-2", host="other"))
    ledger.submit(wish("r-3", host="other"))
    for _ in range(2):
        box, other, none = (ledger.read(host, 1.0) for host in ("box", "other", "none"))
        assert [len(state.leases) for state in (box, other, none)] == [1, 1, 0]
        assert [len(state.requests) for state in (box, other, none)] == [0, 1, 0]


def test_what_has_not_changed_is_not_read_again(
    tmp_path: Path, wish: Wish, grant: Granter
) -> None:
    ledger = SQLLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    grant(ledger, wish("r-1"))
    ledger.submit(wish("r-2"))
    assert ledger.read("box", 1.0) is ledger.read("box", 2.0)
    ledger.close()


def test_what_waits_on_is_not_decoded_again(
    pair: Pair, wish: Wish, grant: Granter
) -> None:
    ledger, other = pair
    grant(ledger, wish("r-1"))
    ledger.submit(wish("r-2"))
    other.submit(wish("r-3", 1.0))
    before = ledger.read("box", 1.0)
    other.submit(wish("r-4", 2.0))
    after = ledger.read("box", 1.0)
    assert [request.id for request in after.requests] == ["r-2", "r-3", "r-4"]
    assert after.requests[0] is before.requests[0]
    assert after.leases[0] is before.leases[0]


def test_a_ledger_that_was_replaced_is_read_anew(tmp_path: Path, wish: Wish) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SQLLedger(f"sqlite:///{path}")
    ledger.submit(wish("r-1"))
    assert len(ledger.read("box", 1.0).requests) == 1
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    assert ledger.read("box", 1.0).requests == ()
    ledger.submit(wish("r-1", spec="1/8"))
    assert [str(request.spec) for request in ledger.read("box", 1.0).requests] == [
        "1/8"
    ]
    ledger.close()


def test_two_ledgers_agree_through_any_history(
    pair: Pair, wish: Wish, grant: Granter
) -> None:
    chance = random.Random(3)
    for turn in range(80):
        one, reader = chance.sample(pair, 2)
        now = 2.0 + turn / 100
        state = one.read("box", now)
        choice = chance.random()
        if choice < 0.4 or not state.requests:
            one.submit(wish(f"r-{turn}", now))
        elif choice < 0.6:
            grant(one, chance.choice(state.requests), now)
        elif choice < 0.7:
            one.cancel(chance.choice(state.requests).id, now)
        elif state.leases:
            lease = chance.choice(state.leases)
            if choice < 0.9:
                one.renew(lease.id, lease.token, now, now + 60.0 + turn)
            else:
                one.step(lease.id, lease.token, LeaseTransition.FAIL, now)
        fresh = SQLLedger(str(one._url))
        assert reader.read("box", now) == one.read("box", now) == fresh.read("box", now)
        fresh.close()


def test_what_is_gone_is_forgotten() -> None:
    recall, loaded = DecodeCache[str](), []

    def load(keys: list[str]) -> dict[str, str]:
        loaded.extend(keys)
        return {key: f"the {key}" for key in keys}

    assert recall.decoded("box", [("a", 1), ("b", 1)], load) == ["the a", "the b"]
    assert recall.decoded("box", [("b", 1)], load) == ["the b"]
    assert recall.decoded("box", [("a", 1), ("b", 2)], load) == ["the a", "the b"]
    assert loaded == ["a", "b", "a", "b"]
