"""This machine: told from all others, whatever it is called."""

from __future__ import annotations

import socket
from pathlib import Path

from jupyter_aistack.core.model.host import HostIdentity

from .processes import boot_id

MACHINE_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def this_host() -> HostIdentity:
    """This machine in its present run.

    Two containers of one machine have other names and other file systems, and one boot
    id; so it is known by that. The host name is for people and may change at any time.
    """
    return HostIdentity(id=boot_id(), name=socket.gethostname(), machine=_machine_id())


def host_identity(host: HostIdentity | str | None = None) -> HostIdentity:
    """The host that is meant: a text is both its id and its name; None is this one."""
    if isinstance(host, str) and host:
        return HostIdentity(id=host, name=host)
    return host if isinstance(host, HostIdentity) else this_host()


def _machine_id() -> str:
    for file in MACHINE_FILES:
        try:
            text = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return text
    return ""
