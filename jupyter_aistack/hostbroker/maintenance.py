"""What the host broker does every few seconds, whether anybody asks or not: keep living
leases, end dead ones, measure, grant what fits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.exceptions import AIStackError

log = logging.getLogger("jupyter_aistack")
LEAST_SECONDS = 0.05


def keep(broker: Broker) -> None:
    """One turn.

    A host where nothing is leased or wanted, and nobody is to be kept off it, is left
    alone: asking its drivers would keep a sleeping GPU awake.
    """
    state = broker.host_state.read()
    is_idle = not state.leases and not state.requests
    if is_idle and not broker.strays.is_on_watch:
        broker.record_usage()
        broker.host_state.report(is_idle=True)
        broker.history.tend()
        return
    broker.maintain()


class TurnLoop:
    """Does its steps again and again until it is cancelled; what fails is said once and
    tried again in the next turn.

    Args:
        steps: what is done in each turn, by name.
        seconds: gives the pause between two turns.
    """

    def __init__(
        self,
        steps: Mapping[str, Callable[[], Awaitable[None]]],
        seconds: Callable[[], float],
    ) -> None:
        self._steps = steps
        self._seconds = seconds
        self._complaints: dict[str, str] = {}

    async def run(self) -> None:
        """Turn until cancelled."""
        while True:
            for name, step in self._steps.items():
                await self._guarded(name, step)
            await asyncio.sleep(max(self._seconds(), LEAST_SECONDS))

    async def _guarded(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
            self._complaints.pop(name, None)
        except AIStackError as error:
            if error.message != self._complaints.get(name):
                self._complaints[name] = error.message
                log.warning("%s", error.message)
        except Exception:
            log.exception("the host broker's maintenance failed")
