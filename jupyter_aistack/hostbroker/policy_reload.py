"""The administrator's file while the broker runs: a change is taken over, a mistake
leaves in force what was.
"""

from __future__ import annotations

import logging

from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.exceptions import AIStackError

from .admin_file import AdminFile, FileMark
from .hub_accounts import HubAccounts
from .settings import BrokerSettings

log = logging.getLogger("jupyter_aistack")

TAKEN_OVER = frozenset(
    {
        "admins",
        "age",
        "batch_share",
        "carbon_g_per_kwh",
        "cycle_seconds",
        "gpu_sharing",
        "half_life",
        "hub_accounts",
        "hub_url",
        "managers",
        "min_runtime",
        "notice_seconds",
        "operators",
        "price_per_gpu_hour",
        "price_per_kwh",
        "queues",
        "show_names",
        "stray_action",
        "stray_exempt",
        "stray_grace",
        "user_limits",
    }
)
"""Settings that a broker takes over while it runs; all others count from its start."""


class PolicyReload:
    """Keeps a broker to what the administrator's file says.

    Args:
        file: the file.
        mark: the file as it was when `settings` were read.
        settings: what it said then.
        broker: whose policy it is.

    Attributes:
        problem: what is wrong with the file now; empty for nothing.
    """

    def __init__(
        self,
        file: AdminFile,
        mark: FileMark | None,
        settings: BrokerSettings,
        broker: Broker,
    ) -> None:
        self._file = file
        self._mark = mark
        self._seen = mark
        self._settings = settings
        self._broker = broker
        self._is_asked = False
        self.problem = ""

    @property
    def cycle_seconds(self) -> float:
        """Seconds between two turns of the broker."""
        return self._settings.cycle_seconds

    def build_service(self) -> Service:
        """The broker's verbs, with who may do what as the file says."""
        return self._settings.build_service(self._broker)

    def build_hub_accounts(self) -> HubAccounts:
        """Who acts for users of the hub, as the file says."""
        return self._settings.build_hub_accounts()

    def ask(self) -> None:
        """Have the file read again in the next turn, changed or not."""
        self._is_asked = True

    def follow(self) -> Service | None:
        """Take over what the file says now, where it has changed: the verbs by its
        rules; None where nothing is new. Call it in a thread.
        """
        if not self._is_due():
            return None
        try:
            settings = self._file.load()
            policy = settings.build_policy()
            stray_policy = settings.build_stray_policy()
        except AIStackError as error:
            self._refuse(error.message)
            return None
        self.problem = ""
        self._say_what_waits(settings)
        before = self._settings
        self._settings = settings
        self._broker.host_state.set_policy(policy)
        self._broker.strays.policy = stray_policy
        log.info("%s was read again", self._file.path)
        self._write_down(before, settings)
        return self.build_service()

    def _write_down(self, before: BrokerSettings, after: BrokerSettings) -> None:
        """Tell the audit trail what is in force now. The settings are, whether that can
        be written now or not.
        """
        changed = [
            name
            for name in sorted(TAKEN_OVER)
            if getattr(before, name) != getattr(after, name)
        ]
        if not changed:
            return
        try:
            self._broker.history.settings_changed(
                str(self._file.path),
                {name: getattr(before, name) for name in changed},
                {name: getattr(after, name) for name in changed},
            )
        except AIStackError as error:
            log.warning("the change of settings is not written down: %s", error.message)

    def _is_due(self) -> bool:
        """Whether the file is to be read now: it was changed, and not only a moment ago,
        when it may be half written.
        """
        mark = self._file.mark()
        is_still = mark == self._seen
        self._seen = mark
        is_asked = self._is_asked
        self._is_asked = False
        is_changed = mark != self._mark
        if not is_asked and not (is_changed and is_still):
            return False
        self._mark = mark
        if mark is None and is_changed:
            # No settings are not the settings of a file that is missing.
            self._refuse(f"{self._file.path} was taken away")
            return False
        return True

    def _refuse(self, why: str) -> None:
        self.problem = f"{why}; the settings of before stay in force"
        log.error("%s", self.problem)

    def _say_what_waits(self, settings: BrokerSettings) -> None:
        waiting = not_taken_over(self._settings, settings)
        if waiting:
            log.warning(
                "%s: %s changed, which counts from the next start of the broker",
                self._file.path,
                ", ".join(waiting),
            )


def not_taken_over(before: BrokerSettings, after: BrokerSettings) -> tuple[str, ...]:
    """The settings that have changed and that a running broker does not take over."""
    names = sorted(set(after.class_trait_names(config=True)) - TAKEN_OVER)
    return tuple(
        name for name in names if getattr(before, name) != getattr(after, name)
    )
