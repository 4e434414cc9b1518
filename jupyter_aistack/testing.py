"""Helpers for tests of what talks to a broker: a clock moved by hand, a broker with
nothing real behind it.
"""

from __future__ import annotations

from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.device_state import SuspendMethod
from jupyter_aistack.core.model.request import Holder, HolderKind
from jupyter_aistack.core.suspend.capability import SuspendCapability
from jupyter_aistack.ledger.memory import MemoryLedger

CAN_SUSPEND = SuspendCapability(tier=SuspendMethod.CHECKPOINT)
"""What a test of a host that can suspend finds."""


class ManualClock:
    """A clock that stands still until it is advanced."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def simulated_broker(table: str = "1xH100-80GB", **options: Any) -> Broker:
    """A broker on simulated devices, by default with a ledger in memory; `options` go
    to :class:`Broker`.
    """
    from jupyter_aistack.providers.simulated import SimulatedProvider

    options.setdefault("ledger", MemoryLedger())
    options.setdefault("clock", ManualClock())
    options.setdefault("host", "testbox")
    options.setdefault("is_alive", lambda pid, since: True)
    options.setdefault("capability", CAN_SUSPEND)
    return Broker(providers=[SimulatedProvider(table)], **options)


def holder(name: str = "kernel-1", **fields: Any) -> Holder:
    """A kernel of user ``ann`` to lease for; `fields` replace those of it."""
    values: dict[str, Any] = {
        "kind": HolderKind.KERNEL,
        "id": name,
        "user": "ann",
        "host": "testbox",
        "label": f"{name}.ipynb",
    }
    return Holder(**{**values, **fields})
