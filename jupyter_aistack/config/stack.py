"""Settings, and the one place that builds a broker from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from traitlets import TraitError
from traitlets.config.loader import LazyConfigValue

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.broker.settings import read_mig_create, read_policy, read_suspend
from jupyter_aistack.core.accounting.usage_report import Rates
from jupyter_aistack.core.enforcement.memory_limits import MemoryAction
from jupyter_aistack.core.enforcement.verification import NotEnforcedAction
from jupyter_aistack.core.model.policy import Policy
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.ledger import opening
from jupyter_aistack.system.users import is_root

from .files import SettingsFiles
from .traits import SettingTraits

if TYPE_CHECKING:
    from jupyter_aistack.broker.api.service import Service
    from jupyter_aistack.providers.base import Provider


C = TypeVar("C", bound=StrEnum)

_POLICY = "queues user_limits half_life batch_share notice_seconds min_runtime age"
SHARED_RULES = frozenset([*_POLICY.split(), "show_names", "lease_ttl_seconds"])
"""Settings by which those who share a ledger get on with each other."""
_IGNORED_ADMINS = (
    "AIStack.admins: %s is left out: the ledger is shared, and its admins are named in"
    " configuration that its users cannot write, such as /etc/jupyter"
)


class AIStack(SettingTraits):
    """How this host's slices are granted."""

    # -- readers -----------------------------------------------------------------------

    @property
    def chosen_ledger_url(self) -> str:
        """Where leases are written down: the environment goes first."""
        return self._named_ledger_url or opening.default_ledger_url()

    @property
    def _named_ledger_url(self) -> str:
        return os.environ.get("AISTACK_LEDGER") or self.ledger_url

    @property
    def suspend_results(self) -> Path:
        """Where it is remembered which GPUs have passed the self-test of suspending."""
        from jupyter_core.paths import jupyter_data_dir

        return opening.results_file(self.chosen_ledger_url, Path(jupyter_data_dir()))

    # -- builders ----------------------------------------------------------------------

    def build_broker(self, *, ledger_url: str = "", **options: Any) -> Broker:
        """A broker as configured.

        Args:
            ledger_url: where leases are written down; empty for what is configured.
            options: go to :class:`Broker` (a clock for tests, say).

        Raises:
            InvalidRequest: a setting makes no sense; the field is named.
            LedgerError: the ledger cannot be opened.
        """
        self.take_shared_rules()
        # A service is built later, and must not be refused then.
        self.build_rates()
        settings = {**self._broker_options(), **options}
        policy = self.build_policy()
        providers = self.build_providers()
        # Last: all that can be wrong with a setting is found before a file is made.
        named = ledger_url or self._named_ledger_url
        ledger = opening.open_ledger(named) if named else opening.open_own_ledger()
        ledger.half_life_seconds = policy.half_life_seconds
        return Broker(ledger, providers, policy=policy, **settings)

    def check(self) -> None:
        """Find all that can be wrong with a setting; nothing is opened.

        Raises:
            InvalidRequest: a setting makes no sense; the field is named.
        """
        self.build_rates()
        self._broker_options()
        self.build_policy()
        self.build_providers()
        if not self.cycle_seconds > 0:
            raise InvalidRequest(
                f"cycle_seconds: expected seconds above 0, got {self.cycle_seconds!r}",
                field="cycle_seconds",
            )

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
        ignored = sorted(set(self.admins) - set(rules.admins))
        if ignored:
            self.log.warning(_IGNORED_ADMINS, ", ".join(ignored))
        for name in ("admins", *(shared.config.AIStack.keys() & SHARED_RULES)):
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
            "memory_action": _choice(MemoryAction, "memory_action", self.memory_action),
            "not_enforced_action": _choice(
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
        )

    def build_service(self, broker: Broker) -> Service:
        """The verbs of a broker, with who may do what as configured."""
        from jupyter_aistack.broker.api.service import Service

        self.take_shared_rules()
        return Service(
            broker,
            admins=frozenset(self.admins),
            show_names=self.show_names,
            rates=self.build_rates(),
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


def _choice(kind: type[C], field: str, value: str) -> C:
    """A setting that is one of a few words. Raises `InvalidRequest` naming it and the
    words.
    """
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(member.value for member in kind)
        raise InvalidRequest(
            f"{field}: {value!r} is not one of {words}", field=field
        ) from None


def load_settings() -> AIStack:
    """Settings outside a server: what the ``jupyter_server_config`` and
    ``jupyter_aistack_config`` files say.

    Raises:
        InvalidRequest: a setting is of a kind that makes no sense; it is named.
    """
    application = SettingsFiles()
    application.load()
    try:
        return AIStack(parent=application)
    except TraitError as error:
        field = refused_trait(application.config.AIStack)
        raise InvalidRequest(f"{field}: {error}", field=field) from error


def refused_trait(configured: Mapping[str, Any]) -> str:
    """The setting whose value its trait does not take: traitlets' error does not name
    it but in its text.
    """
    for name in AIStack.class_trait_names(config=True):
        value = configured.get(name)
        # Changes of a default, such as ``c.AIStack.admins.append``, take its kind.
        if value is None or isinstance(value, LazyConfigValue):
            continue
        try:
            AIStack(**{name: value})
        except TraitError:
            return name
    return "settings"
