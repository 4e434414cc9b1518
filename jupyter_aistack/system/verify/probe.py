"""The probe: run as a short-lived child, it prints what a process with its environment
really sees, as a JSON object.

Its arguments are files of providers that ask one vendor's driver each (see
`DeviceVisibility.probe`). ``visible`` (UUIDs of the devices that the drivers show),
``memory_total`` and ``memory_free`` (bytes, over all of them) and ``multiprocessors``
(likewise); all null when no driver answers, with the reason in ``problem``. ``cores``
(CPU affinity), ``threads`` (OMP_NUM_THREADS), ``pid``. With ``--hold`` it keeps its
contexts after that until its input ends, so that it is on a server's list of clients
meanwhile. It uses the standard library alone, so any interpreter can run this file, and
it ends within seconds whatever a driver does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

DRIVER_SECONDS = 30.0
"""How long a driver may take to start. Without persistence the first start takes up to
seven seconds on a host of eight GPUs, a server of MPS comes on top, and many slices may
be granted at once.
"""
PASSING_SECONDS = 10.0
"""How long it goes on asking a driver whose refusal passes."""
RETRY_SECONDS = 0.2
HOLD_SECONDS = 10.0
"""The longest it keeps its contexts."""

RELEASE_SECONDS = 0.5
_UNTIL = "--until="
NOTHING = {
    "visible": None,
    "memory_total": None,
    "memory_free": None,
    "multiprocessors": None,
}


def report(probes: Sequence[ModuleType]) -> dict[str, Any]:
    """What this process sees. Starts the vendors' runtimes in it, so never call this in
    a process that goes on living.
    """
    devices: dict[str, Any] = {}
    # In a thread: a driver that hangs must not keep the rest from being reported.
    asking = threading.Thread(target=_ask, args=(probes, devices), daemon=True)
    asking.start()
    asking.join(DRIVER_SECONDS)
    if asking.is_alive():
        problem = f"the driver did not answer within {DRIVER_SECONDS:.0f} seconds"
        devices = {"problem": problem}
    return {
        **NOTHING,
        **devices,
        "cores": _cores(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "pid": os.getpid(),
    }


def _cores() -> list[int] | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))


def _ask(probes: Sequence[ModuleType], devices: dict[str, Any]) -> None:
    devices.update(_combined([probe.ask_devices() for probe in probes]))


def _combined(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The devices of all vendors that answer; where none does, the reasons."""
    known = [answer for answer in answers if "problem" not in answer]
    passes = any(answer.get("passes") for answer in answers)
    if not known:
        reasons = "; ".join(answer["problem"] for answer in answers)
        return {"problem": reasons, "passes": passes}
    return {
        "passes": passes,
        "visible": [uuid for answer in known for uuid in answer["visible"]],
        "memory_total": sum(answer["memory_total"] for answer in known),
        "memory_free": sum(answer["memory_free"] for answer in known),
        "multiprocessors": sum(answer["multiprocessors"] for answer in known),
    }


def _load(path: str) -> ModuleType:
    """The module of one vendor: by path, as the package need not be importable here."""
    spec = importlib.util.spec_from_file_location("aistack_device_probe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _release(probes: Sequence[ModuleType]) -> None:
    for probe in probes:
        probe.release()


def _ask_again(arguments: Sequence[str]) -> None:
    """Begin anew in a moment, as the same process, unless that has gone on for too
    long: a driver that failed to start is not started again in one program.
    """
    given = [word for word in arguments if word.startswith(_UNTIL)]
    until = time.monotonic() + PASSING_SECONDS
    if given:
        until = float(given[0][len(_UNTIL) :])
    if time.monotonic() > until:
        return
    time.sleep(RETRY_SECONDS)
    rest = [word for word in arguments if word not in given]
    again = [__file__, f"{_UNTIL}{until}", *rest]
    os.execv(sys.executable, [sys.executable, "-I", "-S", *again])


def main(arguments: Sequence[str]) -> None:
    """Print the report, stay until input ends where asked to, and exit without waiting
    for a driver that hangs.
    """
    probes = [_load(path) for path in arguments if not path.startswith("--")]
    seen = report(probes)
    if seen.pop("passes", False):
        _ask_again(arguments)
    print(json.dumps(seen), flush=True)
    if "--hold" in arguments:
        select.select([sys.stdin], [], [], HOLD_SECONDS)
    leaving = threading.Thread(target=_release, args=(probes,), daemon=True)
    leaving.start()
    leaving.join(RELEASE_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
