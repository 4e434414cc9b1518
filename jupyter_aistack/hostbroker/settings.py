"""The settings of a host broker: those of `AIStack`, from one file, for everybody."""

from __future__ import annotations

from typing import Any

from traitlets import List, Unicode

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.config import AIStack
from jupyter_aistack.core.suspend.capability import BY_SERVERS_ALONE
from jupyter_aistack.exceptions import InvalidRequest

from .hub_accounts import HubAccounts


class BrokerSettings(AIStack):
    """What the administrator's file says."""

    serves_host = True

    hub_url = Unicode(
        "",
        help="""The API of the JupyterHub whose users are known here, such as ``http://127.0.0.1:8081/hub/api``. Tokens
        that are shown by ``hub_accounts`` are checked there.""",
    ).tag(config=True)

    hub_accounts = List(
        Unicode(),
        help="""Logins whose processes act for users of the hub: the one that all of its servers run under, where they
        share one, and that of the hub's service. They prove by a token of the hub for whom, and are refused without
        one; root alone may also act for itself.""",
    ).tag(config=True)

    def take_shared_rules(self) -> None:
        """There are no other rules: no file of a user counts."""

    def check(self) -> None:
        """Find all that can be wrong with a setting; nothing is opened.

        Raises:
            InvalidRequest: a setting makes no sense; the field is named.
        """
        self._broker_options()
        self.build_rates()
        self.build_roles(self.build_policy())
        self.build_providers()
        self.build_device_scopes()
        self.build_hub_accounts()
        if not self.cycle_seconds > 0:
            raise InvalidRequest(
                f"cycle_seconds: expected seconds above 0, got {self.cycle_seconds!r}",
                field="cycle_seconds",
            )

    def _broker_options(self) -> dict[str, Any]:
        """What is moved out of a process is moved by the server that runs it."""
        off = {"suspend": None, "capability": BY_SERVERS_ALONE}
        return {**super()._broker_options(), **off}

    def build_hub_accounts(self) -> HubAccounts:
        """Who acts for users of the hub.

        Raises:
            InvalidRequest: a setting makes no sense; the field is named.
        """
        return HubAccounts(self.hub_url, frozenset(self.hub_accounts))

    def build_broker_on(self, ledger_url: str) -> Broker:
        """A broker on a ledger; empty for the one that is configured."""
        self._chosen_ledger_url = ledger_url
        return self.build_broker()

    _chosen_ledger_url = ""

    @property
    def _named_ledger_url(self) -> str:
        return self._chosen_ledger_url or super()._named_ledger_url
