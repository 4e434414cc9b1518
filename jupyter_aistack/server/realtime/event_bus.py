"""Jupyter's event bus: notifies every open front end that something happened, not to
whom.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_aistack.broker.remote.port import KernelBroker
    from jupyter_aistack.core.model.events import Event

SCHEMA_ID = "https://events.jupyter.org/jupyter_aistack/lease/v1"
SCHEMA_PATH = Path(__file__).parent.parent / "event_schemas" / "lease-v1.yaml"
PAGE = 500


class EventBus:
    """Passes the ledger's events on.

    Args:
        logger: the server's ``event_logger``.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._after = 0
        if SCHEMA_ID not in logger.schemas.schema_ids:
            logger.register_event_schema(SCHEMA_PATH)

    def start_after_history(self, broker: KernelBroker) -> None:
        """Leave out what has happened before now."""
        self._after = last_sequence(broker)

    def read(self, broker: KernelBroker) -> tuple[Event, ...]:
        """What has happened since the last call; call it in a thread."""
        events = broker.events(self._after, PAGE)
        if events:
            self._after = events[-1].sequence
        return events

    def emit(self, events: tuple[Event, ...]) -> None:
        """Put events on the bus; call it in the event loop."""
        for event in events:
            data = {
                "kind": event.kind.value,
                "lease_id": event.lease_id,
                "request_id": event.request_id,
            }
            if event.device_id:
                data["device_id"] = event.device_id
            self._logger.emit(schema_id=SCHEMA_ID, data=data)


def last_sequence(broker: KernelBroker) -> int:
    """The newest event's sequence, found in a few small reads however long the history
    is.
    """
    low = 0
    high = 1
    while broker.events(high, 1):
        high *= 2
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if broker.events(middle, 1) else (low, middle)
    return low
