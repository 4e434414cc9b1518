"""Orders for the agents in this server's kernels: left here by the mover's threads,
fetched and answered by the agents.

An agent asks over the socket and its question is held until there is an order, or for a
while. Nothing waits in the broker's threads for that: questions wait on the event loop,
and whoever orders waits in a thread of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jupyter_aistack.exceptions import InvalidRequest, LeaseNotFound
from jupyter_aistack.server.context import ServerContext
from jupyter_aistack.system.processes import is_alive

if TYPE_CHECKING:
    from jupyter_aistack.broker.api.caller import Caller

JSON = dict[str, Any]
HOLD_SECONDS = 20.0
"""How long a question is held without an order. The client gives up after a minute."""
PRESENT_SECONDS = 30.0
"""After its last question an agent counts as there for so long: it asks again soon, but
may be busy with an order.
"""

ENDED = "its kernel has ended"
LOOK_SECONDS = 1.0
"""Between two looks whether an agent that works on an order still lives."""


@dataclass
class AgentCommand:
    """One thing to do, and its answer to be."""

    id: str
    act: str
    kinds: tuple[str, ...]
    answer: Future[JSON] = field(default_factory=Future)
    is_taken: bool = False


@dataclass
class _Box:
    """What waits for one kernel's agent."""

    orders: list[AgentCommand] = field(default_factory=list)
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    asked_at: float = float("-inf")
    pid: int = 0
    question: int = 0


class AgentMailbox:
    """The mailboxes of all kernels.

    Args:
        workbench: answers what the ledger says of a kernel's lease.
    """

    def __init__(self, workbench: ServerContext) -> None:
        self._workbench = workbench
        self._lock = threading.Lock()
        self._boxes: dict[str, _Box] = {}
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        workbench.hold("orders", self.orders)
        workbench.hold("done", self.done)

    # -- the agents' side, on the event loop -------------------------------------------

    async def orders(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """The orders for the kernel that asks, and where its state is; held back until
        there is an order.
        """
        from jupyter_aistack.core.wire.values import text_field

        self._loop = asyncio.get_running_loop()
        box = self._box(caller)
        box.asked_at = time.monotonic()
        box.pid = caller.pid or 0
        box.question = box.question + 1
        question = box.question
        if not self._open(box):
            box.bell.clear()
            timer = self._loop.call_later(HOLD_SECONDS, box.bell.set)
            try:
                await box.bell.wait()
            finally:
                timer.cancel()
        residence = await self._workbench.run(
            self._residence, text_field(payload, "lease_id")
        )
        is_heard = (
            residence is not None
            and box.question == question
            and is_alive(box.pid, None)
        )
        found = (
            self._take(box) if is_heard else []
        )  # a question whose agent has ended must not take an order with it
        if is_heard:
            box.asked_at = time.monotonic()
        return {
            "residence": residence,
            "orders": [{"id": o.id, "act": o.act, "kinds": o.kinds} for o in found],
        }

    async def done(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """How an order went."""
        from jupyter_aistack.core.wire.values import text_field

        order_id = text_field(payload, "order_id")
        answer = payload.get("answer")
        if not isinstance(answer, Mapping):
            raise InvalidRequest(
                f"answer: expected an object, got {answer!r}", field="answer"
            )
        box = self._box(caller)
        with self._lock:
            order = next((one for one in box.orders if one.id == order_id), None)
            box.orders = [one for one in box.orders if one.id != order_id]
        if order is not None and order.answer.set_running_or_notify_cancel():
            order.answer.set_result(dict(answer))
        box.asked_at = time.monotonic()
        return {}

    def _box(self, caller: Caller) -> _Box:
        if not caller.kernel_id:
            raise InvalidRequest(
                "verb: orders are for kernels of this server only", field="verb"
            )
        with self._lock:
            return self._boxes.setdefault(caller.kernel_id, _Box())

    def _open(self, box: _Box) -> list[AgentCommand]:
        with self._lock:
            return [order for order in box.orders if not order.is_taken]

    def _take(self, box: _Box) -> list[AgentCommand]:
        with self._lock:
            found = [order for order in box.orders if not order.is_taken]
            for order in found:
                order.is_taken = True
            return found

    def _residence(self, lease_id: str) -> JSON | None:
        from jupyter_aistack.core.wire.values import residence_to_dict

        try:
            lease = self._workbench.broker.lease(lease_id)
        except LeaseNotFound:
            return None
        return (
            residence_to_dict(lease.residence)
            if lease.is_live and lease.residence is not None
            else None
        )

    # -- the mover's side, in its threads ----------------------------------------------

    def is_present(self, kernel_id: str) -> bool:
        """Whether an agent runs in that kernel."""
        with self._lock:
            box = self._boxes.get(kernel_id)
            is_recent = (
                box is not None
                and time.monotonic() - box.asked_at < HOLD_SECONDS + PRESENT_SECONDS
            )
            return box is not None and is_recent and is_alive(box.pid, None)

    def ask(
        self,
        kernel_id: str,
        act: str,
        *,
        kinds: Collection[str] = (),
        patience: float,
        seconds: float,
    ) -> JSON | None:
        """Have an agent do something, and wait for its answer; call it in a thread.

        Args:
            patience: how long it may take until the agent has heard of it.
            seconds: how long the agent may take then.

        Returns:
            Its answer, with ``error`` where it could not; None when there is no agent
            or none that hears, and nothing has been done then.
        """
        if not self.is_present(kernel_id):
            return None
        order = self._leave(kernel_id, act, kinds)
        try:
            return order.answer.result(patience)
        except CancelledError:
            return {"error": ENDED} if order.is_taken else None
        except FutureTimeout:
            if self._withdraw(kernel_id, order):
                return None
        return self._answer(kernel_id, order, seconds)

    def _answer(self, kernel_id: str, order: AgentCommand, seconds: float) -> JSON:
        """The answer to an order that its agent has taken; it may end before it gives
        one.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                return order.answer.result(min(LOOK_SECONDS, seconds))
            except CancelledError:
                return {"error": ENDED}
            except FutureTimeout:
                if not self._is_alive(kernel_id):
                    return {"error": ENDED}
        return {"error": f"its agent has not answered within {seconds:.0f} s"}

    def _is_alive(self, kernel_id: str) -> bool:
        with self._lock:
            box = self._boxes.get(kernel_id)
        return box is not None and is_alive(box.pid, None)

    def _leave(self, kernel_id: str, act: str, kinds: Collection[str]) -> AgentCommand:
        with self._lock:
            box = self._boxes[kernel_id]
            order = AgentCommand(
                id=f"o-{next(self._numbers)}", act=act, kinds=tuple(sorted(kinds))
            )
            box.orders.append(order)
            loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(box.bell.set)
        return order

    def _withdraw(self, kernel_id: str, order: AgentCommand) -> bool:
        """Take an order back that no agent has taken; whether there was time."""
        with self._lock:
            if order.is_taken:
                return False
            self._boxes[kernel_id].orders.remove(order)
            return True

    def forget(self, kernels: Collection[str]) -> None:
        """Let go of the boxes of all kernels but these."""
        with self._lock:
            gone = [kernel_id for kernel_id in self._boxes if kernel_id not in kernels]
            for kernel_id in gone:
                for order in self._boxes.pop(kernel_id).orders:
                    order.answer.cancel()
