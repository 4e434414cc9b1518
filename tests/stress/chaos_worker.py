"""The processes of the chaos: workers, wherever they run, and the children they fork."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.ledger.sql.ledger import SQLLedger

from .actor import TTL_SECONDS, Actor, BrokerActor
from .client_actor import ClientActor, set_up
from .confinement import Confinement, run_confined
from .journal import PROBLEM
from .keeper import Keeper
from .sabotage import SABOTAGES

FORK_SHARE = 0.05
"""So many of a worker's operations are forks."""
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
        is_client: it asks as users do, and not through a broker.
        sabotage: how its broker breaks the rules; empty for not at all.
    """

    number: int
    name: str
    share: int
    url: str
    folder: Path
    seed: int
    confinement: Confinement
    is_client: bool
    sabotage: str


def work(post: Post, counters: Counters) -> None:
    """What a worker process runs."""

    def tell(pid: int) -> None:
        counters.pids[post.number] = pid

    def run() -> None:
        if post.sabotage:
            SABOTAGES[post.sabotage]()
        ChaosWorker(post, counters).run()

    run_confined(post.confinement, post.name, tell, run)


class ChaosWorker:
    """A process with a thread that keeps leases, as a Jupyter server or a script has."""

    def __init__(self, post: Post, counters: Counters) -> None:
        self._post = post
        self._counters = counters
        self._actor = _actor(post)
        self._chance = random.Random(post.seed)
        self._children: list[int] = []

    def run(self) -> None:
        """Act until its share is done."""
        number = self._post.number
        done = self._counters.done
        actor = self._actor
        try:
            threading.Thread(target=self._keep, daemon=True).start()
            while done[number] < self._post.share:
                if self._chance.random() < FORK_SHARE:
                    self.fork()
                else:
                    actor.act()
                done[number] += 1
                self._reap()
            actor.check()
        except BaseException:
            actor.journal.note(PROBLEM, traceback.format_exc())
            raise

    def _keep(self) -> None:
        self._actor.keep(self._keeper)

    def _keeper(self, broker: Broker) -> Keeper:
        counters = self._counters
        return Keeper(broker, counters.turns, counters.stretches, self._post.number)

    # -- children ----------------------------------------------------------------------

    def fork(self) -> None:
        """Have a child that asks for leases of its own."""
        if len(self._children) == MOST_CHILDREN:
            return
        number = self._post.number
        count = self._counters.children
        count[number] += 1
        name = f"{self._post.name}-child-{count[number]}"
        seed = self._chance.getrandbits(32)
        pid = os.fork()
        if pid == 0:
            _run_child(self._actor, name, seed)
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


def _actor(post: Post) -> Actor:
    if post.is_client:
        folder = post.folder.with_name("configuration")
        set_up(post.url, folder, post.name, TTL_SECONDS)
        return ClientActor(post.folder, post.name, post.seed)
    return BrokerActor(SQLLedger(post.url), post.folder, post.name, post.seed)


def _run_child(parent: Actor, name: str, seed: int) -> None:
    """What a forked child runs; returns never."""
    exit_code = 1
    try:
        child = parent.forked(name, seed)
        try:
            _live(child)
        except BaseException:
            child.journal.note(PROBLEM, traceback.format_exc())
            raise
        exit_code = 0
    finally:
        os._exit(exit_code)


def _live(child: Actor) -> None:
    """Act a few times, then end somehow: everything given back or nothing, in order or
    killed.
    """
    deadline = time.monotonic() + CHILD_SECONDS
    for _ in range(child.chance.randint(1, CHILD_ACTIONS)):
        if time.monotonic() < deadline:
            child.act()
    child.check()
    end = child.chance.choice([child.release_all, child.close, _die, None])
    if end is not None:
        end()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
