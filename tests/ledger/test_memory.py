"""Whatever is done to them, in whatever order, the ledger in memory and the one in a
file give the same answers.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_aistack.core.accounting.charges import (
    CellInterval,
    MeterState,
    UsageRecord,
    UsageSummary,
)
from jupyter_aistack.core.model.condition import (
    Condition,
    ConditionKind,
    ConditionUpdate,
    Severity,
)
from jupyter_aistack.core.model.device import Enforcement, Slice, SliceKind
from jupyter_aistack.core.model.lease import (
    Lease,
    LeaseTransition,
    Notice,
    NoticeKind,
    Outcome,
)
from jupyter_aistack.core.model.plan import (
    Action,
    End,
    Grant,
    Notify,
    Plan,
    Reject,
    WithdrawNotice,
)
from jupyter_aistack.core.model.policy import WEEK_SECONDS
from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.usage_history import decayed_use, equivalents
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.sql.ledger import SQLLedger

HOSTS = st.sampled_from(["box", "other"])
NUMBERS = st.integers(0, 5)
SECONDS = st.sampled_from([0.1, 5.0, 300.0, 300.0, 1e9 / 3])
SPECS = st.sampled_from(["1/4", "1/2x2", "20GiB", "2", "1g.10gb", "cpu:2", "gpu:1/3"])
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
)
CONDITIONS = st.builds(
    Condition,
    kind=st.sampled_from(ConditionKind),
    severity=st.sampled_from(Severity),
    message=TEXTS,
    since=st.sampled_from([0.5, 1.0, 1e9 / 3]),
)
CONDITION_UPDATES = st.builds(
    ConditionUpdate,
    put=st.lists(CONDITIONS, max_size=2).map(tuple),
    clear=st.frozensets(st.sampled_from(ConditionKind), max_size=3),
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "verified": st.none() | st.booleans(),
        "conditions": CONDITION_UPDATES,
        "enforced_by": st.sampled_from(Enforcement),
    },
)
ENDINGS = st.sampled_from(
    [
        Outcome.EXPIRED,
        Outcome.ABANDONED,
        Outcome.LAPSED,
        Outcome.PREEMPTED,
        Outcome.RECLAIMED,
    ]
)

OPERATIONS = st.one_of(
    st.tuples(st.just("submit"), NUMBERS, HOSTS, SPECS, TEXTS, st.none() | SECONDS),
    st.tuples(st.just("cancel"), NUMBERS, TEXTS),
    st.tuples(st.just("rename"), NUMBERS, TEXTS),
    st.tuples(st.just("grant"), NUMBERS, SECONDS, st.none() | SECONDS),
    st.tuples(st.just("lease"), NUMBERS, HOSTS, SECONDS, st.none() | SECONDS),
    st.tuples(st.just("reject"), NUMBERS, TEXTS),
    st.tuples(st.just("end"), NUMBERS, ENDINGS, st.integers(0, 1)),
    st.tuples(
        st.just("notify"), NUMBERS, st.sampled_from(NoticeKind), st.integers(0, 1)
    ),
    st.tuples(st.just("withdraw"), NUMBERS, TEXTS),
    st.tuples(
        st.just("touch"),
        st.lists(NUMBERS, max_size=3),
        st.sampled_from([-5.0, 0.0, 0.0, 0.1]),
    ),
    st.tuples(st.just("reserve"), NUMBERS, HOSTS, SPECS, TEXTS, SECONDS, st.booleans()),
    st.tuples(st.just("unreserve"), NUMBERS),
    st.tuples(
        st.just("settle"),
        NUMBERS,
        HOSTS,
        TEXTS,
        st.integers(0, 2),
        st.none() | st.integers(0, 2**60),
    ),
    st.tuples(st.just("cell"), NUMBERS, HOSTS, TEXTS, st.none() | SECONDS),
    st.tuples(st.just("tidy"), HOSTS, st.integers(0, 4)),
    st.tuples(st.just("stale plan"), NUMBERS, st.integers(-2, 2)),
    st.tuples(
        st.just("step"),
        NUMBERS,
        st.sampled_from(LeaseTransition),
        CHANGES,
        st.integers(0, 1),
    ),
    st.tuples(st.just("renew"), NUMBERS, SECONDS),
    st.tuples(st.just("extend"), NUMBERS, st.none() | SECONDS),
    st.tuples(st.just("bind"), NUMBERS, TEXTS, st.none() | st.integers(1, 2**31)),
    st.tuples(st.just("look"), NUMBERS, HOSTS, st.booleans(), st.integers(0, 5)),
)

HISTORIES = st.lists(
    st.tuples(OPERATIONS, st.sampled_from([0.0, 0.0, 0.1, 5.0])),
    min_size=20,
    max_size=60,
)


class Driver:
    """Does one operation after another to a ledger and notes the answers, with the
    random lease ids taken out.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.now = 0.0
        self.ids: list[str] = []
        for host in ("box", "box", "other"):
            self.do_lease(1, host, 300.0, None)

    def request_id(self, number: int) -> str:
        """The id of a recent request: 0 is the latest, 5 is one that there never
        was.
        """
        return (
            self.ids[-1 - number % len(self.ids)]
            if self.ids and number < 5
            else "r-none"
        )

    def do(self, operation: tuple[Any, ...], seconds: float) -> str:
        self.now += seconds
        name, *arguments = operation
        try:
            answer = getattr(self, "do_" + name.replace(" ", "_"))(*arguments)
        except AIStackError as error:
            answer = (error.code, error.facts.get("outcome"))
        return self.anonymous(answer)

    def anonymous(self, answer: object) -> str:
        if "l-" not in repr(answer):
            return repr(answer)
        names = {
            lease.id: f"l-{lease.token}"
            for lease in self.ledger.leases(self.now, live=False)
        }
        return re.sub(r"l-[0-9a-f]{16}", lambda found: names[found[0]], repr(answer))

    def leased(self, number: int) -> Lease:
        """A recent lease, live or ended; 5 is one that there never was."""
        leases = self.ledger.leases(self.now, live=False, limit=5)
        return (
            leases[number % len(leases)]
            if leases and number < 5
            else self.ledger.lease("l-none", self.now)
        )

    def do_submit(
        self, number: int, host: str, spec: str, label: str, patience: float | None
    ) -> object:
        if number < 5:  # else the latest once more
            self.ids.append(f"r-{len(self.ids)}")
        holder = Holder(
            kind=HolderKind.RUN, id=f"h-{number}", user="ann", host=host, label=label
        )
        fields: dict[str, Any] = {
            "patience_seconds": patience,
            "priority": number,
            "preemptible": number > 2,
        }
        return self.ledger.submit(
            Request(
                id=self.request_id(0),
                spec=parse_spec(spec),
                holder=holder,
                submitted_at=self.now,
                **fields,
            )
        )

    def do_rename(self, number: int, label: str) -> object:
        request = self.ledger.request(self.request_id(number))
        renamed = replace(request.holder, label=label)
        return self.ledger.rebind(request.id, self.now, renamed)

    def do_cancel(self, number: int, reason: str) -> object:
        return self.ledger.cancel(self.request_id(number), self.now, reason)

    def apply(self, *actions: Action, off_by: int = 0) -> object:
        version = self.ledger.read("box", self.now).version + off_by
        return self.ledger.apply(Plan(version=version, actions=actions), self.now)

    def do_grant(self, number: int, seconds: float, ends_in: float | None) -> object:
        request = self.ledger.request(self.request_id(number))
        share = Slice(
            device_id="D",
            kind=SliceKind.CPU,
            fraction=Fraction(1, number + 1),
            memory_bytes=number,
            cores=(1, 3),
        )
        ends_at = None if ends_in is None else self.now + ends_in
        return self.apply(
            Grant(
                request=request,
                slices=(share,) * number,
                expires_at=self.now + seconds,
                ends_at=ends_at,
            )
        )

    def do_lease(
        self, number: int, host: str, seconds: float, ends_in: float | None
    ) -> object:
        self.do_submit(number, host, "1/4", "", None)
        return self.do_grant(0, seconds, ends_in)

    def do_reject(self, number: int, reason: str) -> object:
        return self.apply(Reject(request_id=self.request_id(number), reason=reason))

    def do_end(self, number: int, outcome: Outcome, off_by: int) -> object:
        lease = self.leased(number)
        return self.apply(
            End(lease_id=lease.id, token=lease.token + off_by, outcome=outcome)
        )

    def do_notify(self, number: int, kind: NoticeKind, off_by: int) -> object:
        lease = self.leased(number)
        notice = Notice(
            kind=kind,
            at=self.now,
            ends_at=self.now + 60.0,
            request_id=self.request_id(number),
        )
        return self.apply(
            Notify(
                lease_id=lease.id,
                token=lease.token + off_by,
                notice=notice,
                detail="why",
            )
        )

    def do_withdraw(self, number: int, detail: str) -> object:
        lease = self.leased(number)
        return self.apply(
            WithdrawNotice(lease_id=lease.id, token=lease.token, detail=detail)
        )

    def do_touch(self, numbers: list[int], late: float) -> object:
        ids = [self.leased(number).id if number < 5 else "l-none" for number in numbers]
        self.ledger.touch(ids, self.now + late)
        return self.ledger.leases(self.now, live=False)

    def do_reserve(
        self,
        number: int,
        host: str,
        spec: str,
        name: str,
        seconds: float,
        is_weekly: bool,
    ) -> object:
        fields: dict[str, Any] = {
            "starts_at": self.now,
            "ends_at": self.now + seconds,
            "is_weekly": is_weekly,
        }
        wanted = Reservation(
            id=f"v-{number}",
            name=name,
            queue="q",
            spec=parse_spec(spec),
            count=2,
            host=host,
            **fields,
        )
        return self.ledger.reserve(wanted, self.now)

    def do_unreserve(self, number: int) -> object:
        return self.ledger.unreserve(f"v-{number}", self.now)

    def do_settle(
        self, number: int, host: str, cell: str, late: int, bytes_held: int | None
    ) -> object:
        """Charge a lease; now and then from where the meter was before."""
        before = self.ledger.meters(host)
        known = tuple(replace(meter, at=meter.at - late // 2) for meter in before)
        lease = self.leased(number)
        charge = UsageRecord(
            host=host,
            device_id=f"D-{number % 2}",
            lease_id=lease.id,
            cell=cell if late else "",
            day=number,
            user=lease.holder.user,
            seconds=self.now,
            millijoules=number**9,
            peak_bytes=bytes_held,
        )
        meter = MeterState(
            host=host, device_id=charge.device_id, at=self.now, millijoules=bytes_held
        )
        self.ledger.settle(
            UsageSummary(
                before=known, after=(meter,), charges=(charge, replace(charge, day=1))
            )
        )
        return sorted(
            self.anonymous(charge) for charge in self.ledger.charges(0, 9, user="ann")
        )

    def do_cell(
        self, number: int, host: str, cell: str, seconds: float | None
    ) -> object:
        ended_at = None if seconds is None else self.now + seconds
        spans = [
            CellInterval(
                host=host,
                user="ann",
                owner=f"k-{number}",
                cell=cell,
                began_at=self.now - number,
                ended_at=ended_at,
            )
        ]
        self.ledger.record_cells(spans)
        return self.ledger.cells(host, self.now)

    def do_tidy(self, host: str, before: int) -> object:
        self.ledger.delete_cells(host, self.now - before)
        return self.ledger.aggregate_cells(before), self.ledger.cells(host, 0.0)

    def do_stale_plan(self, number: int, off_by: int) -> object:
        return self.apply(
            Reject(request_id=self.request_id(number), reason="stale"), off_by=off_by
        )

    def do_step(
        self, number: int, step: LeaseTransition, changes: dict[str, Any], off_by: int
    ) -> object:
        lease = self.leased(number)
        return self.ledger.step(
            lease.id, lease.token + off_by, step, self.now, **changes
        )

    def do_renew(self, number: int, seconds: float) -> object:
        lease = self.leased(number)
        return self.ledger.renew(lease.id, lease.token, self.now, self.now + seconds)

    def do_extend(self, number: int, seconds: float | None) -> object:
        lease = self.leased(number)
        return self.ledger.extend(
            lease.id,
            lease.token,
            self.now,
            None if seconds is None else self.now + seconds,
        )

    def do_bind(self, number: int, label: str, pid: int | None) -> object:
        lease = self.leased(number)
        return self.ledger.bind(
            lease.id,
            lease.token,
            self.now,
            holder=replace(lease.holder, label=label, pid=pid),
        )

    def do_look(self, number: int, host: str, live: bool, limit: int) -> object:
        ledger, now = self.ledger, self.now
        return ledger.leases(now, host=host, live=live, limit=limit), ledger.events(
            after=number, limit=limit
        )

    def everything(self) -> str:
        ledger, now = self.ledger, self.now
        states = ledger.read("box", now), ledger.read("other", now)
        books = ledger.meters("box"), ledger.meters("other"), ledger.charges(0, 99)
        kept = [
            sorted(repr(replace(charge, lease_id="")) for charge in books[2]),
            books[:2],
        ]
        return self.anonymous(
            (states, ledger.leases(now, live=False), ledger.events(), kept)
        )


@contextmanager
def twins() -> Iterator[tuple[Driver, Driver]]:
    with tempfile.TemporaryDirectory() as folder:
        ledgers: tuple[Ledger, Ledger] = (
            MemoryLedger(),
            SQLLedger(f"sqlite:///{folder}/ledger.sqlite"),
        )
        yield Driver(ledgers[0]), Driver(ledgers[1])
        for ledger in ledgers:
            ledger.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=HISTORIES)
def test_the_twins_give_the_same_answers(
    history: list[tuple[tuple[Any, ...], float]],
) -> None:
    with twins() as (one, other):
        for operation, seconds in history:
            assert one.do(operation, seconds) == other.do(operation, seconds)
        assert one.everything() == other.everything()


def assert_every_lease_is_charged_once(ledger: Ledger, now: float) -> None:
    ended = [
        lease for lease in ledger.leases(now, live=False) if lease.ended_at is not None
    ]
    accounts = ledger.read("box", now).accounts
    assert {(one.user, one.queue) for one in accounts} == {
        (one.holder.user, one.queue) for one in ended
    }
    for account in accounts:
        mine = [
            lease
            for lease in ended
            if (lease.holder.user, lease.queue) == (account.user, account.queue)
        ]
        whole = sum(
            decayed_use(
                equivalents(lease.slices),
                lease.granted_at,
                lease.ended_at or 0.0,
                account.at,
                WEEK_SECONDS,
            )
            for lease in mine
        )
        assert math.isclose(account.decayed, whole, rel_tol=1e-6, abs_tol=1e-6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=HISTORIES)
def test_no_history_breaks_what_is_always_true(
    history: list[tuple[tuple[Any, ...], float]],
) -> None:
    driver = Driver(MemoryLedger())
    version, seen = 0, 0
    for operation, seconds in history:
        driver.do(operation, seconds)
        state = driver.ledger.read("box", driver.now)
        leases = driver.ledger.leases(driver.now, live=False)
        assert state.version >= version
        assert not any(lease.is_expired(driver.now) for lease in leases)
        assert all((lease.outcome is None) == lease.is_live for lease in leases)
        assert (
            len({lease.token for lease in leases})
            == len({lease.request_id for lease in leases})
            == len(leases)
        )
        events = driver.ledger.events(after=seen)
        assert [event.sequence for event in events] == list(
            range(seen + 1, seen + 1 + len(events))
        )
        version, seen = state.version, seen + len(events)
    assert_every_lease_is_charged_once(driver.ledger, driver.now)
