from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from jupyter_aistack.broker.api.caller import Access, Caller
from jupyter_aistack.broker.api.snapshots import (
    CHANGED_SECONDS,
    FRESH_SECONDS,
    HostSnapshots,
)
from jupyter_aistack.core.model.roles import RoleSettings

ALICE = Caller(user="alice", uid=1)
BOB = Caller(user="bob", uid=2)
ROOT = Caller(user="root", uid=0, is_admin=True)


class Host:
    """Answers the verbs that a snapshot is made of, and counts."""

    def __init__(self, *, show_names: bool = True) -> None:
        self.asked: Counter[str] = Counter()
        self.leases: list[str] = []
        self.now = 0.0
        access = Access(
            roles=RoleSettings(),
            show_names=show_names,
            groups=lambda _login: frozenset(),
        )
        names = ("host", "leases", "queue", "usage")
        verbs = {name: self._verb(name) for name in names}
        self.snapshots = HostSnapshots(verbs, access, lambda: self.now, self.pause)

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def _verb(self, name: str) -> Any:
        def answer(_payload: Any, caller: Caller) -> Any:
            self.asked[name] += 1
            if name == "usage":
                return {"at": self.now, "devices": {}, "leases": {}}
            return {name: [f"{lease} for {caller.user}" for lease in self.leases]}

        return answer


def test_all_who_see_the_same_share_one_look_a_second() -> None:
    host = Host()
    for caller in (ALICE, BOB, ROOT):
        host.snapshots.look(caller)
    assert set(host.asked.values()) == {1}
    host.now = FRESH_SECONDS
    host.snapshots.look(BOB)
    assert set(host.asked.values()) == {2}


def test_where_names_are_hidden_each_user_has_looks_of_their_own() -> None:
    host = Host(show_names=False)
    host.leases = ["l-1"]
    assert host.snapshots.look(ALICE).data["leases"] == ["l-1 for alice"]
    assert host.snapshots.look(BOB).data["leases"] == ["l-1 for bob"]
    assert host.asked["leases"] == 2


def test_the_revision_changes_with_what_is_shown_and_not_with_the_time() -> None:
    host = Host()
    first = host.snapshots.look(ALICE)
    host.now = FRESH_SECONDS
    same = host.snapshots.look(ALICE)
    assert same.revision == first.revision
    assert same.data["usage"]["at"] == FRESH_SECONDS
    host.leases = ["l-1"]
    host.now = 2 * FRESH_SECONDS
    assert host.snapshots.look(ALICE).revision > first.revision


def test_a_change_is_shown_to_all_who_ask_after_it_and_not_before_a_moment() -> None:
    host = Host()
    host.snapshots.look(ALICE)
    host.leases = ["l-1"]
    host.snapshots.note_change()
    shown = host.snapshots.look(ALICE)
    assert shown.data["leases"] == ["l-1 for alice"]
    assert shown.taken_at == CHANGED_SECONDS
    assert host.snapshots.look(BOB) is shown


def test_a_look_that_fails_is_taken_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    monkeypatch.setattr(host, "asked", None)
    with pytest.raises(TypeError):
        host.snapshots.look(ALICE)
    monkeypatch.undo()
    assert host.snapshots.look(ALICE).data["queue"] == []
