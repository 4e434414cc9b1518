"""Settings, and the one place that builds a broker from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Dict, Float, List, Unicode, Union

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.device_access import DeviceAccess
from jupyter_aistack.broker.role_settings import read_roles
from jupyter_aistack.broker.setting_values import read_choice
from jupyter_aistack.broker.settings import read_mig_create, read_policy, read_suspend
from jupyter_aistack.core.accounting.usage_report import Rates
from jupyter_aistack.core.enforcement.memory_limits import MemoryAction
from jupyter_aistack.core.enforcement.verification import NotEnforcedAction
from jupyter_aistack.core.model.policy import Policy
from jupyter_aistack.core.model.roles import RoleSettings
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.ledger import opening
from jupyter_aistack.system.users import is_root

from .files import SettingsFiles
from .history_traits import HistoryTraits
from .host_traits import HOST_RULES, HostTraits

if TYPE_CHECKING:
    from jupyter_aistack.broker.api.service import Service
    from jupyter_aistack.providers.base import Provider

_POLICY = "queues user_limits half_life batch_share notice_seconds min_runtime age"
_HOST = ("show_names", "lease_ttl_seconds")
SHARED_RULES = frozenset([*_POLICY.split(), *_HOST, *HOST_RULES])
"""Settings by which those who share a ledger get on with each other."""
ROLE_SETTINGS = ("admins", "operators", "managers")
"""Settings that say who may do more than others: of those who share a ledger, nobody
gives them to themselves.
"""
_IGNORED_NAMES = (
    "AIStack.%s: %s is left out: the ledger is shared, and who may do what is set in"
    " configuration that its users cannot write, such as /etc/jupyter"
)


def _duration(default: str | float, text: str) -> Any:
    """A trait for a duration: seconds, or a text such as ``30min``."""
    return Union([Unicode(), Float()], default_value=default, help=text).tag(
        config=True
    )


class AIStack(HostTraits, HistoryTraits):
    """How this host's slices are granted."""

    ledger_url = Unicode(
        help="""Where leases are written down, as an SQLAlchemy URL: ``sqlite:////srv/aistack/ledger.sqlite`` for one
        host, in a folder that is there; ``postgresql+psycopg://user@db/aistack`` for several; ``memory:`` for a trial.
        The environment variable AISTACK_LEDGER goes first; the default is an SQLite file in Jupyter's data directory.
        Passwords belong into a file that PGPASSFILE, or ``?passfile=`` in the URL, names.""",
    ).tag(config=True)

    providers = Unicode(
        "auto",
        help="""What grants slices, comma separated: ``auto`` (GPUs if a driver answers, and the CPU), ``gpu``
        (NVIDIA), ``amd``, ``cpu``, ``simulated:8xH100-80GB``. The environment variable AISTACK_PROVIDERS goes
        first.""",
    ).tag(config=True)

    mig_create = Union(
        [Bool(), Dict()],
        default_value=False,
        help="""Whether MIG instances are created when a request waits for one, and unused ones destroyed for that:
        false for never, true for any profile on any GPU in MIG mode, or profiles by a GPU's UUID or number: ``{"0":
        ["1g.18gb", "2g.35gb"]}``. The server must run as root then. MIG mode is never switched, and an instance in use
        never touched; ``jupyter aistack mig plan`` shows what would be done.""",
    ).tag(config=True)

    enforcement = Unicode(
        "auto",
        help="""What holds a share of a GPU to its size. ``auto``: the firmest that GPU and driver can do as they
        are (``jupyter aistack doctor`` tells which, and why not more). ``advisory``: the caps of frameworks alone,
        which a program may ignore. The environment variable AISTACK_ENFORCEMENT goes first.""",
    ).tag(config=True)

    mps_strict = Bool(
        False,
        help="""Where MPS has no namespaces (drivers before 615): start an MPS daemon for each share instead of one for
        each GPU. A program that drops its environment is then held to its own share, and not to the largest one of its
        GPU; but programs of different shares no longer compute at the same time, they take turns.""",
    ).tag(config=True)

    lease_ttl_seconds = Float(
        60.0,
        help="Seconds a renewal of a lease holds. A lease whose process lives outlasts it; after it, one whose process "
        "cannot be seen by anybody on its host lapses. At least 1.",
    ).tag(config=True)

    cycle_seconds = Float(
        2.0,
        help="Seconds between two turns of the broker in a Jupyter server. At least 0.05.",
    ).tag(config=True)

    queues = Dict(
        help="""Queues by name, e.g. ``{"default": {}, "class": {"quota": 2, "members": ["@students"]}}``. All fields
        may be left out: ``quota``, the devices (fractions allowed) it is owed and keeps, 0; ``limit``, the most its
        leases may hold at once, none; ``weight``, its share of what is left over, above 0, 1; ``priority``, higher
        takes of that first, 0; ``is_open``, whether it takes requests, true; ``is_batch``, whether it gives way to
        interactive queues, false; ``members``, logins and ``@group`` names that may use it, everybody; ``idle``, when
        a lease that is not used is reclaimed: false for never, or ``{"badge": "30min", "notice": "55min", "reclaim":
        "60min"}``, the default; ``suspend``, whether its idle kernels give their GPU memory back for as long as others
        need it and get it again with their next cell, where this host can do that, false. There is always a queue
        ``default``.""",
    ).tag(config=True)

    user_limits = Dict(
        help="""What a user may have, by login, ``"*"`` for everybody else: ``{"*": {"slices": 4, "devices": "2",
        "hours_per_week": 40, "queued": 10}}``: slices held at once, devices held at once (fractions allowed),
        device-hours from Monday to Sunday (UTC), requests waiting at once. What is left out has no limit.""",
    ).tag(config=True)

    half_life = _duration(
        "7d", "For fair shares, use this long ago counts half, e.g. ``7d``."
    )

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

    min_runtime = _duration(
        "10min", "A preemptible lease is left alone this long after it was granted."
    )

    age = _duration(
        "1d",
        "A request that has waited this long goes before all that have not, so that none starves.",
    )

    suspend = Union(
        [Unicode(), Dict()],
        default_value="off",
        help="""Whether idle kernels of queues with ``suspend`` give their GPU memory back while others need it:
        ``off``; ``auto``, where a self-test shows that the driver can; or a table, all of whose fields may be left out:
        ``{"warm": "60s", "hard": "30min", "host_share": 0.6}``. ``warm``: so long after its last use a kernel is left
        alone; ``hard``: so long after it, it is suspended though no request waits; ``host_share``, the most of the
        host's available memory that suspended state may take; ``host_memory`` (``"128GB"``), what the host has in all,
        for a virtual machine whose memory grows as it is used; ``context`` (by default as measured) and ``margin``
        (0.05), what coming back needs beside the state; ``lock`` (``"5s"``), how long a kernel's work on the device is
        waited for; ``retry`` (``"10s"``) and ``longest_retry`` (``"10min"``), the pause after such a wait was in vain,
        doubled each time.""",
    ).tag(config=True)

    admins = List(
        Unicode(),
        help="""Logins, and ``@group`` names, that may reserve slices and change what others hold. root may always, on
        the command line; in a server's pages it is the login the server runs under that must be listed. Where others
        share the ledger, only files count that its users cannot write.""",
    ).tag(config=True)

    operators = List(
        Unicode(),
        help="""Logins, and ``@group`` names, that may drain devices, suspend and release what others hold, and always
        see who that is. Where others share the ledger, as with ``admins``.""",
    ).tag(config=True)

    managers = Dict(
        help="""Who manages a queue, by its name: ``{"class": ["@teachers"]}``, logins and ``@group`` names. They may
        reserve for that queue, release and withdraw what is in it, and always see who that is. Where others share the
        ledger, as with ``admins``.""",
    ).tag(config=True)

    show_names = Bool(
        True,
        help="""Whether users see who holds what and who waits. When false, others are ``someone`` to all but
        admins, operators and, in their queues, managers.""",
    ).tag(config=True)

    carbon_g_per_kwh = Float(
        None,
        allow_none=True,
        help="""Grams of CO2 equivalent per kWh of this site's electricity, for reports; your grid operator publishes
        it. Without it no carbon is shown.""",
    ).tag(config=True)

    price_per_kwh = Float(
        None,
        allow_none=True,
        help="What a kWh costs, in your currency, for reports. Without it, none is counted.",
    ).tag(config=True)

    price_per_gpu_hour = Float(
        None,
        allow_none=True,
        help="What an hour of a whole GPU costs beside its energy; a share costs its share.",
    ).tag(config=True)

    not_enforced_action = Unicode(
        "warn",
        help="""What becomes of a lease whose process finds more than was granted, when it is checked from inside:
        ``warn`` says so and leaves it, ``revoke`` ends it; the kernel goes on without a device.""",
    ).tag(config=True)

    memory_action = Unicode(
        "interrupt",
        help="""What is done when the processes of a lease together hold more of a GPU's memory than it has: ``warn``
        says so in the notebook, ``interrupt`` interrupts the cell too, which loses nothing that the kernel has computed
        and keeps neighbours from running out of memory, ``terminate`` ends the worker or child process that holds the
        most, and the kernel itself (it is started again) only if no other process of it holds any. Each is done once
        until the memory has been below the bound again. Memory of CPU slices is warned of only.""",
    ).tag(config=True)

    # -- readers -----------------------------------------------------------------------

    @property
    def chosen_ledger_url(self) -> str:
        """Where leases are written down: the environment goes first."""
        return self._named_ledger_url or opening.default_ledger_url()

    @property
    def _named_ledger_url(self) -> str:
        return os.environ.get("AISTACK_LEDGER") or self.ledger_url

    @property
    def strays_seen(self) -> Path:
        """Where it is remembered who uses GPUs without a lease."""
        return opening.strays_file(self.suspend_results.parent)

    @property
    def suspend_results(self) -> Path:
        """Where it is remembered which GPUs have passed the self-test of suspending."""
        from jupyter_core.paths import jupyter_data_dir

        return opening.results_file(self.chosen_ledger_url, Path(jupyter_data_dir()))

    # -- builders ----------------------------------------------------------------------

    def build_broker(self, **options: Any) -> Broker:
        """A broker as configured; `options` go to :class:`Broker` (a clock for tests,
        say).

        Raises:
            InvalidRequest: a setting makes no sense; the field is named.
            LedgerError: the ledger cannot be opened.
        """
        self.take_shared_rules()
        settings = {**self._broker_options(), **options}
        policy = self.build_policy()
        providers = self.build_providers()
        scopes = self.build_device_scopes()
        # A service is built later, and must not be refused then.
        self.build_rates()
        self.build_roles(policy)
        # Last: all that can be wrong with a setting is found before a file is made.
        named = self._named_ledger_url
        ledger = opening.open_ledger(named) if named else opening.open_own_ledger()
        ledger.half_life_seconds = policy.half_life_seconds
        broker = Broker(ledger, providers, policy=policy, **settings)
        if scopes is not None:
            devices = broker.devices
            leases = broker.host_state.leases
            devices.access = DeviceAccess(scopes, leases, devices.files_of)
        return broker

    def take_shared_rules(self) -> None:
        """On a ledger that others share, take the rules for all from configuration that
        this user cannot write; who is an admin, from nowhere else.
        """
        makers = opening.rule_makers(self.chosen_ledger_url)
        if makers is None or is_root() or os.getuid() in makers:
            return
        shared = SettingsFiles()
        shared.load(guarded_by=makers)
        rules = AIStack(parent=shared)
        for name in ROLE_SETTINGS:
            ignored = _names_in(getattr(self, name)) - _names_in(getattr(rules, name))
            if ignored:
                self.log.warning(_IGNORED_NAMES, name, ", ".join(sorted(ignored)))
        for name in (*ROLE_SETTINGS, *(shared.config.AIStack.keys() & SHARED_RULES)):
            setattr(self, name, getattr(rules, name))

    def _broker_options(self) -> dict[str, Any]:
        if self.lease_ttl_seconds < 1:
            raise InvalidRequest(
                "lease_ttl_seconds: at least 1 second", field="lease_ttl_seconds"
            )
        return {
            "ttl_seconds": self.lease_ttl_seconds,
            "show_names": self.show_names,
            "suspend": read_suspend(self.suspend),
            "strays": self.build_strays(self.strays_seen),
            "history": self.build_history(
                self.chosen_ledger_url,
                beside=self.suspend_results.parent,
                archives_all=self.serves_host,
            ),
            "memory_action": read_choice(
                MemoryAction, "memory_action", self.memory_action
            ),
            "not_enforced_action": read_choice(
                NotEnforcedAction, "not_enforced_action", self.not_enforced_action
            ),
        }

    def build_providers(self) -> tuple[Provider, ...]:
        """What grants this host's slices, as configured. Nothing is opened yet.

        Raises:
            InvalidRequest: a setting makes no sense; the field is named.
        """
        from jupyter_aistack.providers.registry import build_providers

        return build_providers(
            os.environ.get("AISTACK_PROVIDERS") or self.providers,
            enforcement=os.environ.get("AISTACK_ENFORCEMENT") or self.enforcement,
            mps_strict=self.mps_strict,
            serves_host=self.serves_host,
            users_share=self.serves_host and self.gpu_sharing != "same-user",
            mig_create=read_mig_create(self.mig_create),
        )

    def build_policy(self) -> Policy:
        """How slices are shared out.

        Raises:
            InvalidRequest: a setting makes no sense; it is named, and in its tables the
                entry and the field.
        """
        return read_policy(
            queues=self.queues,
            user_limits=self.user_limits,
            half_life=self.half_life,
            batch_share=self.batch_share,
            notice_seconds=self.notice_seconds,
            min_runtime=self.min_runtime,
            age=self.age,
            gpu_sharing=self.gpu_sharing,
        )

    def build_service(self, broker: Broker) -> Service:
        """The verbs of a broker, with who may do what as configured."""
        from jupyter_aistack.broker.api.service import Service

        self.take_shared_rules()
        return Service(
            broker,
            roles=self.build_roles(broker.host_state.policy),
            show_names=self.show_names,
            rates=self.build_rates(),
            neighbours=self.build_neighbours(broker, show_names=self.show_names),
        )

    def build_roles(self, policy: Policy) -> RoleSettings:
        """Who has which role.

        Raises:
            InvalidRequest: a setting makes no sense; it is named.
        """
        return read_roles(
            admins=self.admins,
            operators=self.operators,
            managers=self.managers,
            queues=[queue.name for queue in policy.queues],
        )

    def build_rates(self) -> Rates:
        """What energy and devices cost here.

        Raises:
            InvalidRequest: a rate is negative or no number; it is named.
        """
        rates = {
            "carbon_g_per_kwh": self.carbon_g_per_kwh,
            "price_per_kwh": self.price_per_kwh,
            "price_per_gpu_hour": self.price_per_gpu_hour,
        }
        for name, value in rates.items():
            if value is not None and not 0 <= value < float("inf"):
                raise InvalidRequest(
                    f"{name}: expected a number from 0, got {value!r}", field=name
                )
        return Rates(**rates)


def _names_in(value: Any) -> set[str]:
    """Who has a role by a setting; for managers, with the queue."""
    if not isinstance(value, dict):
        return set(map(str, value))
    return {f"{name} of {queue}" for queue, names in value.items() for name in names}
