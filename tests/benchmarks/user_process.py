"""One user's process in `many_users`: it asks for its kernels, as a Jupyter server does,
through a host broker or with a broker of its own.

It reads a JSON object per line (``{"do": "ask", ...}``) and answers each with one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.wire.protocol import SpokenFor
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from jupyter_aistack.providers.simulated import SimulatedProvider
from jupyter_aistack.system.broker_socket import BrokerSocket

JSON = dict[str, Any]
Call = Callable[[str, JSON, SpokenFor], JSON]
CYCLE_SECONDS = 2.0
"""Between two turns of a Jupyter server's broker, by default."""
WATCH_SECONDS = 1.0


def through_host_broker(path: str) -> Call:
    """Calls go to the broker of the host."""
    return BrokerSocket(path).call


def with_own_broker(url: str, devices: str, user: str) -> Call:
    """Calls are answered here, by a broker that keeps what it grants."""
    broker = Broker(SQLLedger(url), [SimulatedProvider(devices)])
    service = Service(broker)
    threading.Thread(target=_maintain, args=(broker,), daemon=True).start()

    def call(verb: str, payload: JSON, caller: SpokenFor) -> JSON:
        asks = Caller(
            user=user,
            uid=os.getuid(),
            pid=caller.pid,
            kernel_id=caller.kernel_id,
            kernel_pid=caller.kernel_pid,
        )
        return service.call(verb, payload, asks)

    return call


def _maintain(broker: Broker) -> None:
    while True:
        time.sleep(CYCLE_SECONDS)
        broker.maintain()


class UserProcess:
    """A user with kernels.

    Args:
        call: how the broker is asked.
        kernels: how many kernels there are.
        spec: what each asks for.
    """

    def __init__(self, call: Call, kernels: int, spec: str) -> None:
        self._call = call
        self._spec = spec
        self._kernels = [_sleeper() for _ in range(kernels)]
        self._leases: list[str] = []

    def answer(self, command: JSON) -> JSON:
        """Do what is asked for."""
        if command["do"] == "ask":
            return {"milliseconds": self.ask(command["seconds"])}
        if command["do"] == "watch":
            return {"milliseconds": self.watch(command["seconds"])}
        return {"released": self.release()}

    def ask(self, seconds: float) -> list[float]:
        """Each kernel asks once, at some moment within so many seconds; how long each
        waited for its lease.
        """
        with ThreadPoolExecutor(len(self._kernels)) as pool:
            pauses = [random.uniform(0, seconds) for _ in self._kernels]
            return list(pool.map(self._ask_one, self._kernels, pauses))

    def _ask_one(self, kernel: subprocess.Popen[bytes], pause: float) -> float:
        time.sleep(pause)
        caller = _spoken_for(kernel)
        begin = time.perf_counter()
        answer = self._call("request", {"spec": self._spec}, caller)
        elapsed = time.perf_counter() - begin
        self._leases.append(answer["lease"]["id"])
        return elapsed * 1000

    def watch(self, seconds: float) -> list[float]:
        """A panel that is open for so long; how long each look took."""
        caller = _spoken_for(self._kernels[0])
        until = time.monotonic() + seconds
        times = []
        while time.monotonic() < until:
            begin = time.perf_counter()
            self._call("snapshot", {}, caller)
            times.append((time.perf_counter() - begin) * 1000)
            time.sleep(WATCH_SECONDS)
        return times

    def release(self) -> int:
        """Give all leases back."""
        for lease_id in self._leases:
            caller = _spoken_for(self._kernels[0])
            self._call("release", {"lease_id": lease_id}, caller)
        count = len(self._leases)
        self._leases = []
        return count

    def end(self) -> None:
        """End the kernels."""
        for kernel in self._kernels:
            kernel.kill()
            kernel.wait()


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "3600"])


def _spoken_for(kernel: subprocess.Popen[bytes]) -> SpokenFor:
    name = f"kernel-{kernel.pid}"
    return SpokenFor(pid=kernel.pid, kernel_id=name, kernel_pid=kernel.pid)


def main() -> None:
    """Serve until the input ends."""
    options = json.loads(sys.argv[1])
    if "socket" in options:
        call = through_host_broker(options["socket"])
    else:
        call = with_own_broker(options["url"], options["devices"], options["user"])
    user = UserProcess(call, options["kernels"], options["spec"])
    print("{}", flush=True)
    try:
        for line in sys.stdin:
            print(json.dumps(user.answer(json.loads(line))), flush=True)
    finally:
        user.end()


if __name__ == "__main__":
    main()
