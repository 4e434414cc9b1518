"""Findings as lines of JSON, and what every probe asks the machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_aistack.core.model.units import GIB, MIB

KIB = 1 << 10
COLUMNS, VALUE_WIDTH = (10, 24), 100


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of what a probe found out.

    Attributes:
        probe: who.
        name: what it is of.
        values: the figures and words by their names, the unit in the name.
    """

    probe: str
    name: str
    values: Mapping[str, Any]

    def line(self) -> str:
        """As a line of JSON."""
        words = {"probe": self.probe, "finding": self.name, **self.values}
        return json.dumps(words, default=str)

    def row(self) -> str:
        """As a row of the table."""
        values = " ".join(
            f"{name}={short(value)}" for name, value in self.values.items()
        )
        probe, name = COLUMNS
        return (
            f"{self.probe:<{probe}} {self.name:<{name}} {values[:VALUE_WIDTH]}".rstrip()
        )


Findings = Iterator[Finding]
Probe = Callable[["Limits"], Findings]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a probe is run with.

    Attributes:
        seconds: what it may take.
        begin: when it began, on the monotonic clock.
    """

    seconds: float
    begin: float

    def affords(self, seconds: float) -> bool:
        """Whether something that takes so long can still be done."""
        return self.seconds - (time.monotonic() - self.begin) > seconds


def finding_of(line: str) -> Finding | None:
    """The finding on a line; None for something else that was printed."""
    try:
        words = json.loads(line)
        probe, name = words.pop("probe"), words.pop("finding")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return Finding(probe=probe, name=name, values=words)


def short(value: Any) -> str:
    """A value as it stands in a table."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def shell(command: str, seconds: float = 10.0, **environment: str) -> str:
    """What a line of shell prints; a word about it where it takes too long."""
    try:
        done = subprocess.run(
            command,
            shell=True,
            text=True,
            timeout=seconds,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end within {seconds:g} s"
    return done.stdout.strip()


def host_memory_gib() -> dict[str, float]:
    """What the kernel says of the host's memory."""
    text = Path("/proc/meminfo").read_text()
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
    names = ("MemTotal", "MemAvailable")
    return {name: round(int(kib[name]) * KIB / GIB, 1) for name in names if name in kib}


def resident_gib(pid: int) -> float | None:
    """Host memory of a process; None once it is gone."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+)", text)
        return None if match is None else round(int(match[1]) * KIB / GIB, 2)
    return None


def mib(size: int | None) -> int | None:
    """Bytes as mebibytes."""
    return None if size is None else size // MIB


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call answers, and its seconds."""
    begin = time.perf_counter()
    answer = call()
    return answer, round(time.perf_counter() - begin, 3)
