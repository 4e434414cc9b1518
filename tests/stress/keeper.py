"""Turns of maintenance, counted: what must have ended after so many of them has
outlived its time.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.processes import LAPSE_SHARE
from jupyter_aistack.exceptions import AIStackError

SAME_SECONDS = 0.05


class Keeper:
    """Runs turns of a broker.

    Args:
        broker: the broker.
        turns: where whole turns are counted, at `place`.
        stretches: where stretches of turns without a pause and without a change of the
            clock are counted, that are long enough for a lease to lapse in.
    """

    def __init__(self, broker: Broker, turns: Any, stretches: Any, place: int) -> None:
        self._broker = broker
        self._turns = turns
        self._stretches = stretches
        self._place = place
        self._patience = broker.ttl_seconds * LAPSE_SHARE
        self._looked_at = -math.inf
        self._steady_since = -math.inf
        self._offset = math.nan

    def turn(self) -> None:
        """One turn; one that fails is not counted."""
        began_at = time.monotonic()
        offset = self._broker.clock() - began_at
        is_set = not math.isclose(offset, self._offset, abs_tol=SAME_SECONDS)
        if is_set or began_at - self._looked_at > self._patience:
            self._steady_since = began_at
        self._looked_at = began_at
        self._offset = offset
        with suppress(AIStackError):
            self._broker.maintain()
            self._turns[self._place] += 1
            if began_at - self._steady_since > self._patience:
                self._stretches[self._place] += 1
                self._steady_since = began_at
