"""What callers were refused because it is not theirs to do: logged, and counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.core.model.roles import REACHES
from jupyter_aistack.exceptions import PermissionDenied

from .caller import Caller

log = logging.getLogger("jupyter_aistack")
CONNECT = "connect"
"""The verb of those who are refused before they have asked for anything."""
UNKNOWN_VERB = "unknown"
"""Stands for all verbs that there are not: their names are the caller's to choose."""


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
        is_known = verb in REACHES or verb == CONNECT
        name = verb if is_known else UNKNOWN_VERB
        self.counts[name] += 1
        log.warning("refused %s to %s: %s", name, who, printable(message))
