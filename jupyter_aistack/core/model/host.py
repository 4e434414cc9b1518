"""A machine, as all who share a ledger know it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HostIdentity:
    """One machine in its present run, under one of its names.

    Attributes:
        id: what tells it from all others: the same in all its containers, whatever they
            are called, and another after each start.
        name: what it calls itself here, for people.
        machine: what stays the same when it is started again; empty where that is not
            known.
    """

    id: str
    name: str
    machine: str = ""

    def may_follow(self, other: HostIdentity) -> bool:
        """Whether this may be the machine that was `other` before it was started
        again.
        """
        is_named_alike = self.name == other.name
        is_same_machine = self.machine == other.machine
        is_later = self.id != other.id
        return is_named_alike and is_same_machine and is_later
