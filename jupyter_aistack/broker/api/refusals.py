"""What callers were refused because it is not theirs to do: logged, and counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.exceptions import PermissionDenied

from .caller import Caller

log = logging.getLogger("jupyter_aistack")
CONNECT = "connect"
"""The verb of those who are refused before they have asked for anything."""


class Refusals:
    """Counts refusals by verb, and says of each in the log who was refused.

    Attributes:
        counts: how many there were of each verb since this process started.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    @contextmanager
    def recorded(self, verb: str, caller: Caller) -> Iterator[None]:
        """Record the `PermissionDenied` that ends the block, which goes on."""
        try:
            yield
        except PermissionDenied as error:
            who = f"{printable(caller.user)} (uid {caller.uid}, pid {caller.pid})"
            self.record(verb, who, error.message)
            raise

    def record(self, verb: str, who: str, message: str) -> None:
        """One refusal.

        Args:
            verb: what was asked for; `CONNECT` where nothing was yet.
            who: user, uid and process.
            message: why it was refused.
        """
        self.counts[verb] += 1
        log.warning("refused %s to %s: %s", verb, who, printable(message))
