"""Settings about a host that several users share: what becomes of those who get round
the broker.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from traitlets import Float, List, Unicode, Union
from traitlets.config import LoggingConfigurable

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.neighbours import Neighbours
from jupyter_aistack.broker.setting_values import read_choice, read_setting, read_wait
from jupyter_aistack.broker.stray_record import StrayRecord
from jupyter_aistack.broker.strays import StrayOptions
from jupyter_aistack.core.model.stray import StrayAction, StrayPolicy
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system.broker_path import is_off
from jupyter_aistack.system.device_scopes import DeviceScopes

HOST_RULES = frozenset({"gpu_sharing", "stray_action", "stray_grace", "stray_exempt"})
"""Settings of this module that hold for all who share a ledger."""


class DeviceAccessKind(StrEnum):
    """What keeps a process off GPUs that it has not leased."""

    ENVIRONMENT = "environment"
    CGROUP = "cgroup"


class HostTraits(LoggingConfigurable):
    """The part of `AIStack` about hosts of several users."""

    serves_host = False
    """Whether this is read by the broker of all users of the host. No setting: it is
    for the process to know what it is."""

    gpu_sharing = Unicode(
        "any-user",
        help="""Who may have leases of one GPU at the same time: ``any-user``, or ``same-user``, one user at a time.
        Users of one GPU share its MPS server, whose clients are not protected from each other's faults;
        ``same-user`` keeps them apart. A lease that is suspended keeps its GPU for its user. MIG instances are GPUs
        of their own.""",
    ).tag(config=True)

    device_access = Unicode(
        "environment",
        help="""What keeps a process off GPUs that it has not leased: ``environment``, the variables it is given, which
        it may change; ``cgroup``, a scope of systemd in which it can open the device files of its leases alone. For
        the host broker as root, on a host that systemd runs; elsewhere it does not start.""",
    ).tag(config=True)

    broker_socket = Unicode(
        "auto",
        help="""The broker of this host, which grants to all its users: ``auto``, the service at
        ``/run/aistack/broker.sock`` if there is one; a path of its socket; or ``off``, a broker in each process on a
        ledger. The environment variable AISTACK_BROKER goes first.""",
    ).tag(config=True)

    stray_action = Unicode(
        "nothing",
        help="""What is done about a stray, a process that uses a GPU without a lease. Strays are always shown with
        user, process and memory, and their users see them first. ``nothing``: no more than that; ``warn``: it is
        logged and written down as an event too; ``terminate``: the process is asked to end after ``stray_grace``, and
        killed 10 seconds later. Never ended are root's, those of ``stray_exempt``, display and MPS servers, whose
        user or lease cannot be seen, and, but by the host broker as root, other users'.""",
    ).tag(config=True)

    stray_grace: Any = Union(
        [Unicode(), Float()],
        default_value="10min",
        help="From the moment a stray was first seen until it is ended, e.g. ``10min``; 5 seconds at least.",
    ).tag(config=True)

    stray_exempt = List(
        Unicode(),
        help="Logins, and ``@group`` names, whose processes are never ended as strays.",
    ).tag(config=True)

    def build_stray_policy(self) -> StrayPolicy:
        """What is done about strays.

        Raises:
            InvalidRequest: a setting makes no sense; it is named.
        """
        return StrayPolicy(
            action=read_choice(StrayAction, "stray_action", self.stray_action),
            grace_seconds=read_setting("stray_grace", self.stray_grace, read_wait),
            exempt=frozenset(self.stray_exempt),
        )

    def build_device_scopes(self) -> DeviceScopes | None:
        """What holds processes to device files; None where their environment is to do.

        Raises:
            InvalidRequest: the setting makes no sense, or cannot be had here.
        """
        chosen = read_choice(DeviceAccessKind, "device_access", self.device_access)
        if chosen is DeviceAccessKind.ENVIRONMENT:
            return None
        scopes = DeviceScopes()
        refusal = scopes.refusal()
        if refusal:
            raise InvalidRequest(
                f"device_access: 'cgroup' cannot be had here: {refusal}",
                field="device_access",
            )
        return scopes

    def build_strays(self, file: Path) -> StrayOptions:
        """How a broker sees to strays.

        Args:
            file: where it remembers them.

        Raises:
            InvalidRequest: a setting makes no sense; it is named.
        """
        return StrayOptions(
            policy=self.build_stray_policy(),
            record=StrayRecord(file),
            serves_host=self.serves_host,
        )

    def build_neighbours(
        self, broker: Broker, *, show_names: bool
    ) -> Neighbours | None:
        """Who looks for other users of this host; None where its broker grants, or this
        user has chosen to do without.
        """
        if self.serves_host or is_off(self.broker_socket):
            return None
        return Neighbours(broker, show_names=show_names)
