"""Settings, and the one place that builds a broker from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from traitlets import Dict, Float, Unicode
from traitlets.config import Application, LoggingConfigurable

from .broker import Broker
from .core.queues import DEFAULT_QUEUE, Queue
from .exceptions import InvalidRequest
from .ledger.base import Ledger


class AIStack(LoggingConfigurable):
    """How this host's slices are granted."""

    ledger_url = Unicode(
        help="""Where leases are written down, as an SQLAlchemy URL: ``sqlite:////srv/aistack/ledger.sqlite`` for one
        host, ``postgresql+psycopg://user@db/aistack`` for several, ``memory:`` for a trial. The environment variable
        AISTACK_LEDGER goes first; the default is an SQLite file in Jupyter's data directory.""",
    ).tag(config=True)

    providers = Unicode(
        "auto",
        help="""What grants slices, comma separated: ``auto`` (GPUs if a driver answers, and the CPU), ``gpu``, ``cpu``,
        ``simulated:8xH100-80GB``. The environment variable AISTACK_PROVIDERS goes first.""",
    ).tag(config=True)

    lease_ttl_seconds = Float(
        60.0,
        help="Seconds a lease lives without renewal, once nothing on its host keeps it any more. At least 1.",
    ).tag(config=True)

    cycle_seconds = Float(2.0, help="Seconds between two turns of the broker in a Jupyter server. At least 0.05.").tag(
        config=True
    )

    queues = Dict(
        help="""Queues by name, e.g. ``{"default": {}, "class": {"limit": "2", "priority": 1}}``: ``limit`` is the most
        devices (fractions allowed) its leases may hold at once, ``priority`` goes first when higher, ``is_open`` tells
        whether it takes requests. The default is one queue, ``default``, without limit.""",
    ).tag(config=True)

    def build_broker(self, **options: Any) -> Broker:
        """A broker as configured; `options` go to :class:`Broker` (a clock for tests, say).

        Raises:
            InvalidRequest: a setting makes no sense; the field is named.
            LedgerError: the ledger cannot be opened.
        """
        from .providers import build_providers

        if self.lease_ttl_seconds < 1:
            raise InvalidRequest("lease_ttl_seconds: at least 1 second", field="lease_ttl_seconds")
        queues = read_queues(self.queues)
        providers = build_providers(os.environ.get("AISTACK_PROVIDERS") or self.providers)
        ledger = open_ledger(os.environ.get("AISTACK_LEDGER") or self.ledger_url or default_ledger_url())
        return Broker(ledger, providers, queues=queues, ttl_seconds=self.lease_ttl_seconds, **options)


def open_ledger(url: str) -> Ledger:
    """The ledger behind `url`.

    Raises:
        LedgerError: it cannot be opened, or another version wrote it.
    """
    if url == "memory:":
        from .ledger.memory import MemoryLedger

        return MemoryLedger()
    from .ledger.sql import SQLLedger

    return SQLLedger(url)


def default_ledger_url() -> str:
    """An SQLite file in Jupyter's data directory, so that all of a user's servers and scripts share it."""
    from jupyter_core.paths import jupyter_data_dir

    return f"sqlite:///{Path(jupyter_data_dir()) / 'aistack' / 'ledger.sqlite'}"


def read_queues(table: Mapping[str, Any]) -> tuple[Queue, ...]:
    """Queues from settings; always with one named ``default``.

    Raises:
        InvalidRequest: naming ``queues`` and the queue at fault.
    """
    queues = [_read_queue(name, entry) for name, entry in table.items()]
    if DEFAULT_QUEUE not in table:
        queues.append(Queue(name=DEFAULT_QUEUE))
    return tuple(queues)


def _read_queue(name: str, entry: Any) -> Queue:
    if not isinstance(entry, Mapping) or not set(entry) <= {"limit", "priority", "is_open"}:
        raise InvalidRequest(f"queues: {name!r} takes limit, priority and is_open only, got {entry!r}", field="queues")
    try:
        limit = None if entry.get("limit") is None else Fraction(str(entry["limit"]))
        priority, is_open = int(entry.get("priority", 0)), bool(entry.get("is_open", True))
    except (ValueError, ZeroDivisionError, TypeError) as error:
        why = f"queues: {name!r} has a limit or priority that is not a number"
        raise InvalidRequest(why, field="queues") from error
    if limit is not None and limit <= 0:
        raise InvalidRequest(f"queues: the limit of {name!r} must be above 0", field="queues")
    return Queue(name=name, limit=limit, priority=priority, is_open=is_open)


def load_settings() -> AIStack:
    """Settings outside a server: what the ``jupyter_server_config`` and ``jupyter_aistack_config`` files say."""
    application = _Settings()
    application.load()
    return AIStack(parent=application)


class _Settings(Application):
    """Reads the same config files as a Jupyter server, and nothing else of it."""

    name = "jupyter-aistack"

    def load(self) -> None:
        from jupyter_core.paths import jupyter_config_path

        for base in ("jupyter_server_config", "jupyter_aistack_config"):
            self.load_config_file(base, path=list(reversed(jupyter_config_path())))
