"""What this process has written itself it need not read again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.ledger.sql.ledger import SQLLedger

Wish = Callable[..., Request]
Granter = Callable[..., Lease]
Pair = tuple[SQLLedger, SQLLedger]


@pytest.fixture
def pair(url: str) -> Iterator[Pair]:
    """Two ledgers over one database, as two processes have them."""
    both = SQLLedger(url), SQLLedger(url)
    yield both
    for ledger in both:
        ledger.close()


def assert_is_known(ledger: SQLLedger, now: float = 1.0) -> None:
    """The state is what was known before. A file tells that it need not be read again;
    a server may have done something for itself.
    """
    known = ledger.recall("box", now)
    state = ledger.read("box", now)
    assert state == known
    assert state is known or not ledger.shown_url.startswith("sqlite")


def test_own_writes_are_known_as_they_are_stored(
    pair: Pair, wish: Wish, grant: Granter
) -> None:
    ledger, other = pair
    lease = grant(ledger, wish("r-1"), ends_at=500.0)
    ledger.submit(wish("r-3", 3.0, idempotency_key="a\0b\ud800"))
    ledger.submit(wish("r-2", 2.0))
    ledger.renew(lease.id, lease.token, 2.0, 90.0)
    assert_is_known(ledger)
    assert ledger.read("box", 1.0) == other.read("box", 1.0)
    ledger.step(lease.id, lease.token, LeaseTransition.RELEASE, 3.0)
    ledger.step(lease.id, lease.token, LeaseTransition.FINISH, 4.0)
    ledger.cancel("r-2", 5.0)
    assert_is_known(ledger, 6.0)
    assert ledger.read("box", 6.0) == other.read("box", 6.0)


def test_a_lease_is_looked_up_among_what_is_known(
    pair: Pair, wish: Wish, grant: Granter
) -> None:
    ledger, other = pair
    lease = grant(ledger, wish("r-1"), ends_at=50.0)
    assert ledger.lease(lease.id, 1.0) == ledger.read("box", 1.0).leases[0] == lease
    other.renew(lease.id, lease.token, 2.0, 40.0)
    assert ledger.lease(lease.id, 2.0).expires_at == 40.0
    assert not ledger.lease(lease.id, 60.0).is_live


def test_what_is_written_of_another_host_is_read_anew(pair: Pair, wish: Wish) -> None:
    ledger, other = pair
    assert ledger.read("box", 0.0).queued_elsewhere == {}
    ledger.submit(wish("r-1", host="attic"))
    assert ledger.read("box", 1.0).queued_elsewhere == {"ann": 1}
    assert ledger.read("box", 1.0) == other.read("box", 1.0)


def test_a_clock_that_was_set_back_has_the_state_read_anew(
    pair: Pair, wish: Wish
) -> None:
    ledger, _ = pair
    ledger.submit(wish("r-1"))
    state = ledger.read("box", 100.0)
    assert ledger.read("box", 50.0) is not state
    assert ledger.read("box", 50.0) == state


def test_who_reads_need_not_wait_for_a_writer_of_the_same_process(
    pair: Pair, wish: Wish, grant: Granter
) -> None:
    ledger, _ = pair
    lease = grant(ledger, wish("r-1"))
    begun = threading.Event()
    may_end = threading.Event()

    def hold() -> None:
        with ledger._writing():
            begun.set()
            assert may_end.wait(60)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(hold)
        assert begun.wait(60)
        try:
            assert ledger.read("box", 1.0).leases == (lease,)
            assert ledger.lease(lease.id, 1.0) == lease
        finally:
            may_end.set()
        writer.result(60)


def test_a_write_that_failed_leaves_nothing_known_that_is_not_so(
    pair: Pair, wish: Wish
) -> None:
    ledger, other = pair
    ledger.submit(wish("r-1"))
    ledger.read("box", 0.0)
    with pytest.raises(ZeroDivisionError):
        fail_to_write(ledger, wish("r-2"))
    assert [each.id for each in ledger.read("box", 1.0).requests] == ["r-1"]
    assert ledger.read("box", 1.0) == other.read("box", 1.0)


def fail_to_write(ledger: SQLLedger, request: Request) -> None:
    with ledger._writing() as rows:
        rows.keep_request(request, is_new=True)
        rows.version += 1
        raise ZeroDivisionError
