"""Proof that the checkers of ``python -m tests.stress`` can find what they look for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.testing import ManualClock
from tests.fakes.leases import grant, wish
from tests.paths import ROOT
from tests.stress import replay
from tests.stress.actor import TTL_SECONDS
from tests.stress.journal import lives, notes
from tests.stress.observer import UNSEEN_SECONDS, Observer

__all__ = ["grant", "wish"]

Wish = Callable[..., Request]
Granter = Callable[..., Lease]


@pytest.fixture
def history(tmp_path: Path, wish: Wish, grant: Granter) -> SQLLedger:
    """A ledger with three leases of halves of one GPU: one given back, two live."""
    ledger = SQLLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    first = grant(ledger, wish("r-1"), 1.0)
    ledger.step(first.id, first.token, LeaseTransition.RELEASE, 2.0)
    ledger.step(first.id, first.token, LeaseTransition.FINISH, 2.0)
    grant(ledger, wish("r-2"), 3.0, ends_at=63.0)
    grant(ledger, wish("r-3"), 4.0, ends_at=64.0)
    return ledger


def on_gpu_0(ledger: SQLLedger) -> dict[str, Lease]:
    """The leases, as if their slices were of the stress test's first GPU."""
    leases = ledger.leases(5.0, live=False)
    return {
        lease.id: replace(lease, slices=(replace(lease.slices[0], device_id="GPU-0"),))
        for lease in leases
    }


def test_the_checker_accepts_a_clean_history(history: SQLLedger) -> None:
    assert replay.replay(history.events(), on_gpu_0(history)) == 0
    assert replay.check(history, "box", 100.0) == replay.Findings()


def test_the_checker_finds_a_double_grant(history: SQLLedger) -> None:
    never_given_back = [
        event for event in history.events() if event.kind.value != "LeaseReleased"
    ]
    assert replay.replay(never_given_back, on_gpu_0(history)) == 1


def test_the_checker_finds_a_lease_that_outlived_its_time(
    history: SQLLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jupyter_aistack.ledger.transactions.expire_due",
        lambda rows, now, half_life: [],
    )
    assert replay.check(history, "box", 100.0).alive_after_ttl == 2


def test_the_checker_finds_use_that_was_charged_twice_or_never(
    history: SQLLedger,
) -> None:
    leases = {lease.id: lease for lease in history.leases(5.0, live=False)}
    (account,) = history.read("box", 5.0).accounts
    assert replay.miscounted([account], leases) == []
    twice = replace(account, decayed=2 * account.decayed)
    assert replay.miscounted([twice], leases) == [
        "the account of ann in default is not what their leases used"
    ]
    assert replay.miscounted([], leases) == [
        "accounts without an ended lease, or the other way round"
    ]


def test_the_checker_finds_events_that_are_missing(history: SQLLedger) -> None:
    leases = {lease.id: lease for lease in history.leases(5.0, live=False)}
    assert replay.incoherent(history.events(after=2), leases) == [
        "leases without a grant, or granted twice"
    ]
    assert replay.incoherent(history.events(limit=2), leases)


class Watch:
    """An observer of the history, whose holder lives or not as a test says."""

    def __init__(self, ledger: SQLLedger, folder: Path) -> None:
        self.is_living = True
        self.turns = [0]
        self.observer = Observer(
            ledger,
            folder,
            lambda: self.turns,
            lambda: self.turns,
            is_seen=lambda holder: True,
            is_living=lambda folder, holder: self.is_living,
        )


def test_the_observer_finds_a_lease_that_a_living_holder_lost(
    history: SQLLedger, tmp_path: Path
) -> None:
    watch = Watch(history, tmp_path)
    watch.observer.look()
    (lease, _) = history.leases(5.0)
    history.step(lease.id, lease.token, LeaseTransition.REAP, 5.0)
    watch.observer.look()
    assert set(watch.observer.observations.lost) == {lease.id}


def test_the_observer_lets_the_dead_lose_their_leases(
    history: SQLLedger, tmp_path: Path
) -> None:
    watch = Watch(history, tmp_path)
    watch.is_living = False
    (lease, _) = history.leases(5.0)
    history.step(lease.id, lease.token, LeaseTransition.REAP, 5.0)
    watch.observer.look()
    assert watch.observer.observations.lost == {}


def test_the_observer_finds_what_the_dead_hold_after_their_time(
    history: SQLLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(0.0)
    monkeypatch.setattr("tests.stress.observer.time.monotonic", clock)
    watch = Watch(history, tmp_path)
    watch.is_living = False
    watch.observer.look()
    clock.advance(TTL_SECONDS + 0.1)
    watch.observer.look()
    watch.turns = [1]  # it had begun before the time was over
    watch.observer.look()
    assert watch.observer.observations.lingering == {}
    watch.turns = [2]
    watch.observer.look()
    assert len(watch.observer.observations.lingering) == 2


def test_the_observer_gives_time_to_what_is_being_released(
    history: SQLLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(0.0)
    monkeypatch.setattr("tests.stress.observer.time.monotonic", clock)
    watch = Watch(history, tmp_path)
    watch.is_living = False
    (lease, _) = history.leases(5.0)
    history.step(lease.id, lease.token, LeaseTransition.RELEASE, 5.0)
    for turns, seconds in ((0, 0.0), (0, TTL_SECONDS + 0.1), (2, 0.0)):
        watch.turns = [turns]
        clock.advance(seconds)
        watch.observer.look()
    assert lease.id not in watch.observer.observations.lingering
    for turns, seconds in ((2, UNSEEN_SECONDS), (4, 0.0)):
        watch.turns = [turns]
        clock.advance(seconds)
        watch.observer.look()
    assert lease.id in watch.observer.observations.lingering


def test_a_journal_tells_who_lives(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.stress.journal import *;"
        "own = Journal(Path(sys.argv[1]), 'me'); own.note(HANDED, 'l-1');"
        "print('there', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert lives(tmp_path, "me")
        holder.kill()
        holder.wait()
    assert not lives(tmp_path, "me")
    assert notes(tmp_path, "me") == [("handed", "l-1")]
