"""Who may do what: one table, verb by role, which the transports and the docs share.

Everybody is a user. What somebody may do beyond that follows from the roles that the
settings give to logins and groups; who has several may do what any of them allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Role(StrEnum):
    """What somebody is on a host, by the settings."""

    USER = "user"  # everybody
    MANAGER = "manager"  # of named queues
    OPERATOR = "operator"  # of the devices
    ADMIN = "admin"  # of all there is

    @property
    def plural(self) -> str:
        """Those who have it, in a sentence about a queue."""
        return _PLURALS[self]

    @property
    def setting(self) -> str:
        """The setting that names those who have it; empty for everybody's."""
        return _SETTINGS[self]


_PLURALS = {
    Role.USER: "users",
    Role.MANAGER: "managers of its queue",
    Role.OPERATOR: "operators",
    Role.ADMIN: "admins",
}
_SETTINGS = {
    Role.USER: "",
    Role.MANAGER: "AIStack.managers",
    Role.OPERATOR: "AIStack.operators",
    Role.ADMIN: "AIStack.admins",
}


class Reach(StrEnum):
    """On what a role may use a verb."""

    NONE = "no"
    OWN = "own"  # what the user has
    QUEUES = "queues"  # that, and what is in the queues that the user manages
    ALL = "all"


class Reaches(NamedTuple):
    """How far a verb reaches in the hands of each role."""

    user: Reach
    manager: Reach
    operator: Reach
    admin: Reach

    def of(self, role: Role) -> Reach:
        """How far it reaches in the hands of one role."""
        reach: Reach = getattr(self, role.value)
        return reach


_FOR_ALL = Reaches(Reach.ALL, Reach.ALL, Reach.ALL, Reach.ALL)
_NAMES = Reaches(Reach.OWN, Reach.QUEUES, Reach.ALL, Reach.ALL)
_PERSONAL = Reaches(Reach.OWN, Reach.OWN, Reach.OWN, Reach.OWN)
_OF_HOLDERS = Reaches(Reach.OWN, Reach.OWN, Reach.OWN, Reach.ALL)
_OF_DEVICES = Reaches(Reach.OWN, Reach.OWN, Reach.ALL, Reach.ALL)
_OF_QUEUES = Reaches(Reach.OWN, Reach.QUEUES, Reach.ALL, Reach.ALL)
_FOR_MANAGERS = Reaches(Reach.NONE, Reach.QUEUES, Reach.NONE, Reach.ALL)
_FOR_OPERATORS = Reaches(Reach.NONE, Reach.NONE, Reach.ALL, Reach.ALL)
_FOR_ADMINS = Reaches(Reach.NONE, Reach.NONE, Reach.NONE, Reach.ALL)

NAMING_VERBS = frozenset({"hosts", "leases", "queue", "events", "report", "snapshot"})
"""Verbs whose reach is that of names: where ``show_names`` is off they show all there
is, and beyond their reach without whose it is.
"""

REACHES: Mapping[str, Reaches] = {
    "host": _FOR_ALL,
    "usage": _FOR_ALL,
    "reservations": _FOR_ALL,
    "mig_plan": _FOR_ALL,
    "hosts": _NAMES,
    "leases": _NAMES,
    "queue": _NAMES,
    "events": _NAMES,
    "report": _NAMES,
    "snapshot": _NAMES,
    "request": _PERSONAL,
    "take_back": _PERSONAL,
    "mine": _PERSONAL,
    "cells": _PERSONAL,
    "bill": _PERSONAL,
    "advise": _PERSONAL,
    "whoami": _PERSONAL,
    "acquire": _PERSONAL,
    "kernel_leases": _PERSONAL,
    "kernel_requests": _PERSONAL,
    "device_hiding": _FOR_ALL,
    "prepare": _PERSONAL,
    "bind_kernel": _PERSONAL,
    "device_use": _PERSONAL,
    "device_clients": _PERSONAL,
    "terminate_client": _PERSONAL,
    "report_kernels": _PERSONAL,
    "breach_handled": _PERSONAL,
    "breach_postponed": _PERSONAL,
    "audit": _OF_HOLDERS,
    "audit_verify": _FOR_ALL,
    "archive": _FOR_ADMINS,
    "wait_for": _OF_HOLDERS,
    "activate": _OF_HOLDERS,
    "listed": _OF_HOLDERS,
    "bind": _OF_HOLDERS,
    "extend": _OF_HOLDERS,
    "pin": _OF_HOLDERS,
    "unpin": _OF_HOLDERS,
    "begin_cell": _OF_HOLDERS,
    "end_cell": _OF_HOLDERS,
    "orders": _OF_HOLDERS,
    "done": _PERSONAL,
    "suspend": _OF_DEVICES,
    "resume": _OF_DEVICES,
    "cancel": _OF_QUEUES,
    "release": _OF_QUEUES,
    "reserve": _FOR_MANAGERS,
    "unreserve": _FOR_MANAGERS,
    "drain": _FOR_OPERATORS,
    "undrain": _FOR_OPERATORS,
    "quarantine": _FOR_OPERATORS,
    "mig_apply": _FOR_ADMINS,
}
"""Every verb, and how far it reaches in the hands of each role."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a user is on this host.

    Attributes:
        is_admin, is_operator: those roles.
        queues: the queues that the user manages.
    """

    is_admin: bool = False
    is_operator: bool = False
    queues: frozenset[str] = frozenset()

    @property
    def roles(self) -> tuple[Role, ...]:
        """All roles, the least first."""
        has = {
            Role.USER: True,
            Role.MANAGER: bool(self.queues),
            Role.OPERATOR: self.is_operator,
            Role.ADMIN: self.is_admin,
        }
        return tuple(role for role in Role if has[role])

    def may_use(self, verb: str) -> bool:
        """Whether there is anything that the user may use a verb on."""
        reaches = REACHES[verb]
        return any(reaches.of(role) is not Reach.NONE for role in self.roles)

    def may(self, verb: str, queue: str, *, is_own: bool = False) -> bool:
        """Whether the user may use a verb on what is in a queue, and their own or not."""
        reaches = {REACHES[verb].of(role) for role in self.roles}
        if Reach.ALL in reaches:
            return True
        if Reach.QUEUES in reaches and queue in self.queues:
            return True
        return is_own and REACHES[verb].user is not Reach.NONE


def entitled(verb: str) -> tuple[Role, ...]:
    """The roles that may use a verb on what is not their own."""
    reaches = REACHES[verb]
    far = (Reach.QUEUES, Reach.ALL)
    return tuple(role for role in Role if reaches.of(role) in far)


@dataclass(frozen=True, kw_only=True)
class RoleSettings:
    """Who has which role, as logins and ``@group`` names.

    Attributes:
        admins, operators: those who have these roles.
        managers: those who manage a queue, by its name.
    """

    admins: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    managers: Mapping[str, frozenset[str]] = field(default_factory=dict)
