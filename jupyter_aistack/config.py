"""Settings, and the one place that builds a broker from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Dict, Float, List, TraitError, Unicode, Union
from traitlets.config import Application, LoggingConfigurable

from .broker import Broker
from .core.queues import Policy
from .exceptions import InvalidRequest
from .ledger.base import Ledger
from .policies import read_policy, read_suspend

if TYPE_CHECKING:
    from .service import Service


def _duration(default: str | float, text: str) -> Any:
    """A trait for a duration: seconds, or a text such as ``30min``."""
    return Union([Unicode(), Float()], default_value=default, help=text).tag(config=True)


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
        help="""Queues by name, e.g. ``{"default": {}, "class": {"quota": 2, "members": ["@students"]}}``. All fields
        may be left out: ``quota``, the devices (fractions allowed) it is owed and keeps, 0; ``limit``, the most its
        leases may hold at once, none; ``weight``, its share of what is left over, above 0, 1; ``priority``, higher
        takes of that first, 0; ``is_open``, whether it takes requests, true; ``is_batch``, whether it gives way to
        interactive queues, false; ``members``, logins and ``@group`` names that may use it, everybody; ``idle``, when
        a lease that nobody uses is taken back: false for never, or ``{"badge": "30min", "notice": "55min", "reclaim":
        "60min"}``, the default; ``suspend``, whether its idle kernels give their GPU memory back for as long as others
        need it and get it again with their next cell, where this host can do that, false. There is always a queue
        ``default``.""",
    ).tag(config=True)

    user_limits = Dict(
        help="""What a user may have, by login, ``"*"`` for everybody else: ``{"*": {"slices": 4, "devices": "2",
        "hours_per_week": 40, "queued": 10}}``: slices held at once, devices held at once (fractions allowed),
        device-hours from Monday to Sunday (UTC), requests waiting at once. What is left out has no limit.""",
    ).tag(config=True)

    half_life = _duration("7d", "For fair shares, use this long ago counts half, e.g. ``7d``.")

    batch_share = Union(
        [Unicode(), Float()],
        default_value="0",
        help="Share of the devices, 0 to 1, kept for queues with ``is_batch`` while they ask for it.",
    ).tag(config=True)

    notice_seconds = _duration(
        60.0,
        """Between the notice of a preemption and the preemption, e.g. ``60`` (seconds). Notebooks look for one
        every ten seconds, so leave them some.""",
    )

    min_runtime = _duration("10min", "A preemptible lease is left alone this long after it was granted.")

    age = _duration("1d", "A request that has waited this long goes before all that have not, so that none starves.")

    suspend = Union(
        [Unicode(), Dict()],
        default_value="off",
        help="""Whether idle kernels of queues with ``suspend`` give their GPU memory back while others need it:
        ``off``; ``auto``, where a self-test shows that the driver can; or a table, all of whose fields may be left out:
        ``{"warm": "60s", "hard": "30min", "host_share": 0.6}``. ``warm``: so long after its last use a kernel is left
        alone; ``hard``: so long after it, it is suspended though nobody waits; ``host_share``, the most of the host's
        available memory that suspended state may take; ``context`` (``"500MB"``) and ``margin`` (0.05), what coming
        back needs beside the state; ``lock`` (``"5s"``), how long a kernel's work on the device is waited for;
        ``retry`` (``"10s"``) and ``longest_retry`` (``"10min"``), the pause after such a wait was in vain, doubled
        each time.""",
    ).tag(config=True)

    admins = List(
        Unicode(),
        help="""Logins, and ``@group`` names, that may reserve slices and change what others hold. root may always, on
        the command line; in a server's pages it is the login the server runs under that must be listed.""",
    ).tag(config=True)

    show_names = Bool(
        True,
        help="""Whether users see who holds what and who waits. When false, others are ``someone`` to all but
        admins.""",
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
        policy, suspend = self.build_policy(), read_suspend(self.suspend)
        providers = build_providers(os.environ.get("AISTACK_PROVIDERS") or self.providers)
        ledger = open_ledger(os.environ.get("AISTACK_LEDGER") or self.ledger_url or default_ledger_url())
        ledger.half_life_seconds = policy.half_life_seconds
        options.setdefault("suspend", suspend)
        return Broker(ledger, providers, policy=policy, ttl_seconds=self.lease_ttl_seconds, **options)

    @property
    def suspend_results(self) -> Path:
        """Where it is remembered which GPUs have passed the self-test of suspending."""
        from jupyter_core.paths import jupyter_data_dir

        from .suspending.readiness import results_file

        url = os.environ.get("AISTACK_LEDGER") or self.ledger_url or default_ledger_url()
        return results_file(url, Path(jupyter_data_dir()))

    def build_policy(self) -> Policy:
        """How slices are shared out.

        Raises:
            InvalidRequest: a setting makes no sense; it is named, and in its tables the entry and the field.
        """
        return read_policy(
            queues=self.queues,
            user_limits=self.user_limits,
            half_life=self.half_life,
            batch_share=self.batch_share,
            notice_seconds=self.notice_seconds,
            min_runtime=self.min_runtime,
            age=self.age,
        )

    def build_service(self, broker: Broker) -> Service:
        """The verbs of a broker, with who may do what as configured."""
        from .service import Service

        return Service(broker, admins=frozenset(self.admins), show_names=self.show_names)


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


def load_settings() -> AIStack:
    """Settings outside a server: what the ``jupyter_server_config`` and ``jupyter_aistack_config`` files say.

    Raises:
        InvalidRequest: one is of a kind that makes no sense; it is named.
    """
    application = _Settings()
    application.load()
    try:
        return AIStack(parent=application)
    except TraitError as error:
        named = next((name for name in AIStack.class_trait_names(config=True) if f"'{name}'" in str(error)), "settings")
        raise InvalidRequest(f"{named}: {error}", field=named) from error


class _Settings(Application):
    """Reads the same config files as a Jupyter server, and nothing else of it."""

    name = "jupyter-aistack"

    def load(self) -> None:
        from jupyter_core.paths import jupyter_config_path

        for base in ("jupyter_server_config", "jupyter_aistack_config"):
            self.load_config_file(base, path=list(reversed(jupyter_config_path())))
