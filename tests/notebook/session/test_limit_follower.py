"""A kernel follows its lease's limits before its next cell, once for each change."""

from __future__ import annotations

import os
from typing import Any

import pytest

from jupyter_aistack.core.enforcement.memory_caps import SHARE
from jupyter_aistack.notebook.session.limit_follower import LimitFollower


def mine(share: str, up_to: str | None = "1", *others: str) -> dict[str, Any]:
    """The answer of ``mine``: a lease with a share, and others of the kernel."""
    prepared = {"l-1": {"environment": {SHARE: share}}}
    for other in others:
        prepared[other] = {"environment": {SHARE: "0.1"}}
    leases = [{"id": lease_id, "up_to": up_to} for lease_id in prepared]
    return {"leases": leases, "prepared": prepared}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARE, "0.5")


def test_each_change_is_followed() -> None:
    follower = LimitFollower()
    follower.follow(mine("0.5"))
    follower.follow(mine("0.9"))
    assert os.environ[SHARE] == "0.9"
    follower.follow(mine("0.25"))
    assert os.environ[SHARE] == "0.25"


def test_what_did_not_change_is_left_as_the_user_set_it_since() -> None:
    follower = LimitFollower()
    follower.follow(mine("0.5"))
    os.environ[SHARE] = "0.3"
    follower.follow(mine("0.5"))
    assert os.environ[SHARE] == "0.3"


def test_a_lease_without_a_ceiling_and_several_leases_are_left_alone() -> None:
    follower = LimitFollower()
    follower.follow(mine("0.9", None))
    follower.follow(mine("0.9", "1", "l-2"))
    follower.follow({"leases": [], "prepared": {}})
    assert os.environ[SHARE] == "0.5"
