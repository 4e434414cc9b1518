"""Commands for the agents in this server's kernels: left here by the threads that
suspend and resume, fetched and acknowledged by the agents.

An agent asks over the socket for its next command, and the answer is held back until
there is a command, or for a while. No thread of the broker waits for that:
agents wait on the event loop, and callers of an agent wait in a thread of their own.
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
"""How long an agent waits for a command before the answer is that there is none. The
client gives up after a minute."""
PRESENT_SECONDS = 30.0
"""How long after its last question an agent still counts as present: it asks again
soon, but may be busy with a command."""
CHECK_SECONDS = 1.0
"""Between two checks whether an agent that executes a command still lives."""

ENDED = "its kernel has ended"


@dataclass
class AgentCommand:
    """Something that an agent is to do.

    Attributes:
        id: names it in the acknowledgement.
        act: what to do.
        kinds: kinds of devices it is about.
        answer: what the agent has answered.
        is_taken: the agent has fetched it.
    """

    id: str
    act: str
    kinds: tuple[str, ...]
    answer: Future[JSON] = field(default_factory=Future)
    is_taken: bool = False


@dataclass
class _Mailbox:
    """The commands for the agent of one kernel.

    Attributes:
        commands: those that have not been answered.
        has_news: set when there is a command to fetch.
        asked_at: when the agent asked last (monotonic clock).
        pid: the agent's process.
        question: number of its last question.
    """

    commands: list[AgentCommand] = field(default_factory=list)
    has_news: asyncio.Event = field(default_factory=asyncio.Event)
    asked_at: float = float("-inf")
    pid: int = 0
    question: int = 0

    def untaken(self) -> list[AgentCommand]:
        return [command for command in self.commands if not command.is_taken]

    def is_alive(self) -> bool:
        return is_alive(self.pid, None)


class AgentMailbox:
    """The mailboxes of all kernels.

    Args:
        context: provides what the ledger records of a kernel's lease.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._boxes: dict[str, _Mailbox] = {}
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        context.add_async_verb("orders", self.next_command)
        context.add_async_verb("done", self.acknowledge)

    # -- the agents' side, on the event loop -------------------------------------------

    async def next_command(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """The commands for the kernel that asks, and where its device state is; held
        back until there is a command.
        """
        from jupyter_aistack.core.wire.values import text_field

        self._loop = asyncio.get_running_loop()
        box = self._box(caller)
        box.asked_at = time.monotonic()
        box.pid = caller.pid or 0
        box.question += 1
        question = box.question
        await self._wait_for_news(box, self._loop)

        lease_id = text_field(payload, "lease_id")
        residence = await self._context.run(self._residence, lease_id, caller)

        # An agent that has ended, or has asked again, does not read this answer: a
        # command given with it would be lost.
        is_read = box.question == question and box.is_alive()
        commands: list[AgentCommand] = []
        if residence is not None and is_read:
            commands = self._take(box)
            box.asked_at = time.monotonic()
        return {
            "residence": residence,
            "orders": [{"id": c.id, "act": c.act, "kinds": c.kinds} for c in commands],
        }

    async def _wait_for_news(
        self, box: _Mailbox, loop: asyncio.AbstractEventLoop
    ) -> None:
        with self._lock:
            if box.untaken():
                return
        box.has_news.clear()
        timer = loop.call_later(HOLD_SECONDS, box.has_news.set)
        try:
            await box.has_news.wait()
        finally:
            timer.cancel()

    async def acknowledge(self, payload: Mapping[str, Any], caller: Caller) -> JSON:
        """How a command went."""
        from jupyter_aistack.core.wire.values import text_field

        command_id = text_field(payload, "order_id")
        answer = payload.get("answer")
        if not isinstance(answer, Mapping):
            raise InvalidRequest(
                f"answer: expected an object, got {answer!r}", field="answer"
            )
        box = self._box(caller)
        command = self._remove(box, command_id)
        if command is not None and command.answer.set_running_or_notify_cancel():
            command.answer.set_result(dict(answer))
        box.asked_at = time.monotonic()
        return {}

    def _box(self, caller: Caller) -> _Mailbox:
        if not caller.kernel_id:
            raise InvalidRequest(
                "verb: orders are for kernels of this server only", field="verb"
            )
        with self._lock:
            return self._boxes.setdefault(caller.kernel_id, _Mailbox())

    def _take(self, box: _Mailbox) -> list[AgentCommand]:
        with self._lock:
            commands = box.untaken()
            for command in commands:
                command.is_taken = True
            return commands

    def _remove(self, box: _Mailbox, command_id: str) -> AgentCommand | None:
        with self._lock:
            for command in box.commands:
                if command.id == command_id:
                    box.commands.remove(command)
                    return command
        return None

    def _residence(self, lease_id: str, caller: Caller) -> JSON | None:
        from jupyter_aistack.core.wire.records import DEVICE_STATE

        try:
            lease = self._context.service.check_lease("orders", lease_id, caller)
        except LeaseNotFound:
            return None
        if lease.residence is None or not lease.is_live:
            return None
        return DEVICE_STATE.to_dict(lease.residence)

    # -- the callers' side, in their threads -------------------------------------------

    def is_present(self, kernel_id: str) -> bool:
        """Whether an agent runs in that kernel."""
        with self._lock:
            box = self._boxes.get(kernel_id)
        if box is None:
            return False
        silent_seconds = time.monotonic() - box.asked_at
        return silent_seconds < HOLD_SECONDS + PRESENT_SECONDS and box.is_alive()

    def call(
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
            kernel_id: whose agent.
            act: what to do.
            kinds: kinds of devices it is about.
            patience: seconds until the agent must have fetched the command.
            seconds: how long the agent may take then.

        Returns:
            Its answer, with ``error`` where it could not; None when there is no agent
            or none that fetches, and nothing has been done then.
        """
        if not self.is_present(kernel_id):
            return None
        command = self._post(kernel_id, act, kinds)
        try:
            return command.answer.result(patience)
        except CancelledError:
            return {"error": ENDED} if command.is_taken else None
        except FutureTimeout:
            if self._withdraw(kernel_id, command):
                return None
        return self._await_answer(kernel_id, command, seconds)

    def _await_answer(
        self, kernel_id: str, command: AgentCommand, seconds: float
    ) -> JSON:
        """The answer to a command that its agent has fetched. The agent may end before
        it answers, so its life is checked meanwhile.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                return command.answer.result(min(CHECK_SECONDS, seconds))
            except CancelledError:
                return {"error": ENDED}
            except FutureTimeout:
                if not self._is_alive(kernel_id):
                    return {"error": ENDED}
        return {"error": f"its agent has not answered within {seconds:.0f} s"}

    def _is_alive(self, kernel_id: str) -> bool:
        with self._lock:
            box = self._boxes.get(kernel_id)
        return box is not None and box.is_alive()

    def _post(self, kernel_id: str, act: str, kinds: Collection[str]) -> AgentCommand:
        command = AgentCommand(
            id=f"o-{next(self._numbers)}", act=act, kinds=tuple(sorted(kinds))
        )
        with self._lock:
            box = self._boxes[kernel_id]
            box.commands.append(command)
            loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(box.has_news.set)
        return command

    def _withdraw(self, kernel_id: str, command: AgentCommand) -> bool:
        """Withdraw a command that no agent has fetched; whether there was time."""
        with self._lock:
            if command.is_taken:
                return False
            self._boxes[kernel_id].commands.remove(command)
            return True

    def forget(self, kernels: Collection[str]) -> None:
        """Drop the mailboxes of all kernels but these, and end the calls that wait on
        them.
        """
        with self._lock:
            ended = [kernel_id for kernel_id in self._boxes if kernel_id not in kernels]
            for kernel_id in ended:
                for command in self._boxes.pop(kernel_id).commands:
                    command.answer.cancel()
