"""Whom a broker of all users can hold to a share, and what sharing costs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import pytest

from jupyter_aistack.core.model.device import Device, Enforcement, Slice, SliceKind
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.plan import Grant, grant_to_lease
from jupyter_aistack.providers.nvidia import enforcement
from jupyter_aistack.providers.nvidia.enforcement import ShareEnforcer
from jupyter_aistack.providers.nvidia.levels import EnforcementOption
from jupyter_aistack.providers.nvidia.mps import MPSManager
from jupyter_aistack.providers.nvidia.mps.users import SHARED_SERVER
from tests.fakes.user_processes import NEEDS_ROOT
from tests.fakes.world import ask, gpus


class Rungs:
    """Tells one level of every GPU."""

    def __init__(self, level: Enforcement) -> None:
        self.level = level

    def rung(self, device: Device) -> EnforcementOption:
        return EnforcementOption(level=self.level)


def enforcer(
    root: Path, level: Enforcement = Enforcement.L2, **options: Any
) -> ShareEnforcer:
    manager = MPSManager(root=lambda: root, interval=None)
    rungs = cast(Any, Rungs(level))
    return ShareEnforcer(cast(Any, None), mps=manager, prober=rungs, **options)


def share(gpu: Device) -> Slice:
    return Slice(
        device_id=gpu.id,
        kind=SliceKind.SHARE,
        fraction=Fraction(1, 4),
        memory_bytes=1 << 30,
    )


def lease_of(user: str) -> Lease:
    grant = Grant(request=ask("r", user=user), slices=(), expires_at=1.0)
    return grant_to_lease(grant, "l-1", 1, 0.0)


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("level", "options", "is_told"),
    [
        (Enforcement.L2, {"serves_host": True, "users_share": True}, True),
        (Enforcement.L3, {"serves_host": True, "users_share": True}, True),
        (Enforcement.L1, {"serves_host": True, "users_share": True}, False),
        (Enforcement.L2, {"serves_host": True}, False),
        (Enforcement.L2, {}, False),
    ],
)
def test_what_users_lose_who_share_a_server_is_told(
    tmp_path: Path, level: Enforcement, options: dict[str, bool], is_told: bool
) -> None:
    [gpu] = gpus(1)
    advice = enforcer(tmp_path, level, **options).visible_level(gpu).advice
    assert (SHARED_SERVER in advice) is is_told


def test_a_broker_that_is_not_root_s_holds_its_own_user_alone_by_mps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcement, "is_root", lambda: False)
    [gpu] = gpus(1)
    shared = replace(gpu, level=Enforcement.L2)
    slices = [share(gpu)]
    held = enforcer(tmp_path, serves_host=True).enforce(
        lease_of("uid-23001"), slices, {gpu.id: shared}
    )
    assert held.level is None
    [condition] = held.conditions
    assert "runs as root alone" in condition.message


@NEEDS_ROOT
def test_a_user_whom_the_host_does_not_know_is_not_held_by_mps(tmp_path: Path) -> None:
    [gpu] = gpus(1)
    shared = replace(gpu, level=Enforcement.L2)
    held = enforcer(tmp_path, serves_host=True).enforce(
        lease_of("nobody-of-this-host"), [share(gpu)], {gpu.id: shared}
    )
    [condition] = held.conditions
    assert "is no user of this host" in condition.message
