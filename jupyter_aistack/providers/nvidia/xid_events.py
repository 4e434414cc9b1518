"""The errors that GPUs report as they happen: events of NVML, which one thread waits for.

The thread asks the driver beside all others (`NVML.wait`) and ends before the driver is
closed: a set of events does not outlive the session that it was made in, and a reset GPU
comes back only to a driver that is opened anew.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from jupyter_aistack.exceptions import ProviderError

from .nvml import (
    FUNCTION_NOT_FOUND,
    NOT_SUPPORTED,
    NVML,
    TIMEOUT,
    UNINITIALIZED,
    address_of,
)

XID = 0x8
DOUBLE_BIT = 0x2
"""``nvmlEventTypeXidCriticalError`` and ``nvmlEventTypeDoubleBitEccError``."""

WAIT_MILLISECONDS = 250
"""So long one call waits, and so long it may take to close the driver."""
PAUSE_SECONDS = 1.0
"""So long the thread rests when the driver refuses to wait, as for a lost GPU."""
MOST_KEPT = 1024
"""Events that nobody has taken; of more, the newest are kept."""
MOST_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class GPUEvent:
    """What a GPU has reported.

    Attributes:
        uuid: the GPU.
        xid: the number of the Xid error; None for an error of its memory.
    """

    uuid: str
    xid: int | None


class EventListener:
    """Collects what GPUs report, from the second `listen` on.

    Args:
        nvml: the connection to the driver.
    """

    def __init__(self, nvml: NVML) -> None:
        self._nvml = nvml
        self._session = 0
        self._set: Any = None
        self._watched: dict[int, str] = {}
        self._mute: set[int] = set()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._can_wait = True
        self._is_asked_again = False
        # Appending to it takes no lock that a fork could leave behind locked.
        self._events: deque[GPUEvent] = deque(maxlen=MOST_KEPT)
        nvml.before_close(self.stop)

    def is_watched(self, uuid: str) -> bool:
        """Whether errors of a GPU are reported as they happen."""
        is_current = self._session == self._nvml.session
        return is_current and self._can_wait and uuid in self._watched.values()

    def watch(self, handle: Any, uuid: str) -> None:
        """Have the errors of a GPU reported from now on, where its driver can."""
        if self._session != self._nvml.session:
            self._forget_session()
        if not self._can_wait:
            return
        if self._set is None:
            self._set = self._ask("nvmlEventSetCreate")
        address = address_of(handle)
        if self._set is None or address in self._watched or address in self._mute:
            return
        supported = self._ask("nvmlDeviceGetSupportedEventTypes", handle) or 0
        wanted = supported & (XID | DOUBLE_BIT)
        # Nobody says whether a set may grow while it is waited for.
        self.stop()
        if wanted & XID and self._is_registered(handle, wanted):
            self._watched[address] = uuid
        else:
            self._mute.add(address)

    def listen(self) -> None:
        """Wait for events in a thread, unless one does already: from the second call
        on. Who asks but once, a command say, would have to end the thread at once.
        """
        if not self._is_asked_again:
            self._is_asked_again = True
            return
        is_waiting = self._thread is not None and self._thread.is_alive()
        # The set of a session that is over is freed memory.
        is_current = self._session == self._nvml.session
        is_possible = is_current and bool(self._watched) and self._can_wait
        if is_waiting or not is_possible:
            return
        self._stop = threading.Event()
        thread = threading.Thread(
            target=self._wait,
            args=(self._set, dict(self._watched), self._stop),
            name="aistack-gpu-events",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:
            # No thread is to be had: they are taken when the GPUs are looked at.
            self._take_without_waiting()
            return
        self._thread = thread

    def take(self) -> list[GPUEvent]:
        """What was reported since the last time, in order."""
        taken = []
        while self._events:
            taken.append(self._events.popleft())
        return taken

    def stop(self) -> None:
        """End the thread; `listen` starts another."""
        thread = self._thread
        self._thread = None
        # In a forked child it lives no more, and its locks may be as it left them.
        if thread is not None and thread.is_alive():
            self._stop.set()
            if thread is not threading.current_thread():
                thread.join()

    def _forget_session(self) -> None:
        self.stop()
        self._set = None
        self._watched = {}
        self._mute = set()
        self._can_wait = True
        self._session = self._nvml.session

    # -- in the thread -----------------------------------------------------------------

    def _wait(
        self, event_set: Any, watched: dict[int, str], stop: threading.Event
    ) -> None:
        while not stop.is_set():
            code = self._collect(event_set, watched, WAIT_MILLISECONDS)
            if code == UNINITIALIZED:
                return
            if code in (FUNCTION_NOT_FOUND, NOT_SUPPORTED):
                self._can_wait = False
                return
            if code not in (0, TIMEOUT):
                stop.wait(PAUSE_SECONDS)

    def _collect(
        self, event_set: Any, watched: dict[int, str], milliseconds: int
    ) -> int | None:
        """Take one event in; the driver's code, None where it could not be asked."""
        try:
            code, event = self._nvml.wait(
                "nvmlEventSetWait_v2", event_set, milliseconds
            )
        except ProviderError:
            return None
        uuid = watched.get(address_of(event.device)) if code == 0 else None
        if uuid is not None:
            is_xid = bool(event.eventType & XID)
            xid = int(event.eventData) if is_xid else None
            self._events.append(GPUEvent(uuid=uuid, xid=xid))
        return code

    # -- beside it ---------------------------------------------------------------------

    def _take_without_waiting(self) -> None:
        for _ in range(MOST_AT_ONCE):
            if self._session != self._nvml.session:
                return
            if self._collect(self._set, self._watched, 0) != 0:
                return

    def _is_registered(self, handle: Any, kinds: int) -> bool:
        try:
            # No repetition: the set does not outlive the session it was made in.
            args = (handle, kinds, self._set)
            self._nvml.query("nvmlDeviceRegisterEvents", *args, is_repeated=False)
        except ProviderError:
            return False
        return True

    def _ask(self, function: str, *args: Any) -> Any:
        try:
            return self._nvml.query(function, *args, default=None)
        except ProviderError:
            return None
