"""Who looks after a lease of a daemon."""

from __future__ import annotations

import os
from dataclasses import replace

from jupyter_aistack.providers.nvidia.mps.control import MPSLimit
from jupyter_aistack.providers.nvidia.mps.records import DaemonLease
from jupyter_aistack.system.processes import pid_namespace, started_at


def test_only_who_is_known_to_have_ended_leaves_orphans() -> None:
    limit = MPSLimit(name="l-1", percent=25, mib=1024)
    own = DaemonLease(
        limit=limit,
        owner=os.getpid(),
        owner_started_at=started_at(os.getpid()),
        owner_namespace=pid_namespace(),
    )
    assert not own.is_orphan
    assert replace(own, owner_started_at=1.0).is_orphan
    elsewhere = replace(own, owner_started_at=1.0, owner_namespace=4711)
    assert not elsewhere.is_orphan, "another container's, which cannot be seen"
