"""The lease a kernel was launched with: its launcher watches over it, but its end must
be shown and acted on here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client.runtime import attach

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client
    from jupyter_aistack.core.enforcement.preparation import Preparation


class LaunchLease:
    """Takes from this process what it was launched with, once that lease has ended.

    Args:
        connect: gives the client.
    """

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._prepared: dict[str, Preparation] = {}

    def drop_ended(self, mine: Mapping[str, Any]) -> list[str]:
        """Undo what has ended since; one line for the user about each.

        Args:
            mine: what the kernel holds now, as the ``mine`` verb answers.
        """
        own = self._lease_ids()
        if not own:
            return []
        self._remember(mine["prepared"], own)
        ended = own - {lease["id"] for lease in mine["leases"]}
        if ended:
            # What another kernel holds, which has started this process, lives on.
            ended -= {lease["id"] for lease in self._connect().leases()}
        return [self._drop(lease_id) for lease_id in sorted(ended)]

    def _lease_ids(self) -> frozenset[str]:
        """Those it still lives by: `_drop` takes the others out of the environment."""
        return attach.LAUNCH_LEASES.intersection(_leases_in_environment())

    def _remember(self, prepared: Mapping[str, Any], own: frozenset[str]) -> None:
        """Keep how each was prepared: an ended lease is no longer in the answer."""
        from jupyter_aistack.core.wire.preparations import PREPARATION

        for lease_id, preparation in prepared.items():
            if lease_id in own:
                self._prepared[lease_id] = PREPARATION.from_dict(preparation)

    def _drop(self, lease_id: str) -> str:
        from jupyter_aistack.client.lease_end import ended_line

        preparation = self._prepared.pop(lease_id, None)
        # The lease ended before its first answer: what launchers set is known.
        attach.restore_environment(preparation or _preparation_in_environment())
        others = [own for own in _leases_in_environment() if own != lease_id]
        os.environ["AISTACK_LEASE"] = ",".join(others)

        for lease in self._connect().leases(ended=True):
            if lease["id"] == lease_id:
                return ended_line(lease)
        return f"the lease {lease_id} has ended"


def _leases_in_environment() -> list[str]:
    return [name for name in os.environ.get("AISTACK_LEASE", "").split(",") if name]


def _preparation_in_environment() -> Preparation:
    from jupyter_aistack.core.enforcement.device_visibility import hidden_environment
    from jupyter_aistack.core.enforcement.preparation import Preparation
    from jupyter_aistack.system.runtimes import installed_visibilities

    visibility = installed_visibilities()
    names = ["AISTACK_LEASE", *hidden_environment(visibility)]
    environment = {name: os.environ[name] for name in names if name in os.environ}
    return Preparation(environment=environment, visibility=visibility)
