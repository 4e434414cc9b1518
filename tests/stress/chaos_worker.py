"""The processes of the chaos: workers, wherever they run, and the children they fork."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.ledger.sql.ledger import SQLLedger

from .actor import TTL_SECONDS, Actor
from .confinement import Confinement, run_confined
from .journal import PROBLEM
from .keeper import Keeper

KEEP_SECONDS = TTL_SECONDS / 6
MOST_CHILDREN = 2
CHILD_ACTIONS = 6
CHILD_SECONDS = 6.0
"""A child ends by itself when it is so old."""


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What the workers tell; arrays without locks, with a place for each worker.

    Attributes:
        done: how much of its share each worker has done.
        turns: how many whole turns of maintenance each has run.
        stretches: how many stretches of them.
        pids: the process that works, as it is numbered outside; 0 before it is known.
        children: how many each has forked.
    """

    done: Any
    turns: Any
    stretches: Any
    pids: Any
    children: Any


@dataclass(frozen=True, kw_only=True)
class Post:
    """What a worker is to do, and where.

    Attributes:
        number: its place among the workers.
        name: its holder's id, and its host name in a container.
        share: how much it does.
    """

    number: int
    name: str
    share: int
    url: str
    folder: Path
    seed: int
    confinement: Confinement


def work(post: Post, counters: Counters) -> None:
    """What a worker process runs."""

    def tell(pid: int) -> None:
        counters.pids[post.number] = pid

    def run() -> None:
        ChaosWorker(post, counters).run()

    run_confined(post.confinement, post.name, tell, run)


class ChaosWorker(Actor):
    """A process with a thread that keeps leases, as a Jupyter server or a script has."""

    def __init__(self, post: Post, counters: Counters) -> None:
        super().__init__(SQLLedger(post.url), post.folder, post.name, post.seed)
        self._post = post
        self._counters = counters
        self._children: list[int] = []

    def run(self) -> None:
        """Act until its share is done."""
        number = self._post.number
        done = self._counters.done
        try:
            threading.Thread(target=self._keep, daemon=True).start()
            while done[number] < self._post.share:
                self.act()
                done[number] += 1
                self._reap()
            self.check()
        except BaseException:
            self.journal.note(PROBLEM, traceback.format_exc())
            raise

    def actions(self) -> list[Callable[[], None]]:
        return [*super().actions(), self.request_in_threads, self.fork]

    def weights(self) -> list[int]:
        return [*super().weights(), 1, 1]

    def _keep(self) -> None:
        counters = self._counters
        keeper = Keeper(
            self.broker, counters.turns, counters.stretches, self._post.number
        )
        while True:
            keeper.turn()
            time.sleep(KEEP_SECONDS)

    # -- children ----------------------------------------------------------------------

    def fork(self) -> None:
        """Have a child that asks for leases of its own."""
        if len(self._children) == MOST_CHILDREN:
            return
        number = self._post.number
        count = self._counters.children
        count[number] += 1
        name = f"{self.name}-child-{count[number]}"
        seed = self.chance.getrandbits(32)
        pid = os.fork()
        if pid == 0:
            _run_child(self, name, seed)
        self._children.append(pid)

    def _reap(self) -> None:
        """Bury the children that have ended; as the first of its PID namespace also
        those that others have left.
        """
        with suppress(ChildProcessError):
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._children.remove(pid)


def _run_child(parent: ChaosWorker, name: str, seed: int) -> None:
    """What a forked child runs; returns never."""
    exit_code = 1
    try:
        ledger = parent.broker.ledger
        assert isinstance(ledger, SQLLedger)
        child = Child(ledger, parent.folder, name, seed)
        try:
            child.run()
        except BaseException:
            child.journal.note(PROBLEM, traceback.format_exc())
            raise
        exit_code = 0
    finally:
        os._exit(exit_code)


class Child(Actor):
    """A forked process, on the ledger that its parent has opened."""

    def run(self) -> None:
        """Act a few times, then end somehow: everything given back or nothing, in
        order or killed.
        """
        deadline = time.monotonic() + CHILD_SECONDS
        for _ in range(self.chance.randint(1, CHILD_ACTIONS)):
            if time.monotonic() < deadline:
                self.act()
        self.check()
        end = self.chance.choice([self._release_all, self._close, self._die, None])
        if end is not None:
            end()

    def _release_all(self) -> None:
        for _ in list(self.held):
            with suppress(AIStackError):
                self.release()

    def _close(self) -> None:
        self.broker.close()

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
