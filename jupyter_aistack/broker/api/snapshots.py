"""The host at one moment, looked at once for all who ask."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.visibility import Visibility

from .base import Payload, Verb
from .caller import Access, Caller

FRESH_SECONDS = 1.0
"""A look this old is shown again: the host is looked at once a second, however many
ask.
"""
CHANGED_SECONDS = 0.1
"""Between two looks at least, however much changes."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """The host at one moment, as some callers see it.

    Attributes:
        data: ``revision``, ``host``, ``leases``, ``queue`` and ``usage``.
        revision: another whenever something is shown that was not shown before.
        taken_at: when, on a clock that is never set.
    """

    data: JSON
    revision: int
    taken_at: float


class HostSnapshots:
    """Looks at the host for all who ask; callers that see the same share a look.

    Args:
        verbs: answer ``host``, ``leases``, ``queue`` and ``usage``.
        access: who sees what.
        clock: seconds on a clock that is never set.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        verbs: Mapping[str, Verb],
        access: Access,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._verbs = verbs
        self._access = access
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._looks: dict[Visibility, Look] = {}
        self._changed_at = -math.inf
        # A client may have the revision of a broker before this one.
        self._revisions = itertools.count(time.time_ns() // 1_000_000)

    def verbs(self) -> dict[str, Verb]:
        return {"snapshot": self._snapshot}

    def _snapshot(self, payload: Payload, caller: Caller) -> JSON:
        return self.look(caller).data

    def note_change(self) -> None:
        """Something may have changed: whoever asks from now on is shown it."""
        self._changed_at = self._clock()

    def look(self, caller: Caller) -> Look:
        """The host as a caller sees it: a second old at most, and with all changes that
        were noted before the call.
        """
        visibility = self._access.visibility(caller)
        # Who sees all names sees what all others do who see them.
        key = replace(visibility, user="") if visibility.sees_names else visibility
        with self._lock:  # whoever comes meanwhile waits for the look, and takes none
            latest = self._looks.get(key)
            if latest is None or not self._is_fresh(latest):
                self._wait_since(latest)
                latest = self._new_look(caller, latest)
                self._forget_old()
                self._looks[key] = latest
            return latest

    def _is_fresh(self, look: Look) -> bool:
        is_young = self._clock() - look.taken_at < FRESH_SECONDS
        return is_young and self._changed_at < look.taken_at

    def _wait_since(self, before: Look | None) -> None:
        if before is None:
            return
        left = before.taken_at + CHANGED_SECONDS - self._clock()
        if left > 0:
            self._pause(left)

    def _new_look(self, caller: Caller, before: Look | None) -> Look:
        taken_at = self._clock()
        data = {
            "host": self._verbs["host"]({}, caller),
            "leases": self._verbs["leases"]({}, caller)["leases"],
            "queue": self._verbs["queue"]({}, caller)["queue"],
            "usage": self._verbs["usage"]({}, caller),
        }
        is_new = before is None or _shown(before.data) != _shown(data)
        revision = (
            next(self._revisions) if is_new or before is None else before.revision
        )
        return Look(
            data={"revision": revision, **data}, revision=revision, taken_at=taken_at
        )

    def _forget_old(self) -> None:
        """Keep nothing for those who have gone."""
        now = self._clock()
        self._looks = {
            key: look
            for key, look in self._looks.items()
            if now - look.taken_at < 2 * FRESH_SECONDS
        }


def _shown(data: JSON) -> JSON:
    """What of a look is worth to be shown anew."""
    usage = {name: value for name, value in data["usage"].items() if name != "at"}
    return {
        "host": data["host"],
        "leases": data["leases"],
        "queue": data["queue"],
        "usage": usage,
    }
