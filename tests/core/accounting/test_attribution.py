"""How energy is divided: every millijoule goes somewhere, and what cannot be known is
nobody's.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.accounting.attribution import charges_of, split
from jupyter_aistack.core.accounting.charges import (
    LEVELS,
    SYSTEM,
    CellInterval,
    MeterState,
    UsageRecord,
    added,
    level_of,
    summed,
)
from jupyter_aistack.core.accounting.intervals import (
    GAP_SECONDS,
    Interval,
    ProcessLoad,
    calibrated,
    holdings,
    interval,
)
from jupyter_aistack.core.model.device import Device, DeviceKind, Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease, LeaseState, Outcome
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.testing import holder

GPU = Device(
    id="GPU-0",
    host="box",
    kind=DeviceKind.GPU,
    index=0,
    name="NVIDIA H200",
    memory_bytes=1 << 37,
)
START = 86400.0 * 20_000


def lease(name: str = "l-a", share: str = "1/4", **fields: Any) -> Lease:
    slice_ = Slice(
        device_id="GPU-0",
        kind=SliceKind.SHARE,
        fraction=Fraction(share),
        memory_bytes=1 << 34,
    )
    text: dict[str, Any] = {
        "holder": holder(f"kernel-{name}"),
        "granted_at": START - 100,
        "expires_at": START + 1e6,
    }
    return Lease(
        id=name,
        token=1,
        request_id="r",
        spec=parse_spec(share),
        slices=(slice_,),
        **text | fields,
    )


def gone(
    millijoules: int | None = 100_000, seconds: float = 10.0, **load: Any
) -> Interval:
    return Interval(
        device=GPU,
        start=START,
        end=START + seconds,
        millijoules=millijoules,
        load=ProcessLoad(**load),
    )


def bill(
    gone_by: Interval,
    leases: list[Lease],
    idle: float | None = 4.0,
    cells: list[CellInterval] | None = None,
) -> dict[str, UsageRecord]:
    held = holdings(leases, gone_by)
    return {
        f"{c.lease_id}{c.cell}": c for c in charges_of(gone_by, held, idle, cells or [])
    }


def cell(
    name: str,
    begin: float,
    end: float | None,
    owner: str = "kernel-l-a",
    user: str = "ann",
) -> CellInterval:
    ended = None if end is None else START + end
    return CellInterval(
        host="box",
        user=user,
        owner=owner,
        cell=name,
        began_at=START + begin,
        ended_at=ended,
    )


# -- the split -------------------------------------------------------------------------


def test_idle_energy_goes_by_share_and_the_rest_by_activity():
    parts = split(1000, 400, {"a": 0.25, "b": 0.5}, {"a": 0.6, "b": 0.2}, 0.0)
    assert parts == {"a": (100, 450), "b": (200, 150), SYSTEM: (100, 0)}


def test_what_strangers_do_is_the_systems():
    assert split(1000, 0, {"a": 0.5}, {"a": 0.3}, 0.7) == {
        "a": (0, 300),
        SYSTEM: (0, 700),
    }


def test_power_above_idle_that_nobody_worked_for_is_the_systems():
    assert split(1000, 400, {"a": 0.5}, {"a": 0.0}, 0.0) == {
        "a": (200, 0),
        SYSTEM: (200, 600),
    }


def test_a_lease_whose_activity_is_unknown_is_charged_its_idle_part_alone():
    parts = split(1000, 400, {"a": 0.25, "b": 0.25}, {"a": 0.5}, 0.5)
    assert parts == {"a": (100, 300), "b": (100, 0), SYSTEM: (200, 300)}
    unseen = split(1000, 400, {"a": 0.25}, {}, None)
    assert unseen == {"a": (100, 0), SYSTEM: (300, 600)}


def test_energy_of_which_the_idle_part_alone_is_known_is_not_called_known():
    gap = gone(busy={}, others=None)
    (record,) = (
        r for r in charges_of(gap, holdings([lease()], gap), 10.0) if r.lease_id
    )
    assert (record.millijoules > 0, record.metered_seconds) == (True, 0.0)


def test_a_whole_device_is_its_one_leases_whatever_can_be_known():
    assert split(1000, 400, {"a": 1.0}, {}, None) == {"a": (400, 600), SYSTEM: (0, 0)}


NAMES = st.sampled_from("abcdef")
SHARES = st.dictionaries(NAMES, st.floats(0, 1), max_size=6)


@given(
    whole=st.integers(0, 10**12),
    idle=st.integers(-5, 10**12),
    shares=SHARES,
    busy=SHARES,
    others=st.none() | st.floats(0, 1),
)
def test_the_parts_are_the_whole_exactly_and_none_is_negative(
    whole: int,
    idle: int,
    shares: dict[str, float],
    busy: dict[str, float],
    others: float | None,
) -> None:
    parts = split(whole, idle, shares, busy, others)
    assert sum(sum(part) for part in parts.values()) == whole
    assert min(min(part) for part in parts.values()) >= 0
    assert parts.keys() <= shares.keys() | {SYSTEM}


SPANS = st.tuples(
    st.sampled_from(["1:a", "2:b", "3:c"]),
    st.floats(-5, 15),
    st.none() | st.floats(-5, 20),
)
LEASED = st.tuples(
    st.sampled_from(["1/8", "1/4", "1/2", "1"]),
    st.floats(-20, 15),
    st.none() | st.floats(-10, 20),
)


@given(
    leased=st.lists(LEASED, max_size=4),
    spans=st.lists(SPANS, max_size=5),
    busy=st.dictionaries(
        st.sampled_from(["l-0", "l-1", "l-2", "l-9"]), st.floats(0, 1)
    ),
    others=st.none() | st.floats(0, 1),
    millijoules=st.none() | st.integers(0, 10**9),
    idle=st.none() | st.floats(0, 1000),
    seconds=st.sampled_from([-1.0, 0.0, 1e-3, 2.0, 10.0]),
)
def test_every_charge_of_an_interval_together_is_what_its_counter_moved_by(
    leased: list[tuple[str, float, float | None]],
    spans: list[tuple[str, float, float | None]],
    busy: dict[str, float],
    others: float | None,
    millijoules: int | None,
    idle: float | None,
    seconds: float,
) -> None:
    leases = [
        lease(
            f"l-{n}",
            share,
            granted_at=START + begin,
            ended_at=None if end is None else START + end,
        )
        for n, (share, begin, end) in enumerate(leased)
    ]
    gone_by = gone(millijoules, seconds, busy=busy, others=others)
    held = holdings(leases, gone_by)
    charges = charges_of(
        gone_by, held, idle, [cell(n, b, e, "kernel-l-0") for n, b, e in spans]
    )
    assert sum(c.millijoules for c in charges) == (millijoules or 0)
    assert all(c.millijoules >= 0 and c.seconds >= 0 for c in charges)
    for each in held:
        own = [c for c in charges if c.lease_id == each.lease.id]
        assert sum(c.seconds for c in own) == pytest.approx(each.seconds)
        assert sum(c.watched_seconds for c in own) in (0.0, pytest.approx(each.seconds))
        expected = busy.get(each.lease.id, 0.0) * each.seconds
        assert sum(c.busy_seconds for c in own) == pytest.approx(expected, abs=1e-9)


# -- intervals -------------------------------------------------------------------------


def test_a_lease_that_comes_or_goes_in_between_pays_for_its_time_only():
    early = lease(
        "l-a",
        "1/2",
        ended_at=START + 5,
        outcome=Outcome.RELEASED,
        state=LeaseState.ENDED,
    )
    late = lease("l-b", "1/2", granted_at=START + 8)
    paid = bill(gone(40_000, busy={"l-a": 0.0, "l-b": 0.0}, others=0.0), [early, late])
    assert (
        paid["l-a"].millijoules,
        paid["l-b"].millijoules,
        paid[SYSTEM].millijoules,
    ) == (10_000, 4_000, 26_000)
    assert (paid["l-a"].seconds, paid["l-b"].share_seconds) == (5.0, 1.0)
    assert "l-c" not in bill(gone(), [lease("l-c", granted_at=START + 10)])


def test_a_suspended_lease_holds_nothing():
    assert set(
        bill(replace(gone(), suspended=frozenset({"l-a"})), [lease(), lease("l-b")])
    ) == {"l-b", SYSTEM}


def test_a_counter_that_began_anew_or_was_not_read_is_unknown_and_not_zero():
    before = MeterState(host="box", device_id="GPU-0", at=START, millijoules=5_000)
    for now in (4_999, None):
        anew = interval(
            GPU, before, ProcessLoad(millijoules=now), START + 10, is_watched=True
        )
        assert anew.millijoules is None
        paid = bill(anew, [lease()])
        assert list(paid) == ["l-a"]
        assert (
            paid["l-a"].millijoules,
            paid["l-a"].metered_seconds,
            paid["l-a"].seconds,
        ) == (0, 0.0, 10.0)
    assert (
        interval(
            GPU, None, ProcessLoad(millijoules=7), START, is_watched=True
        ).millijoules
        is None
    )
    assert (
        interval(
            GPU, before, ProcessLoad(millijoules=5_250), START + 10, is_watched=True
        ).millijoules
        == 250
    )


@pytest.mark.parametrize(
    ("seconds", "is_watched"), [(GAP_SECONDS + 1, True), (5.0, False), (-3.0, True)]
)
def test_who_worked_while_nobody_looked_is_unknown(seconds: float, is_watched: bool):
    before = MeterState(host="box", device_id="GPU-0", at=START, millijoules=0)
    load = ProcessLoad(millijoules=9_000, busy={"l-a": 0.5}, others=0.0)
    gap = interval(GPU, before, load, START + seconds, is_watched=is_watched)
    paid = bill(gap, [lease()])
    assert sum(record.millijoules for record in paid.values()) == 9_000
    if seconds > 0:
        assert paid["l-a"].seconds == seconds, (
            "that it was granted is known all the same"
        )
        assert (paid["l-a"].metered_seconds, paid["l-a"].watched_seconds) == (0.0, 0.0)


def test_memory_counts_while_it_is_known():
    paid = bill(gone(memory={"l-a": 1000}), [lease(), lease("l-b")])
    assert (
        paid["l-a"].peak_bytes,
        paid["l-a"].byte_seconds,
        paid["l-a"].memory_seconds,
    ) == (1000, 10_000.0, 10.0)
    assert (paid["l-b"].peak_bytes, paid["l-b"].memory_seconds) == (None, 0.0)


# -- cells -----------------------------------------------------------------------------


def test_a_cell_gets_its_time_of_the_idle_part_and_all_that_worked_meanwhile():
    cells = [
        cell("3:ab", 1, 3),
        cell("4:cd", 6, None),
        cell("9:xx", 0, 9, owner="another kernel"),
        cell("9:yy", 0, 9, user="ben"),
    ]
    paid = bill(gone(busy={"l-a": 0.3}, others=0.0), [lease()], cells=cells)
    assert set(paid) == {"l-a", "l-a3:ab", "l-a4:cd", SYSTEM}
    assert [paid[k].seconds for k in ("l-a", "l-a3:ab", "l-a4:cd")] == [4.0, 2.0, 4.0]
    # 40 J idle, a quarter of it the lease's; 60 J dynamic, all the lease's and all of
    # its cells.
    assert [paid[k].millijoules for k in ("l-a", "l-a3:ab", "l-a4:cd", SYSTEM)] == [
        4_000,
        22_000,
        44_000,
        30_000,
    ]
    assert paid["l-a3:ab"].busy_seconds == pytest.approx(1.0)
    assert paid["l-a3:ab"].levels[level_of(0.5)] == 2.0, (
        "0.3 over ten seconds is 0.5 over the six with cells"
    )
    assert paid["l-a"].levels[0] == 4.0


def test_a_cell_whose_kernel_died_ends_when_the_next_one_begins():
    cells = [cell("9:dead", -500, None), cell("1:new", 4, None)]
    paid = bill(gone(busy={"l-a": 0.3}, others=0.0), [lease()], cells=cells)
    assert (paid["l-a9:dead"].seconds, paid["l-a1:new"].seconds) == (4.0, 6.0)


def test_work_that_was_divided_by_share_is_marked_and_the_idle_part_is_not():
    leases = [lease("l-a"), lease("l-b")]
    work = {"busy": {"l-a": 0.3, "l-b": 0.3}, "others": 0.0}
    cells = [cell("3:ab", 5, None)]
    shared = gone(**work, estimated=frozenset({"l-a", "l-b"}))
    paid = bill(shared, leases, cells=cells)
    # 40 J idle, a quarter of it each lease's; 60 J dynamic, half of it each.
    assert [
        (paid[name].millijoules, paid[name].estimated_millijoules)
        for name in ("l-a", "l-a3:ab", "l-b", SYSTEM)
    ] == [(5_000, 0), (35_000, 30_000), (40_000, 30_000), (20_000, 0)]
    measured = bill(gone(**work), leases)
    assert {each.estimated_millijoules for each in measured.values()} == {0}
    unwatched = replace(shared, is_watched=False)
    assert bill(unwatched, leases)["l-a"].estimated_millijoules == 0
    both = added(paid["l-b"], paid["l-a3:ab"])
    assert both.estimated_millijoules == 60_000


def test_without_cells_the_lease_keeps_its_work():
    paid = bill(gone(busy={"l-a": 0.3}, others=0.0), [lease()])
    assert paid["l-a"].millijoules == 70_000
    assert paid["l-a"].levels[level_of(0.3)] == 10.0


def test_a_workers_use_is_its_kernels_cells():
    worker = lease("l-w", holder=holder("w-0", parent="kernel-l-a"))
    paid = bill(
        gone(busy={"l-w": 1.0}, others=0.0), [worker], cells=[cell("1:a", 0, 10)]
    )
    assert paid["l-w1:a"].owner == "kernel-l-a"


# -- idle watts ------------------------------------------------------------------------


METER = MeterState(host="box", device_id="GPU-0", at=START, millijoules=0)


def quiet(watts: float, **load: Any) -> list[Interval]:
    return [gone(int(watts * 10_000), **{"busy": {"l-a": 0.0}, "others": 0.0} | load)]


def test_idle_watts_are_the_least_seen_while_nothing_worked():
    first = calibrated(METER, quiet(200.0, busy={"l-a": 0.5}))
    assert (first.idle_watts, first.is_idle_seen) == (200.0, False)
    assert calibrated(first, quiet(300.0, busy={"l-a": 0.5})) == first
    assert calibrated(first, quiet(150.0, others=None)).idle_watts == 150.0
    idle = calibrated(first, quiet(220.0))
    assert (idle.idle_watts, idle.is_idle_seen) == (220.0, True), (
        "seen at rest goes before seen at work"
    )
    assert calibrated(idle, quiet(70.0, busy={"l-a": 0.5})) == idle
    assert calibrated(idle, quiet(70.0)).idle_watts == 70.0


def test_idle_watts_are_not_taken_from_what_is_too_short_or_was_not_seen():
    assert calibrated(METER, [gone(1000, 2.0, others=0.0)]) == METER
    assert calibrated(METER, [gone(None, 10.0, others=0.0)]) == METER
    assert (
        calibrated(METER, [replace(each, is_watched=False) for each in quiet(70.0)])
        == METER
    )
    assert calibrated(METER, []) == METER


# -- sums ------------------------------------------------------------------------------


def test_charges_add_up_and_keep_what_is_unknown():
    record = UsageRecord(
        host="box",
        device_id="GPU-0",
        day=1,
        seconds=1.0,
        millijoules=3,
        metered_seconds=1.0,
        label="old",
    )
    two = replace(
        record,
        seconds=2.0,
        metered_seconds=0.0,
        millijoules=0,
        peak_bytes=5,
        label="new",
    )
    both = added(record, two)
    assert (both.seconds, both.millijoules, both.metered_seconds, both.peak_bytes) == (
        3.0,
        3,
        1.0,
        5,
    )
    assert (both.label, added(record, record).peak_bytes) == ("new", None)
    assert summed([record, two, replace(record, day=2)]) == (
        both,
        replace(record, day=2),
    )


def test_levels_cover_all_activity():
    assert [level_of(value) for value in (0.0, 0.01, 1 / 8, 0.13, 1.0, 7.0)] == [
        0,
        1,
        2,
        3,
        len(LEVELS) - 1,
        len(LEVELS) - 1,
    ]


# -- a lease with a ceiling ------------------------------------------------------------


def charged(elastic: Lease, **load: Any) -> float:
    """The share that a lease is charged for ten seconds."""
    interval_ = gone(None, **load)
    records = charges_of(interval_, holdings([elastic], interval_), None)
    (record,) = [each for each in records if each.lease_id == elastic.id]
    return record.share


@pytest.mark.parametrize(
    ("load", "share"),
    [
        ({}, 0.25),  # unknown is not charged
        ({"busy": {"l-a": 0.1}, "others": 0.0}, 0.25),  # used or not
        ({"busy": {"l-a": 0.6}, "others": 0.0}, 0.6),
        ({"busy": {"l-a": 1.0}, "others": 0.0}, 0.75),  # not beyond the ceiling
        ({"memory": {"l-a": 1 << 36}}, 0.5),
        ({"busy": {"l-a": 0.6}, "others": 0.0, "memory": {"l-a": 1 << 36}}, 0.6),
    ],
)
def test_what_was_used_above_the_guarantee_is_charged(
    load: dict[str, Any], share: float
) -> None:
    assert charged(lease(up_to=Fraction(3, 4)), **load) == pytest.approx(share)


def test_without_a_ceiling_the_grant_alone_is_charged() -> None:
    busy = {"busy": {"l-a": 0.9}, "others": 0.0}
    assert charged(lease(), **busy) == pytest.approx(0.25)


def test_what_is_charged_above_a_guarantee_is_not_the_systems() -> None:
    interval_ = gone(1000, busy={"l-a": 0.6}, others=0.0)
    held = holdings([lease(up_to=Fraction(1))], interval_)
    shares = {each.lease_id: each.share for each in charges_of(interval_, held, None)}
    assert shares["l-a"] == pytest.approx(0.6)
    assert shares[SYSTEM] == pytest.approx(0.4)
