"""Who may read the audit trail, and what each reads there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.history import HistoryOptions
from jupyter_aistack.core.model.retention import DAY_SECONDS, Retention
from jupyter_aistack.core.model.roles import RoleSettings
from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied
from jupyter_aistack.testing import ManualClock, simulated_broker

ANN = Caller(user="ann", uid=1000, pid=os.getpid(), kernel_id="k-1")
BOB = Caller(user="bob", uid=1001, pid=None, kernel_id="k-2")
PROF = Caller(user="prof", uid=1002, pid=None)


class Desk:
    """A service, its clock, and an archive."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = ManualClock()
        options = HistoryOptions(
            folder=tmp_path / "archive",
            key_folder=tmp_path,
            retention=Retention(seconds=90 * DAY_SECONDS),
        )
        broker = simulated_broker("1xH100-80GB", clock=self.clock, history=options)
        self.service = Service(
            broker,
            roles=RoleSettings(admins=frozenset({"prof"})),
            groups=lambda user: frozenset(),
        )

    def call(self, verb: str, caller: Caller, **payload: Any) -> Any:
        return self.service.call(verb, payload, caller)

    def told(self, caller: Caller, **payload: Any) -> list[tuple[str, str, str]]:
        events = self.call("audit", caller, **payload)["events"]
        return [(e["kind"], e["user"], e["owner"]) for e in events]

    def hold(self, caller: Caller) -> str:
        answer = self.call("request", caller, spec="1/4")
        return str(answer["lease"]["id"])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_change_is_told_with_who_made_it_and_what_it_was(desk: Desk) -> None:
    lease_id = desk.hold(ANN)
    desk.call("release", ANN, lease_id=lease_id)
    event = desk.call("audit", ANN)["events"][-1]
    assert (event["kind"], event["user"], event["uid"]) == (
        "LeaseReleased",
        "ann",
        1000,
    )
    assert event["pid"] == os.getpid()
    assert Path(sys.executable).name in event["command"]
    assert event["after"] == {"state": "ended", "outcome": "released"}
    assert event["before"]["state"] in ("granted", "releasing")


def test_grants_are_the_brokers_doing(desk: Desk) -> None:
    desk.hold(ANN)
    assert desk.told(ANN) == [
        ("RequestQueued", "ann", "ann"),
        ("LeaseGranted", "", "ann"),
    ]


def test_users_read_what_they_did_and_what_was_done_to_theirs(desk: Desk) -> None:
    lease_id = desk.hold(ANN)
    desk.hold(BOB)
    desk.call("release", PROF, lease_id=lease_id)
    assert desk.told(ANN)[-1] == ("LeaseReleased", "prof", "ann")
    assert {owner for _, _, owner in desk.told(ANN)} == {"ann"}
    assert desk.told(BOB, user="bob") == desk.told(BOB)
    with pytest.raises(PermissionDenied, match="for admins only"):
        desk.told(BOB, user="ann")


def test_admins_read_all_or_one_users(desk: Desk) -> None:
    desk.hold(ANN)
    desk.hold(BOB)
    assert {owner for _, _, owner in desk.told(PROF)} == {"ann", "bob"}
    assert {owner for _, _, owner in desk.told(PROF, user="bob")} == {"bob"}


def test_only_what_happened_since_is_told(desk: Desk) -> None:
    desk.hold(ANN)
    desk.clock.advance(100.0)
    desk.hold(BOB)
    assert {owner for _, _, owner in desk.told(PROF, since=desk.clock.now)} == {"bob"}


def test_pages_follow_one_another(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_aistack.broker.api.audit_verbs.PAGE", 3)
    desk.hold(ANN)
    desk.hold(BOB)
    first = desk.call("audit", PROF)
    assert [event["sequence"] for event in first["events"]] == [1, 2, 3]
    second = desk.call("audit", PROF, after=first["after"])
    assert [event["sequence"] for event in second["events"]] == [4]
    assert second["after"] is None


def test_everybody_may_verify(desk: Desk) -> None:
    desk.hold(ANN)
    page = desk.call("audit_verify", BOB)
    assert (page["count"], page["flaw"]) == (2, None)
    last = desk.call("audit_verify", BOB, position=page["position"])
    assert last["position"] is None
    assert last["link"]["sequence"] == 2


@pytest.mark.parametrize("position", ["x", 1, {}, {"segment": 1, "link": {}}])
def test_a_position_that_is_none_is_refused(desk: Desk, position: object) -> None:
    with pytest.raises(InvalidRequest, match=r"position|segment|sequence"):
        desk.call("audit_verify", ANN, position=position)


def test_only_admins_archive(desk: Desk) -> None:
    lease_id = desk.hold(ANN)
    desk.call("release", ANN, lease_id=lease_id)
    with pytest.raises(PermissionDenied, match="archive is for admins only"):
        desk.call("archive", ANN)
    desk.clock.advance(100 * DAY_SECONDS)
    dry = desk.call("archive", PROF, dry_run=True)
    assert dry == {
        "counts": {"leases": 1, "requests": 0, "cells": 0, "events": 3},
        "files": [],
    }
    done = desk.call("archive", PROF)
    assert done["counts"] == {"leases": 1, "requests": 1, "cells": 0, "events": 3}
    assert len(done["files"]) == 3
    last = desk.call("audit", PROF)["events"][-1]
    assert (last["kind"], last["user"]) == ("HistoryArchived", "prof")
