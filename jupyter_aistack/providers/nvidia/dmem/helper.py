"""What the root helper does for a user, and nothing beyond it.

A question is an object with ``op``: ``hello``; ``hold`` (``lease``, ``gpu``,
``bytes``); ``enter`` (``lease``,
``pid``); ``list``; ``drop`` (``lease``). The answer has ``ok``, and ``message`` where
that is false. The user is known by the socket, and everything happens in that user's
own part of the tree: no path comes from outside.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jupyter_aistack.exceptions import InvalidRequest, ProviderError
from jupyter_aistack.providers.nvidia.nvml import NVML

from .groups import Groups

JSON = dict[str, Any]
UNLIMITED = 0xFFFFFFFFFFFFFFFF
"""NVML's ``NVML_DEVICE_MEMORY_LIMIT_MAX``."""
ROOT = 0
MOST_BYTES = 1 << 50
FORGOTTEN_SECONDS = 3600.0
"""A group without processes is a lease's whose server crashed, when it is as old as
that; it still reserves memory.
"""

_LEASE = re.compile(r"l[0-9a-f]{16}", re.ASCII)
_GPU = re.compile(r"GPU-[0-9A-Za-z-]{1,64}", re.ASCII)


class Helper:
    """Answers questions, one at a time.

    Args:
        nvml: the connection to the driver.
        groups: the control groups.
        proc: where processes are listed.
        clock: seconds since the epoch.
        reserve_percent: how much of a GPU's memory the leases of one user may keep from
            everybody else, also while they do not use it. The helper knows no ledger:
            with more than 0 a user can keep so much without a lease.
    """

    def __init__(
        self,
        nvml: NVML,
        groups: Groups,
        *,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.time,
        reserve_percent: int = 0,
    ) -> None:
        self._nvml = nvml
        self._groups = groups
        self._proc = proc
        self._clock = clock
        self._reserve_percent = reserve_percent
        self._turn = threading.Lock()
        self._verbs: dict[str, Callable[[int, Mapping[str, Any]], JSON]] = {
            "hello": self._hello,
            "hold": self._hold,
            "enter": self._enter,
            "list": self._list,
            "drop": self._drop,
        }

    def answer(self, uid: int, question: object) -> JSON:
        """The answer to a user's question; whatever is wrong with it is reported in the
        answer.
        """
        try:
            if not isinstance(question, dict) or question.get("op") not in self._verbs:
                raise InvalidRequest(f"op: expected one of {', '.join(self._verbs)}")
            with self._turn:
                return {"ok": True, **self._verbs[question["op"]](uid, question)}
        except (InvalidRequest, ProviderError) as error:
            return {"ok": False, "message": error.message}

    def _hello(self, uid: int, question: Mapping[str, Any]) -> JSON:
        if self._nvml.structure("c_nvmlSetMemoryLimits_v1_t") is None:
            raise ProviderError(
                "the helper's nvidia-ml-py knows no memory limits; it needs 13.615 or newer"
            )
        return {"gpus": self._nvml.query("nvmlDeviceGetCount")}

    def _hold(self, uid: int, question: Mapping[str, Any]) -> JSON:
        """Make the lease's group and limit it; what it may use at most is also kept for
        it, as far as the user's allowance goes.
        """
        lease = _lease(question)
        gpu = _gpu(question)
        limit = _integer(question, "bytes", most=MOST_BYTES)
        handle = self._nvml.query("nvmlDeviceGetHandleByUUID", gpu)
        for name in self._groups.forgotten(uid, self._clock() - FORGOTTEN_SECONDS):
            self._discard(uid, name)
        self._check_not_raised(uid, lease, handle, limit)
        reserved = min(limit, self._allowance(uid, lease, handle))
        group = self._groups.make(uid, lease)
        try:
            self._limit(handle, group, soft=reserved, hard=limit)
            limits = self._limits(handle, group)
            if limits is None or limits.hardLimit > limit:
                raise ProviderError(
                    "the driver does not keep the memory limit it was given"
                )
        except ProviderError:
            self._discard(uid, lease)
            raise
        return {"group": str(group)}

    def _check_not_raised(self, uid: int, lease: str, handle: Any, limit: int) -> None:
        """Refuse to raise a limit that processes run under.

        Raises:
            ProviderError: they would get more than their lease.
        """
        if not self._groups.has_processes(uid, lease):
            return
        limits = self._limits(handle, self._groups.path(uid, lease))
        if limits is not None and limits.hardLimit < limit:
            raise ProviderError(
                f"processes run under a limit of {limits.hardLimit} bytes; it may only be lowered"
            )

    def _allowance(self, uid: int, lease: str, handle: Any) -> int:
        """Bytes of a GPU that the user may still have reserved for a lease."""
        if not self._reserve_percent:
            return 0
        total: int = self._nvml.query("nvmlDeviceGetMemoryInfo", handle).total
        others = [
            self._limits(handle, self._groups.path(uid, name))
            for name in self._groups.names(uid)
            if name != lease
        ]
        taken: int = sum(limits.softLimit for limits in others if limits is not None)
        return max(0, total * self._reserve_percent // 100 - taken)

    def _enter(self, uid: int, question: Mapping[str, Any]) -> JSON:
        lease = _lease(question)
        pid = _integer(question, "pid", most=1 << 22)
        group = self._groups.path(uid, lease)
        if not group.is_dir():
            raise ProviderError(f"there is no group {lease} of user {uid}")
        owner = self._owner(pid)
        # The host broker is root, and holds what is other users'.
        if owner is None or uid not in (owner, ROOT):
            raise ProviderError(
                f"process {pid} does not run, or is not one of user {uid}"
            )
        self._groups.enter(group, pid)
        return {}

    def _list(self, uid: int, question: Mapping[str, Any]) -> JSON:
        """Bytes in use by lease and GPU index, all processes and all memory counted."""
        leases = {}
        for name in self._groups.names(uid):
            by_gpu = {
                index: self._limits(handle, self._groups.path(uid, name))
                for index, handle in self._handles()
            }
            leases[name] = {
                index: limits.currentUsed
                for index, limits in by_gpu.items()
                if limits is not None
            }
        return {"leases": leases}

    def _drop(self, uid: int, question: Mapping[str, Any]) -> JSON:
        self._discard(uid, _lease(question))
        return {}

    def _discard(self, uid: int, lease: str) -> None:
        """Remove a group, its reservations first: those of a group that vanishes stay
        with the groups above it.
        """
        group = self._groups.path(uid, lease)
        if not group.is_dir():
            return
        for _, handle in self._handles():
            limits = self._limits(handle, group)
            if limits is not None and (
                limits.softLimit or limits.hardLimit != UNLIMITED
            ):
                self._limit(handle, group, soft=0, hard=UNLIMITED)
        self._groups.discard(uid, lease)

    def _handles(self) -> list[tuple[int, Any]]:
        count = self._nvml.query("nvmlDeviceGetCount")
        handles = [
            (index, self._nvml.query("nvmlDeviceGetHandleByIndex", index, default=None))
            for index in range(count)
        ]
        return [(index, handle) for index, handle in handles if handle is not None]

    def _limit(self, handle: Any, group: Path, *, soft: int, hard: int) -> None:
        limits = self._nvml.structure(
            "c_nvmlSetMemoryLimits_v1_t",
            nameSpace=os.fsencode(group),
            softLimit=soft,
            hardLimit=hard,
        )
        self._nvml.query("nvmlDeviceSetMemoryLimits_v1", handle, limits)

    def _limits(self, handle: Any, group: Path) -> Any:
        """What the driver says of a group's limits on a GPU; None where it has none."""
        limits = self._nvml.structure(
            "c_nvmlGetMemoryLimits_v1_t", nameSpace=os.fsencode(group)
        )
        answer = self._nvml.query(
            "nvmlDeviceGetMemoryLimits_v1", handle, limits, default=False
        )
        return None if answer is False else limits

    def _owner(self, pid: int) -> int | None:
        try:
            return (self._proc / str(pid)).stat().st_uid
        except OSError:
            return None


def _lease(question: Mapping[str, Any]) -> str:
    return _text(question, "lease", _LEASE, "l and 16 hexadecimal digits")


def _gpu(question: Mapping[str, Any]) -> str:
    return _text(question, "gpu", _GPU, "the UUID of a GPU")


def _text(
    question: Mapping[str, Any], name: str, pattern: re.Pattern[str], allowed: str
) -> str:
    value = question.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidRequest(f"{name}: expected {allowed}")
    return value


def _integer(question: Mapping[str, Any], name: str, *, most: int) -> int:
    value = question.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidRequest(f"{name}: expected a whole number between 1 and {most}")
    return value
