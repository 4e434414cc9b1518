"""A lease with a ceiling may use more or less from one cell to the next: the kernel's
frameworks follow before the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LimitFollower:
    """Has this kernel follow what its one lease may use now."""

    def __init__(self) -> None:
        self._lease_id = ""
        self._granted: dict[str, str] = {}

    def follow(self, mine: Mapping[str, Any]) -> None:
        """Follow the answer of the ``mine`` verb. A kernel with several leases keeps to
        the tightest of each that it was started with.
        """
        prepared = mine["prepared"]
        elastic = [lease["id"] for lease in mine["leases"] if lease["up_to"]]
        own = [lease_id for lease_id in elastic if lease_id in prepared]
        if len(prepared) != 1 or not own:
            return
        from jupyter_aistack.client.runtime.adjust import adjust, adjustable

        (lease_id,) = own
        granted = adjustable(prepared[lease_id]["environment"])
        is_known = lease_id == self._lease_id
        if is_known and granted == self._granted:
            return
        before = self._granted if is_known else granted
        adjust(granted, before)
        self._lease_id = lease_id
        self._granted = granted
