"""Verbs about what was used: cells, bills, reports and advice."""

from __future__ import annotations

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.wire.fields import JSON
from jupyter_aistack.core.wire.values import text_field

from .advice import Owner
from .base import Payload, Verb, VerbGroup
from .caller import MAX_LABEL, Access, Caller
from .reports import AccountingAPI


class AccountingVerbs(VerbGroup):
    """``cells``, ``bill``, ``report`` and ``advise``.

    Args:
        broker: what answers.
        access: what callers may see.
        accounting: reads what was recorded.
    """

    def __init__(
        self, broker: Broker, access: Access, accounting: AccountingAPI
    ) -> None:
        super().__init__(broker, access)
        self._accounting = accounting

    def verbs(self) -> dict[str, Verb]:
        return {
            "cells": self._cells,
            "bill": self._bill,
            "report": self._report,
            "advise": self._advise,
        }

    def _cells(self, payload: Payload, caller: Caller) -> JSON:
        return self._accounting.record_cells(payload, caller)

    def _bill(self, payload: Payload, caller: Caller) -> JSON:
        return self._accounting.bill(payload, _owner(payload, caller))

    def _report(self, payload: Payload, caller: Caller) -> JSON:
        return self._accounting.report(payload, self._visibility(caller))

    def _advise(self, payload: Payload, caller: Caller) -> JSON:
        return self._accounting.advice(payload, _owner(payload, caller))


def _owner(payload: Payload, caller: Caller) -> Owner:
    """Whose usage is meant: a caller's own, under the name of its notebook where that
    name is known.
    """
    label = caller.label or text_field(payload, "label", "")[:MAX_LABEL]
    return Owner(user=caller.user, id=caller.account_id, label=label)
