"""The part of the ledger port that tells what has happened, and whether what it tells is
what was written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jupyter_aistack.core.audit.chain import Link, Row
from jupyter_aistack.core.model.events import Event


@dataclass(frozen=True, kw_only=True)
class ChainEnds:
    """Where the chain of a ledger's events begins and ends.

    Attributes:
        chained_after: the last event of a schema that kept no digests; 0 for none.
        end: the last event.
    """

    chained_after: int = 0
    end: Link


class History(ABC):
    """What has happened, in order."""

    @abstractmethod
    def events(self, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        """Events with a sequence above `after`, in order. The oldest may have been
        archived.
        """

    @abstractmethod
    def record(self, event: Event) -> None:
        """Write down what has happened outside requests, leases, reservations and
        devices, such as that an admin's settings are in force.
        """

    @abstractmethod
    def event_rows(self, after: int = 0, limit: int = 1000) -> tuple[Row, ...]:
        """The same events as they are kept, those that cannot be read included."""

    @abstractmethod
    def chain_ends(self) -> ChainEnds:
        """Where the chain begins and ends."""
