"""An actor that asks as users do: through ``jupyter_aistack.request``, on the ledger that
the environment names, with the settings of a configuration file.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jupyter_aistack as aistack
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.client.client import LeaseHandle, connect
from jupyter_aistack.exceptions import (
    AIStackError,
    LeaseError,
    LedgerError,
)

from .actor import EXTENSION_SECONDS, FORGOTTEN_SECONDS, LONG_SECONDS, MOST_HELD, Actor
from .devices import SPECS
from .journal import GIVEN_BACK, HANDED
from .keeper import Keeper

PROVIDER = Path(__file__).with_name("provider")
"""What a package is installed by that provides the devices."""


def set_up(url: str, folder: Path, name: str, ttl_seconds: float) -> None:
    """Let the client of this process find a ledger and devices.

    Args:
        folder: for the configuration file, which all clients write alike.
        name: of the holder.
    """
    folder.mkdir(exist_ok=True)
    settings = {"AIStack": {"lease_ttl_seconds": ttl_seconds}}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(settings))
    path.replace(folder / "jupyter_aistack_config.json")
    os.environ["JUPYTER_CONFIG_DIR"] = str(folder)
    os.environ["AISTACK_LEDGER"] = url
    os.environ["AISTACK_PROVIDERS"] = "fixed"
    sys.path.append(str(PROVIDER))


class ClientActor(Actor):
    """Acts through the client; its threads and forked children do likewise."""

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        super().__init__(folder, name, seed)
        self._lock = threading.Lock()
        self._handles: list[LeaseHandle] = []
        self._handed: set[str] = set()

    def actions(self) -> dict[Callable[[], None], int]:
        return {
            self.request: 5,
            self.extend: 2,
            self.release: 5,
            self.forget: 1,
            self.check: 3,
            self.request_in_threads: 1,
        }

    def keep(self, keeper: Callable[[Broker], Keeper]) -> None:
        """Nothing: the client has a thread of its own for that."""

    def forked(self, name: str, seed: int) -> Actor:
        return ClientActor(self.folder, name, seed)

    def close(self) -> None:
        connect().close()

    # -- what it does ------------------------------------------------------------------

    def request(self) -> None:
        if len(self._handles) < MOST_HELD:
            self._ask(duration=self.chance.choice([None, LONG_SECONDS]))

    def request_in_threads(self) -> None:
        """Ask three times at once; one of them at most gets this process's place."""
        if self._handles:
            return
        threads = [threading.Thread(target=self._ask_or_not) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask_or_not(self) -> None:
        with suppress(AIStackError):
            self._ask(duration=None)

    def _ask(self, *, duration: float | None) -> None:
        handle = aistack.request(
            self.chance.choice(SPECS),
            wait=self.chance.random() < 0.7,
            timeout=self.chance.choice([0.0, 0.0, 0.3]),
            duration=duration,
            label=self.name,
            attach=self.chance.random() < 0.4,
        )
        with self._lock:
            self._handles.append(handle)
        if not handle.is_granted and self.chance.random() < 0.5:
            self._drop(handle)
            handle.release()

    def forget(self) -> None:
        """Neither keep nor release: the end that was asked for must come."""
        aistack.request(
            self.chance.choice(SPECS),
            timeout=0.0,
            duration=FORGOTTEN_SECONDS,
            label=self.name,
            attach=False,
        )

    def extend(self) -> None:
        for handle in self._any_held():
            try:
                handle.extend(EXTENSION_SECONDS)
            except LeaseError as error:
                self._drop(handle)
                self.report_loss(handle.id, error.message)

    def release(self) -> None:
        for handle in self._any_held():
            self._release(handle)

    def release_all(self) -> None:
        for handle in list(self._handles):
            with suppress(AIStackError):
                self._release(handle)

    def _release(self, handle: LeaseHandle) -> None:
        self._drop(handle)
        if handle.is_granted:
            self.journal.note(GIVEN_BACK, handle.id)
        try:
            handle.release()
        except LedgerError:
            self._handles.append(handle)
            raise
        if handle.lease is not None and handle.lease["outcome"] != "released":
            self.report_loss(handle.id, f"{handle.lease['outcome']} before its release")

    def _any_held(self) -> list[LeaseHandle]:
        held = [handle for handle in self._handles if handle.is_granted]
        return [self.chance.choice(held)] if held else []

    def _drop(self, handle: LeaseHandle) -> None:
        with self._lock:
            self._handles.remove(handle)

    # -- what it has -------------------------------------------------------------------

    def poll(self) -> None:
        for handle in list(self._handles):
            with suppress(LedgerError):
                self._look_at(handle)

    def _look_at(self, handle: LeaseHandle) -> None:
        if not handle.is_granted:
            handle.refresh()
        if handle.is_granted and handle.id not in self._handed:
            self._handed.add(handle.id)
            self.journal.note(HANDED, handle.id)
        elif handle.request["state"] in ("rejected", "cancelled"):
            self._drop(handle)

    def check(self) -> None:
        for handle in [each for each in self._handles if each.is_granted]:
            with suppress(LedgerError):
                handle.refresh()
                if handle.state == "ended":
                    self._drop(handle)
                    outcome = "" if handle.lease is None else handle.lease["outcome"]
                    self.report_loss(handle.id, f"{outcome} when it was looked at")
