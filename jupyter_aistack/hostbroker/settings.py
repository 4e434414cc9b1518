"""The settings of a host broker: those of `AIStack`, from one file, for everybody."""

from __future__ import annotations

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.config import AIStack
from jupyter_aistack.exceptions import InvalidRequest


class BrokerSettings(AIStack):
    """What the administrator's file says."""

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
        if not self.cycle_seconds > 0:
            raise InvalidRequest(
                f"cycle_seconds: expected seconds above 0, got {self.cycle_seconds!r}",
                field="cycle_seconds",
            )

    def build_broker_on(self, ledger_url: str) -> Broker:
        """A broker on a ledger; empty for the one that is configured."""
        self._chosen_ledger_url = ledger_url
        return self.build_broker()

    _chosen_ledger_url = ""

    @property
    def _named_ledger_url(self) -> str:
        return self._chosen_ledger_url or super()._named_ledger_url
