"""What is told of a change: that which differs, as it was and as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

from jupyter_aistack.core.audit.changes import (
    as_text,
    lease_changes,
    request_changes,
    reservation_text,
)
from jupyter_aistack.core.model.device import Slice, SliceKind
from jupyter_aistack.core.model.device_state import DeviceState, RequestedAction
from jupyter_aistack.core.model.lease import Lease, LeaseState, Notice, NoticeKind
from jupyter_aistack.core.model.limit import SliceLimit
from jupyter_aistack.core.model.request import (
    Holder,
    HolderKind,
    Request,
    RequestState,
)
from jupyter_aistack.core.model.reservation import Reservation
from jupyter_aistack.core.model.spec import parse_spec

HOLDER = Holder(kind=HolderKind.KERNEL, id="k-1", user="ann", host="box", pid=42)
SHARE = Slice(
    device_id="GPU-1",
    kind=SliceKind.SHARE,
    fraction=Fraction(1, 4),
    memory_bytes=20,
)
LEASE = Lease(
    id="l-1",
    token=1,
    request_id="r-1",
    spec=parse_spec("1/4"),
    holder=HOLDER,
    slices=(SHARE,),
    granted_at=0.0,
    expires_at=60.0,
)
REQUEST = Request(id="r-1", spec=parse_spec("1/4"), holder=HOLDER, submitted_at=0.0)


def test_of_what_is_new_all_is_told() -> None:
    before, after = lease_changes(None, LEASE)
    assert before == ""
    assert json.loads(after) == {
        "spec": "1/4",
        "queue": "default",
        "holder": "k-1",
        "label": "",
        "pid": 42,
        "slices": ["GPU-1 1/4, 20 bytes"],
        "state": "granted",
    }
    assert json.loads(request_changes(None, REQUEST)[1])["state"] == "queued"


def test_of_what_changes_only_that_is_told() -> None:
    active = replace(LEASE, state=LeaseState.ACTIVE, ends_at=90.0)
    assert lease_changes(LEASE, active) == (
        '{"state":"granted"}',
        '{"state":"active","ends_at":90.0}',
    )
    granted = replace(REQUEST, state=RequestState.GRANTED)
    assert request_changes(REQUEST, granted) == (
        '{"state":"queued"}',
        '{"state":"granted"}',
    )


def test_a_renewal_is_no_change_that_is_told() -> None:
    assert lease_changes(LEASE, replace(LEASE, expires_at=90.0)) == ("", "")


def test_notices_limits_and_what_users_ask_of_a_state_are_told() -> None:
    notice = Notice(kind=NoticeKind.IDLE, at=1.0, ends_at=2.0)
    limit = SliceLimit(device_id="GPU-1", fraction=Fraction(1, 2), memory_bytes=40)
    home = DeviceState(is_kept=True, asked=RequestedAction.SUSPEND)
    after = replace(LEASE, notice=notice, limits=(limit,), residence=home)
    assert json.loads(lease_changes(LEASE, after)[1]) == {
        "limits": ["GPU-1 1/2, 40 bytes"],
        "notice": "idle",
        "residence": {
            "phase": "resident",
            "pinned_by_user": True,
            "asked": "suspend",
        },
    }


def test_a_reservation_is_told_with_who_made_it() -> None:
    reservation = Reservation(
        id="v-1",
        name="class",
        queue="default",
        spec=parse_spec("1/4"),
        count=3,
        starts_at=0.0,
        ends_at=9.0,
        created_by="root",
    )
    told = json.loads(reservation_text(reservation))
    assert (told["slices"], told["created_by"]) == ("3 x 1/4", "root")


def test_what_is_none_of_json_is_told_as_it_is_printed() -> None:
    assert as_text({"share": Fraction(1, 4)}) == '{"share":"1/4"}'
    assert as_text({}) == ""
