"""Completion of the magics' arguments; IPython's ``complete_command`` hook."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from jupyter_aistack.exceptions import AIStackError

from .arguments import Parser, suggestions
from .commands import Connect

HOST_SECONDS = 30.0
"""How long the profiles of the host are good for."""


class Completer:
    """Completes with subcommands, options and the MIG profiles of this host.

    Args:
        parsers: of each magic, by its name with the percent signs.
        connect: gives the client.
    """

    def __init__(self, parsers: Mapping[str, Parser], connect: Connect) -> None:
        self._parsers = parsers
        self._connect = connect
        self._asked_at: float | None = None
        self._profiles: list[str] = []

    def __call__(self, shell: Any, event: Any) -> list[str]:
        """What may stand at the cursor."""
        line = event.text_until_cursor
        command, *words = line.split()
        name = command if command.startswith("%%") else f"%{command.lstrip('%')}"
        is_between = line.endswith((" ", "\t"))
        before = words if is_between else words[:-1]
        typed = words[-1] if len(words) > len(before) else ""
        possible = suggestions(self._parsers[name], before, self._host_profiles())
        # IPython completes from the last of its delimiters on, and a colon is a delimiter.
        skip = len(typed) - len(event.symbol)
        return [word[skip:] for word in possible if word.startswith(typed)]

    def _host_profiles(self) -> list[str]:
        """The MIG profiles of this host, asked for at most twice a minute; none when
        it does not answer.
        """
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < HOST_SECONDS:
            return self._profiles
        with suppress(AIStackError):
            self._profiles = _profiles(self._connect().host()["devices"])
        self._asked_at = time.monotonic()
        return self._profiles


def _profiles(devices: list[dict[str, Any]]) -> list[str]:
    """The profiles that exist on the devices, and those that could be created."""
    profiles: set[str] = set()
    for device in devices:
        profiles.update(instance["profile"] for instance in device["mig"])
        profiles.update(device["mig_offers"])
    return sorted(profiles)
