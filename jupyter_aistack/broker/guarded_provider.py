"""A provider that keeps its promises: whatever goes wrong in the code behind the port,
the broker sees an error of a provider, or what stands for an unknown answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from jupyter_aistack.core.enforcement.limit_effect import LimitEffect
from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device, Fault
from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample
from jupyter_aistack.core.placement.mig_plan import MIGPlan
from jupyter_aistack.exceptions import ProviderError, Refused
from jupyter_aistack.providers.base import Provider

log = logging.getLogger("jupyter_aistack")

LONGEST_REASON = 300
"""Characters of a reason that are shown."""

T = TypeVar("T")


class GuardedProvider(Provider):
    """Passes every call on to a provider that may raise what it did not promise.

    What fails is logged once, and again only after it has worked or fails otherwise:
    a driver in trouble is asked every second.

    Args:
        provider: the provider.
    """

    def __init__(self, provider: Provider) -> None:
        self.inner = provider
        self.name = provider.name
        self.visibility = provider.visibility
        self._failures: dict[str, str] = {}

    @property
    def problem(self) -> str:
        """Why use cannot be measured now, in one sentence; empty where it can."""
        reason = self._failures.get("sample", "")
        return (
            f"{self.name}: its devices cannot be measured: {reason}" if reason else ""
        )

    @property
    def allowance(self) -> str:
        return self._answered("allowance", lambda: self.inner.allowance, "")

    # -- what may fail, with an error of a provider ------------------------------------

    def discover(self, host: str) -> tuple[Device, ...]:
        def ask() -> tuple[Device, ...]:
            return _all_of(Device, self.inner.discover(host))

        return self._checked("discover", ask, is_shown=True)

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        def ask() -> Preparation:
            return _a(Preparation, self.inner.prepare(lease, devices))

        return self._checked("prepare", ask, is_shown=True)

    def device_files(
        self, lease: Lease, devices: Mapping[str, Device]
    ) -> tuple[str, ...] | None:
        return self._answered(
            "device_files", lambda: self.inner.device_files(lease, devices), None
        )

    def enter(self, lease: Lease, pid: int) -> None:
        self._checked("enter", lambda: self.inner.enter(lease, pid), is_shown=True)

    def adjust(
        self, lease: Lease, devices: Mapping[str, Device], pids: Collection[int]
    ) -> LimitEffect:
        def ask() -> LimitEffect:
            return _a(LimitEffect, self.inner.adjust(lease, devices, pids))

        return self._checked("adjust", ask)

    def terminate(self, lease: Lease, pid: int) -> None:
        def ask() -> None:
            self.inner.terminate(lease, pid)

        self._checked("terminate", ask, is_shown=True)

    def plan_room(
        self,
        wanted: Sequence[str],
        leased: Mapping[str, str],
        drained: Collection[str] = (),
    ) -> MIGPlan | None:
        def ask() -> MIGPlan | None:
            return self.inner.plan_room(wanted, leased, drained)

        return self._checked("plan_room", ask, is_shown=True)

    def make_room(
        self,
        wanted: Sequence[str],
        leased: Mapping[str, str],
        drained: Collection[str] = (),
    ) -> tuple[str, ...]:
        def ask() -> tuple[str, ...]:
            return _all_of(str, self.inner.make_room(wanted, leased, drained))

        return self._checked("make_room", ask, is_shown=True)

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        def ask() -> Mapping[str, DeviceSample]:
            readings = dict(self.inner.sample(devices, leases, pids, since))
            _all_of(DeviceSample, readings.values())
            return readings

        return self._checked("sample", ask)

    # -- what must not fail: an answer that is unknown ---------------------------------

    def unprepare(self, lease: Lease) -> None:
        self._answered("unprepare", lambda: self.inner.unprepare(lease), None)

    def clients(self, lease: Lease) -> frozenset[int] | None:
        return self._answered("clients", lambda: self.inner.clients(lease), None)

    def driver_version(self) -> str:
        return self._answered("driver_version", self.inner.driver_version, "")

    def faults(self) -> tuple[Fault, ...]:
        def ask() -> tuple[Fault, ...]:
            return _all_of(Fault, self.inner.faults())

        return self._answered("faults", ask, ())

    def restore_faults(self, faults: Sequence[DeviceFault]) -> None:
        self._answered(
            "restore_faults", lambda: self.inner.restore_faults(faults), None
        )

    def has_moved(self, lease: Lease) -> None:
        self._answered("has_moved", lambda: self.inner.has_moved(lease), None)

    def simulated_state(self, lease: Lease) -> int | None:
        def ask() -> int | None:
            return self.inner.simulated_state(lease)

        return self._answered("simulated_state", ask, None)

    def close(self) -> None:
        self._answered("close", self.inner.close, None)

    # -- one rule for all --------------------------------------------------------------

    def _checked(
        self, method: str, ask: Callable[[], T], *, is_shown: bool = False
    ) -> T:
        """The provider's answer; what it promised to raise, or `ProviderError`.

        Args:
            is_shown: an error that was promised is shown to whoever asked, and need not
                be logged.
        """
        try:
            answer = ask()
        except Refused:
            raise
        except ProviderError as error:
            self._failed(method, error.message, None, is_logged=not is_shown)
            raise
        except Exception as error:
            reason = reason_of(error)
            self._failed(method, reason, error, is_logged=True)
            raise ProviderError(reason) from error
        self._failures.pop(method, None)
        return answer

    def _answered(self, method: str, ask: Callable[[], T], unknown: T) -> T:
        """The provider's answer, or what stands for an unknown answer."""
        try:
            return self._checked(method, ask)
        except ProviderError:
            return unknown

    def _failed(
        self, method: str, reason: str, error: Exception | None, *, is_logged: bool
    ) -> None:
        is_new = self._failures.get(method) != reason
        self._failures[method] = reason
        if is_new and is_logged:
            log.warning("%s: %s fails: %s", self.name, method, reason, exc_info=error)


def reason_of(error: Exception) -> str:
    """What an error says, in one line that can be shown."""
    words = " ".join(str(error).split())
    shown = "".join(letter for letter in words if letter.isprintable())
    return f"{type(error).__name__}: {shown}"[:LONGEST_REASON].rstrip(": ")


def _a(kind: type[T], answer: Any) -> T:
    if not isinstance(answer, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(answer).__name__}")
    return answer


def _all_of(kind: type[T], answers: Any) -> tuple[T, ...]:
    return tuple(_a(kind, answer) for answer in answers)
