"""Policies of others, to compare with: GPUs bound task by task, from queues of their
own.
"""

from __future__ import annotations

import random
from collections import deque

from .costs import Costs
from .hosts import HostPool
from .replay import Notebook, SessionPolicy


class UpperBound(SessionPolicy):
    """What both have in common: a task binds whole GPUs of one host and gives them back
    when it ends.

    Args:
        pool: the machines.
        costs: what starting and loading takes.
        seed: of the times that containers take to start.
    """

    def __init__(self, pool: HostPool, costs: Costs, *, seed: int) -> None:
        self.pool = pool
        self.costs = costs
        self._draw = random.Random(f"{seed} starts")

    def opened(self, notebook: Notebook, now: float) -> None:
        """Nothing is held between tasks."""

    def closed(self, notebook: Notebook, now: float) -> None:
        """Nothing is held between tasks."""

    def _bind(self, notebook: Notebook, host: str, now: float, at: float) -> None:
        slices = self.pool.place(notebook.task.gpus, host)
        assert slices is not None, "the host was chosen because it has so many"
        self.pool.take(slices)
        self.meter.hold(len(slices), now)
        notebook.slices = slices
        notebook.host = host
        self.begin(notebook, now, at)

    def _unbind(self, notebook: Notebook, now: float) -> None:
        self.pool.give(notebook.slices)
        self.meter.hold(-len(notebook.slices), now)
        notebook.slices = ()
        notebook.host = ""

    def _start_seconds(self, notebook: Notebook) -> float:
        """A container starts, and reads the state of one GPU: the other GPUs of a task
        get copies of it.
        """
        self.meter.resumes += 1
        return self._draw.uniform(*self.costs.start_seconds) + self.costs.load(
            notebook.session.memory_bytes
        )


class BatchPolicy(UpperBound):
    """Every task is a job: first come first served, and each starts a container and
    loads its state.
    """

    name = "batch"

    def __init__(self, pool: HostPool, costs: Costs, *, seed: int) -> None:
        super().__init__(pool, costs, seed=seed)
        self._queue: deque[Notebook] = deque()

    def submitted(self, notebook: Notebook, now: float) -> None:
        self._queue.append(notebook)
        self._serve(now)

    def finished(self, notebook: Notebook, now: float) -> None:
        self._unbind(notebook, now)
        self._serve(now)

    def _serve(self, now: float) -> None:
        while self._queue:
            host = self.pool.best_host(self._queue[0].task.gpus)
            if host is None:
                return
            notebook = self._queue.popleft()
            self._bind(notebook, host, now, now + self._start_seconds(notebook))


class NotebookOS(UpperBound):
    """Standby replicas of each session on several hosts; a task binds GPUs where a
    replica is, or moves a replica.

    After NotebookOS (ASPLOS 2026), in its favour: choosing a replica and loading its
    state onto the GPU take no time, replicas hold no GPU, and the cluster has all its
    hosts all the time.

    Args:
        pool: the machines.
        costs: what moving a replica takes.
        seed: of the times that containers take to start.
        replicas: of each session, on as many hosts.
        most_subscribed: GPUs of all replicas on a host for each GPU it has.
    """

    name = "notebookos"

    def __init__(
        self,
        pool: HostPool,
        costs: Costs,
        *,
        seed: int,
        replicas: int = 3,
        most_subscribed: float = 7.0,
    ) -> None:
        super().__init__(pool, costs, seed=seed)
        self.replicas = replicas
        self.most_subscribed = most_subscribed
        self._subscribed = dict.fromkeys(pool.hosts, 0)
        self._hosts: dict[Notebook, list[str]] = {}
        self._queue: list[Notebook] = []

    def opened(self, notebook: Notebook, now: float) -> None:
        gpus = notebook.session.gpus
        ranked = sorted(self.pool.hosts, key=lambda host: self._load(host, gpus))
        fitting = [host for host in ranked if self._may_hold(host, gpus)]
        hosts = fitting[: self.replicas]
        self._hosts[notebook] = hosts
        for host in hosts:
            self._subscribed[host] += gpus

    def closed(self, notebook: Notebook, now: float) -> None:
        for host in self._hosts.pop(notebook):
            self._subscribed[host] -= notebook.session.gpus

    def submitted(self, notebook: Notebook, now: float) -> None:
        if not self._try_start(notebook, now):
            self._queue.append(notebook)

    def finished(self, notebook: Notebook, now: float) -> None:
        self._unbind(notebook, now)
        if self._queue:
            self._queue = [
                waiting for waiting in self._queue if not self._try_start(waiting, now)
            ]

    def _load(self, host: str, more: int) -> float:
        """GPUs of all replicas on a host, with `more` of them, for each GPU it has."""
        return (self._subscribed[host] + more) / self._size(host)

    def _size(self, host: str) -> int:
        return len(self.pool.inventories[host].devices)

    def _may_hold(self, host: str, gpus: int) -> bool:
        """Whether another replica of so many GPUs may be on a host."""
        is_large_enough = self._size(host) >= gpus
        return is_large_enough and self._load(host, gpus) <= self.most_subscribed

    def _try_start(self, notebook: Notebook, now: float) -> bool:
        gpus = notebook.task.gpus
        host = self.pool.emptiest(self._hosts[notebook], gpus)
        if host is not None:
            self._bind(notebook, host, now, now)
            return True
        host = self.pool.best_host(gpus)
        if host is None:
            return False
        self._move(notebook, host)
        self._bind(notebook, host, now, now + self._start_seconds(notebook))
        return True

    def _move(self, notebook: Notebook, to: str) -> None:
        """The replica on the busiest host goes to another, unless that host has as many
        replicas as it may.
        """
        hosts = self._hosts[notebook]
        gpus = notebook.session.gpus
        if not self._may_hold(to, gpus):
            return
        if hosts:
            busiest = min(hosts, key=lambda host: self.pool.free[host])
            hosts.remove(busiest)
            self._subscribed[busiest] -= gpus
        hosts.append(to)
        self._subscribed[to] += gpus
