"""What a ledger promises of meters, charges and the spans of cells; on every ledger."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jupyter_aistack.core.accounting.charges import (
    NO_LEVELS,
    CellInterval,
    MeterState,
    UsageRecord,
    UsageSummary,
    added,
)
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.exceptions import LedgerConflict
from jupyter_aistack.ledger.base import Ledger

Wish = Callable[..., Request]
METER = MeterState(
    host="box",
    device_id="GPU-0",
    at=10.25,
    millijoules=2**53 + 1,
    idle_watts=70.5,
    is_idle_seen=True,
    writer="p-1",
)


def charge(lease: str = "l-1", day: int = 20_000, **fields: Any) -> UsageRecord:
    text: dict[str, Any] = {
        "user": "änn",
        "queue": "night",
        "owner": "kernel-1",
        "label": "work/Übung 🎓.ipynb",
        "spec": "1/4",
        "seconds": 10.0,
        "share_seconds": 2.5,
        "millijoules": 2**53 + 1,
        "metered_seconds": 9.5,
        "estimated_millijoules": 2**53 - 1,
        "busy_seconds": 0.1 + 0.2,
        "levels": (1.0, 0.0, 2.5, *NO_LEVELS[3:]),
        "byte_seconds": 1e15 / 3,
        "memory_seconds": 10.0,
        "peak_bytes": 2**40,
    }
    return UsageRecord(
        host="box", device_id="GPU-0", lease_id=lease, day=day, **text | fields
    )


def test_a_bill_is_read_back_field_by_field(ledger: Ledger) -> None:
    other = replace(
        METER,
        device_id="CPU-box",
        millijoules=None,
        idle_watts=None,
        is_idle_seen=False,
    )
    unknown = charge(
        "", user="", kind="simulated", peak_bytes=None, levels=NO_LEVELS, cell="3:ab"
    )
    ledger.settle(UsageSummary(after=(METER, other), charges=(charge(), unknown)))
    assert ledger.meters("box") == (other, METER)
    assert ledger.meters("elsewhere") == ()
    assert ledger.charges(0, 30_000) == (unknown, charge())


def test_a_bill_that_goes_on_adds_up(ledger: Ledger) -> None:
    ledger.settle(
        UsageSummary(after=(METER,), charges=(charge(), charge(), charge("l-2")))
    )
    moved = replace(METER, at=20.0, millijoules=2**54)
    later = charge(peak_bytes=2**41, label="renamed.ipynb")
    ledger.settle(UsageSummary(before=(METER,), after=(moved,), charges=(later,)))
    assert ledger.meters("box") == (moved,)
    assert ledger.charges(0, 30_000) == (
        added(added(charge(), charge()), later),
        charge("l-2"),
    )
    assert ledger.charges(0, 30_000)[0].millijoules == 3 * (2**53 + 1), (
        "to the millijoule"
    )


@pytest.mark.parametrize(
    "before",
    [
        (),
        (replace(METER, at=9.0),),
        (replace(METER, millijoules=1),),
        (replace(METER, device_id="GPU-9"),),
    ],
)
def test_a_bill_for_time_that_another_has_charged_changes_nothing(
    ledger: Ledger, before: tuple[MeterState, ...]
) -> None:
    ledger.settle(UsageSummary(after=(METER,), charges=(charge(),)))
    new = replace(METER, device_id="GPU-1")
    with pytest.raises(LedgerConflict, match="moved by another process"):
        ledger.settle(
            UsageSummary(
                before=before,
                after=(new, replace(METER, at=30.0)),
                charges=(charge(), charge("l-9")),
            )
        )
    assert ledger.meters("box") == (METER,)
    assert ledger.charges(0, 30_000) == (charge(),)


def test_of_several_writers_one_charges_each_stretch_of_time(ledger: Ledger) -> None:
    def write(number: int) -> None:
        for _ in range(20):
            meters = ledger.meters("box")
            at = meters[0].at if meters else 0.0
            try:
                moved = replace(METER, at=at + 1.0, millijoules=int(at + 1))
                ledger.settle(
                    UsageSummary(
                        before=meters,
                        after=(moved,),
                        charges=(charge(seconds=1.0, millijoules=1),),
                    )
                )
            except LedgerConflict:
                lost.append(number)

    lost: list[int] = []
    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (meter,), (paid,) = ledger.meters("box"), ledger.charges(0, 30_000)
    assert meter.at == paid.seconds == paid.millijoules == 80 - len(lost)


def test_charges_are_found_by_day_user_notebook_and_kernel(ledger: Ledger) -> None:
    charges = [
        charge("l-1", 1),
        charge("l-2", 2, user="bob"),
        charge("l-3", 3, label="other.ipynb"),
        charge("l-4", 4, owner="kernel-2"),
    ]
    ledger.settle(UsageSummary(charges=tuple(charges)))
    assert ledger.charges(1, 4) == tuple(charges)
    assert ledger.charges(2, 3) == tuple(charges[1:3])
    assert ledger.charges(0, 9, user="bob") == (charges[1],)
    assert ledger.charges(0, 9, user="änn", label="other.ipynb") == (charges[2],)
    assert ledger.charges(0, 9, owner="kernel-2") == (charges[3],)
    assert ledger.charges(0, 9, user="änn", label="other.ipynb", owner="kernel-2") == ()
    assert ledger.charges(0, 9, user="' OR '1'='1") == ()


def test_names_no_database_can_hold_are_charged_all_the_same(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.settle(
            UsageSummary(
                charges=(
                    charge(
                        user="a\0nn\ud800", label="\0.ipynb", owner="\0", cell="1:\0"
                    ),
                )
            )
        )
    assert [each.seconds for each in ledger.charges(0, 30_000)] == [20.0]
    ledger.record_cells(
        [CellInterval(host="box", user="ann", owner="\0k", cell="\ud800", began_at=1.0)]
        * 2
    )
    assert len(ledger.cells("box", 0.0)) == 1


def test_old_cells_are_folded_into_their_leases_and_no_sum_changes(
    ledger: Ledger,
) -> None:
    rng = random.Random(7)
    charges = [
        charge(
            lease,
            day,
            cell=cell,
            millijoules=rng.randrange(2**50),
            peak_bytes=rng.choice([None, 5, 9]),
        )
        for lease in ("l-1", "l-2")
        for day in (1, 2, 9)
        for cell in ("", "1:a", "2:b", "3:c")
        if cell or lease == "l-1"
    ]
    ledger.settle(UsageSummary(charges=tuple(charges)))
    assert ledger.aggregate_cells(3, limit=5) == 5
    assert ledger.aggregate_cells(3) == 7
    assert ledger.aggregate_cells(3) == 0
    kept = ledger.charges(0, 9)
    assert {(each.lease_id, each.day) for each in kept if not each.cell} == {
        ("l-1", 1), ("l-1", 2), ("l-1", 9), ("l-2", 1), ("l-2", 2),
    }  # fmt: skip
    assert {each.day for each in kept if each.cell} == {9}
    assert sum(each.millijoules for each in kept) == sum(
        each.millijoules for each in charges
    )
    assert sum(each.levels[2] for each in kept) == sum(
        each.levels[2] for each in charges
    )
    peaks = [
        each.peak_bytes
        for each in charges
        if (each.lease_id, each.day) == ("l-1", 1) and each.peak_bytes
    ]
    (folded,) = (each for each in kept if (each.lease_id, each.day) == ("l-1", 1))
    assert folded.peak_bytes == max(peaks, default=None)


def test_the_end_of_a_cell_replaces_its_beginning(ledger: Ledger) -> None:
    running = CellInterval(
        host="box", user="ann", owner="kernel-1", cell="3:ab12", began_at=5.25
    )
    earlier = CellInterval(
        host="box",
        user="ann",
        owner="kernel-2",
        cell="1:cd",
        began_at=1.0,
        ended_at=2.0,
    )
    ledger.record_cells([])
    ledger.record_cells([running, earlier, replace(earlier, host="other")])
    assert ledger.cells("box", 1.0) == (earlier, running)
    ended = replace(running, ended_at=7.5)
    ledger.record_cells([ended])
    assert ledger.cells("box", 2.0) == (ended,)
    assert ledger.cells("box", 7.5) == ()


def test_spans_that_are_over_are_forgotten(ledger: Ledger) -> None:
    month = 31 * 86400.0
    spans = [
        CellInterval(
            host="box",
            user="ann",
            owner="k",
            cell="1:a",
            began_at=month,
            ended_at=month + 5,
        ),
        CellInterval(host="box", user="ann", owner="k", cell="2:b", began_at=month + 6),
        CellInterval(host="box", user="ann", owner="dead", cell="9:z", began_at=0.0),
    ]
    ledger.record_cells(spans)
    ledger.delete_cells("box", month + 5)
    assert ledger.cells("box", 0.0) == tuple(spans[:2])
    ledger.delete_cells("other", 1e12)
    ledger.delete_cells("box", month + 6)
    assert ledger.cells("box", 0.0) == (spans[1],)


def test_books_leave_plans_and_history_alone(ledger: Ledger, wish: Wish) -> None:
    ledger.submit(wish("r-1"))
    before = (ledger.read("box", 1.0), ledger.events())
    ledger.settle(UsageSummary(after=(METER,), charges=(charge(),)))
    ledger.record_cells(
        [CellInterval(host="box", user="ann", owner="k", cell="1:a", began_at=1.0)]
    )
    ledger.aggregate_cells(9)
    assert (ledger.read("box", 1.0), ledger.events()) == before


def test_kernels_of_two_users_that_are_called_alike_have_cells_of_their_own(
    ledger: Ledger,
) -> None:
    own = CellInterval(host="box", user="ann", owner="k", cell="1:a", began_at=1.0)
    stranger = replace(own, user="ben", ended_at=2.0)
    ledger.record_cells([own, stranger])
    assert set(ledger.cells("box", 0.0)) == {own, stranger}
