"""Runs the probe as a short-lived child, and compares its report with what was granted."""

from __future__ import annotations

import functools
import importlib.util
import json
import select
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from jupyter_aistack.core.enforcement.preparation import Expectation
from jupyter_aistack.core.enforcement.verification import (
    Verdict,
    check_enforcement,
    not_verified,
)
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.runtimes import installed_visibilities

CHILD_SECONDS = 45.0
"""How long the child may take. It gives a driver up before that; the rest is for its
start on a busy host.
"""

SLOW_SECONDS = 2.0
"""After so long whoever waits for it is told of the wait."""
POLL_SECONDS = 0.5

OnSlow = Callable[[float], None]
"""Called again and again while a child takes longer than `SLOW_SECONDS`, with the
seconds so far; what it raises ends the wait.
"""

IsClient = Callable[[int], bool | None]
"""Whether the server that limits a slice knows a process; None where that is unknown.
"""

_PROGRAM = Path(__file__).with_name("probe.py")


class ProbeResult:
    """A child that has reported and keeps its device until this is closed, so that a
    server lists it as its client meanwhile.

    Attributes:
        seen: its report; see :mod:`jupyter_aistack.system.verify.probe`.

    Raises:
        OSError, subprocess.SubprocessError, ValueError: it did not start, did not
            answer in time, or made no sense.
    """

    def __init__(
        self,
        *,
        interpreter: str,
        environment: Mapping[str, str],
        on_slow: OnSlow | None = None,
    ) -> None:
        # Isolated: neither a module of the user's that is called json nor a slow
        # site-packages may get in the way.
        program = [interpreter, "-I", "-S", str(_PROGRAM), "--hold", *_device_probes()]
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.DEVNULL,
        }
        self._child = subprocess.Popen(program, env=dict(environment), **pipes)
        try:
            self.seen = self._report(on_slow)
        except BaseException:
            self.close()
            raise

    def _report(self, on_slow: OnSlow | None) -> dict[str, Any]:
        assert self._child.stdout is not None
        began_at = time.monotonic()
        while not select.select([self._child.stdout], [], [], POLL_SECONDS)[0]:
            seconds = time.monotonic() - began_at
            if seconds >= CHILD_SECONDS:
                raise subprocess.TimeoutExpired(self._child.args, CHILD_SECONDS)
            if seconds >= SLOW_SECONDS and on_slow is not None:
                on_slow(seconds)
        report: dict[str, Any] = json.loads(self._child.stdout.readline())
        return report

    def close(self) -> None:
        """End the child; a child that does not react is killed. It has given the device
        no work.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        try:
            self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()

    def __enter__(self) -> ProbeResult:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@functools.cache
def _device_probes() -> tuple[str, ...]:
    """The files of the installed providers that ask their vendor's driver."""
    modules = [each.probe for each in installed_visibilities() if each.probe]
    specs = [importlib.util.find_spec(module) for module in modules]
    return tuple(spec.origin for spec in specs if spec is not None and spec.origin)


def verify(
    expects: Expectation,
    *,
    interpreter: str,
    environment: Mapping[str, str],
    is_client: IsClient | None = None,
    on_slow: OnSlow | None = None,
) -> Verdict:
    """Compare what was granted with what a child of `interpreter` with `environment`
    sees.

    The child has the affinity of the calling thread. A runtime is started in the child alone.

    Args:
        is_client: asks the server that limits the slice, where such a server exists.
        on_slow: told while a driver takes long to start.

    Returns:
        As :func:`~jupyter_aistack.core.enforcement.verification.check_enforcement`.
    """
    if expects.is_empty:
        return check_enforcement(expects, {}, time.time())
    try:
        with ProbeResult(
            interpreter=interpreter, environment=environment, on_slow=on_slow
        ) as probe:
            # The server is asked while the child still holds the device: it knows a
            # process only as long as that is its client.
            mps = listed(expects, probe.seen, is_client)
            return check_enforcement(expects, {**probe.seen, "mps": mps}, time.time())
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return not_verified(type(error).__name__, time.time())


def listed(
    expects: Expectation, seen: Mapping[str, Any], is_client: IsClient | None
) -> bool | None:
    """Whether the probe is on the list of clients of the server that limits its slice;
    None where that is unknown or there is none.
    """
    pid = seen.get("pid")
    if not expects.mps or is_client is None or not isinstance(pid, int):
        return None
    try:
        return is_client(pid)
    except AIStackError:
        return None
