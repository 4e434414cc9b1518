"""For how long what has happened is kept, and what becomes of it then."""

from __future__ import annotations

import math
from dataclasses import dataclass

DAY_SECONDS = 86400.0


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What is kept for how long.

    Attributes:
        seconds: so long after its end a record stays in the ledger; None for ever.
        pseudonym_seconds: so long after it the names of people stay in the archive;
            None for ever.
    """

    seconds: float | None = None
    pseudonym_seconds: float | None = None

    def before(self, now: float) -> float | None:
        """Records that ended before this leave the ledger, in seconds since the epoch;
        None for none. It is the beginning of a day, so that what ends on one day leaves
        together.
        """
        if self.seconds is None:
            return None
        return math.floor((now - self.seconds) / DAY_SECONDS) * DAY_SECONDS

    def is_pseudonymous(self, before: float, now: float) -> bool:
        """Whether a file of records from before that time is to name nobody."""
        if self.pseudonym_seconds is None:
            return False
        return before <= now - self.pseudonym_seconds
