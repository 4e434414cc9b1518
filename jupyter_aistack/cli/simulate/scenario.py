"""On what, and by which rules, sessions are replayed: a scenario, and the policies that
are built from a scenario.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from jupyter_aistack.core.model.policy import IdlePolicy
from jupyter_aistack.core.model.units import GIB, TIB
from jupyter_aistack.exceptions import InvalidRequest

from .baselines import BatchPolicy, NotebookOS
from .costs import Costs
from .hosts import HostPool
from .lease_policies import ReclaimPolicy, ReservationPolicy
from .replay import SessionPolicy
from .suspend_policy import SuspensionPolicy
from .trace import MINUTE, SessionModel


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """On what, and by which rules, sessions are replayed.

    Attributes:
        gpus: how many there are; None for as many as `reservation` needs so that no
            session waits.
        gpus_per_host: on each machine.
        gpu_bytes: memory of each GPU.
        host_bytes: memory of each host.
        parked_share: the share of it that suspended state may take.
        park_seconds: `suspend` suspends a session that has been idle for so long, though
            its capacity is not needed.
        side_by_side: how many sessions `suspend` lets run a task on one GPU at once.
        reclaim_seconds: `reservation` reclaims the GPUs of a session idle for so long;
            None for never.
        idle: when `reclaim` reclaims leases.
        session_model: what the trace does not tell.
        costs: what starting, loading and moving takes.
    """

    gpus: int | None = None
    gpus_per_host: int = 8
    gpu_bytes: int = 80 * GIB
    host_bytes: int = 2 * TIB
    parked_share: float = 0.6
    park_seconds: float = 20 * MINUTE
    side_by_side: int = 1
    reclaim_seconds: float | None = None
    idle: IdlePolicy = field(default_factory=IdlePolicy)
    session_model: SessionModel = field(default_factory=SessionModel)
    costs: Costs = field(default_factory=Costs)

    def pool(self, gpus: int) -> HostPool:
        """So many GPUs, none taken."""
        return HostPool(gpus, per_host=self.gpus_per_host, memory_bytes=self.gpu_bytes)

    def scaled_model(self, scale: float) -> SessionModel:
        """The session model with states `scale` times as large, and none larger than a
        GPU can hold.
        """
        usable = self.gpu_bytes - self.costs.overhead_bytes
        return replace(
            self.session_model,
            memory_scale=scale * self.session_model.memory_scale,
            most_bytes=usable / (1 + self.costs.overhead_share),
        )


def reservation(pool: HostPool, scenario: Scenario) -> SessionPolicy:
    """Sessions hold whole GPUs, for good or until they have been idle for long."""
    seconds = scenario.reclaim_seconds
    if seconds is None:
        return ReservationPolicy(pool, scenario.costs, None)
    idle = IdlePolicy(
        badge_seconds=seconds, notice_seconds=seconds, reclaim_seconds=seconds
    )
    return ReservationPolicy(pool, scenario.costs, idle)


def _batch(pool: HostPool, scenario: Scenario) -> SessionPolicy:
    return BatchPolicy(pool, scenario.costs, seed=scenario.session_model.seed)


def _notebookos(pool: HostPool, scenario: Scenario) -> SessionPolicy:
    return NotebookOS(pool, scenario.costs, seed=scenario.session_model.seed)


def _reclaim(pool: HostPool, scenario: Scenario) -> SessionPolicy:
    return ReclaimPolicy(pool, scenario.costs, scenario.idle)


def _suspend(pool: HostPool, scenario: Scenario) -> SessionPolicy:
    return SuspensionPolicy(
        pool,
        scenario.costs,
        park_seconds=scenario.park_seconds,
        side_by_side=scenario.side_by_side,
        host_bytes=scenario.host_bytes * scenario.parked_share,
    )


POLICIES: Mapping[str, Callable[[HostPool, Scenario], SessionPolicy]] = {
    "reservation": reservation,
    "batch": _batch,
    "notebookos": _notebookos,
    "reclaim": _reclaim,
    "suspend": _suspend,
}


def check_policy(policy: str) -> None:
    """Raises InvalidRequest when there is no such policy."""
    if policy not in POLICIES:
        raise InvalidRequest(
            f"policy: {policy!r} is not one of {', '.join(POLICIES)}", field="policy"
        )


def check_scenario(scenario: Scenario) -> None:
    """Raises InvalidRequest when what it says cannot be."""
    model = scenario.session_model
    if model.p90_bytes < model.median_bytes:
        raise InvalidRequest(
            "--memory-p90: is below --memory-median", field="memory_p90"
        )
    if scenario.idle.reclaim_seconds < scenario.idle.notice_seconds:
        raise InvalidRequest(
            "--idle-reclaim: is before --idle-notice", field="idle_reclaim"
        )
    if scenario.gpu_bytes < GIB:
        raise InvalidRequest("--gpu-memory: is below 1GiB", field="gpu_memory")
    if scenario.gpus is not None and scenario.gpus < 1:
        raise InvalidRequest(
            f"--gpus: {scenario.gpus} is not a number of GPUs, at least 1", field="gpus"
        )
