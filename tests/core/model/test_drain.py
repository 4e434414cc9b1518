"""What is said of devices that are out of placement by hand."""

from __future__ import annotations

import math

import pytest

from jupyter_aistack.core.model.condition import ConditionKind, Severity
from jupyter_aistack.core.model.device import Inventory
from jupyter_aistack.core.model.drain import Drain, DrainKind, drained_condition
from tests.fakes.world import gpus

NOON = 1795867200.0
OF = Drain(device_id="GPU-0", device_name="H100 0", host="box", since=0.0)


@pytest.mark.parametrize(
    ("drain", "text"),
    [
        (OF, "is being drained"),
        (
            Drain(device_id="", host="", since=0.0, until=NOON, reason="a fan"),
            "is being drained until 2026-11-28 12:00 UTC: a fan",
        ),
        (
            Drain(device_id="", host="", since=0.0, kind=DrainKind.QUARANTINE),
            "is in quarantine",
        ),
    ],
)
def test_it_says_why_and_until_when(drain: Drain, text: str) -> None:
    assert drain.text == text


def test_it_ends_by_itself_only_where_it_has_an_end() -> None:
    assert not OF.is_over(math.inf)
    timed = Drain(device_id="", host="", since=0.0, until=NOON)
    assert [timed.is_over(NOON - 1), timed.is_over(NOON)] == [False, True]


def test_holders_are_told_that_their_lease_goes_on() -> None:
    told = drained_condition(OF, 7.0)
    assert (told.kind, told.severity) == (
        ConditionKind.DEVICE_DRAINED,
        Severity.WARNING,
    )
    assert told.text == (
        "H100 0 is being drained; this lease goes on, and nothing new is granted there"
    )


def test_devices_are_marked_while_it_lasts() -> None:
    inventory = Inventory(host="testbox", devices=gpus(2))
    first, second = inventory.devices
    timed = Drain(device_id=first.id, host="box", since=0.0, until=NOON)
    gone = Drain(device_id="GPU-gone", host="box", since=0.0)

    def marked(now: float) -> Inventory:
        return inventory.with_drains([timed, gone], now)

    assert [device.drain for device in marked(0.0).devices] == [timed, None]
    marked_first, same_second = marked(0.0).devices
    assert (marked_first.is_healthy, marked_first.is_schedulable) == (True, False)
    assert (marked_first.schedulable_at, second.schedulable_at) == (NOON, -math.inf)
    assert same_second.is_schedulable
    assert marked(NOON) is inventory, "what is known of the devices stays known"
