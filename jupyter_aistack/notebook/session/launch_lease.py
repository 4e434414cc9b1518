"""The lease a kernel was launched with: its launcher looks after it, but its end must
be told and acted on here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jupyter_aistack.client.runtime import attach
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.wire.values import preparation_from_dict

_TO_LEAVE = (
    "AISTACK_LEASE",
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
)


class LaunchLease:
    """Lets go of what this process was started with once that has been taken back."""

    def __init__(self) -> None:
        self._prepared: dict[str, Preparation] = {}

    def drop_ended(self, mine: Mapping[str, Any]) -> list[str]:
        """Leave what has ended since; one line for the user about each.

        Args:
            mine: what the kernel holds now, as the ``mine`` verb answers.
        """
        live = {lease["id"] for lease in mine["leases"]}
        self._prepared.update(
            {
                i: preparation_from_dict(p)
                for i, p in mine["prepared"].items()
                if i in self._own()
            }
        )
        return [self._leave(lease_id) for lease_id in sorted(self._own() - live)]

    def _own(self) -> frozenset[str]:
        """Those it still lives by: `attach.leave` takes their ids out of the
        environment.
        """
        return attach.BORN_WITH & set(os.environ.get("AISTACK_LEASE", "").split(","))

    def _leave(self, lease_id: str) -> str:
        from jupyter_aistack.client import client as clients

        given = {name: os.environ[name] for name in _TO_LEAVE if name in os.environ}
        attach.leave(self._prepared.pop(lease_id, Preparation(environment=given)))
        others = [
            own
            for own in os.environ.get("AISTACK_LEASE", "").split(",")
            if own not in ("", lease_id)
        ]
        os.environ["AISTACK_LEASE"] = ",".join(others)
        lease = next(
            (
                lease
                for lease in clients.connect().leases(ended=True)
                if lease["id"] == lease_id
            ),
            None,
        )
        return (
            f"the lease {lease_id} has ended"
            if lease is None
            else clients.ended_line(lease)
        )
