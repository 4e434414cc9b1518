"""A daemon of MPS of one's own, asked in its own words."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu.probes.children import Child
from tests.benchmarks.gpu.probes.reporting import shell

CONTROL = "nvidia-cuda-mps-control"
CHATTER = re.compile(r"Accepting|NEW UI|UI closed|Cmd:")
"""Lines of its log that our own questions leave."""


class Daemon:
    """A control daemon for one GPU, as the package runs one."""

    def __init__(self, uuid: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mps", dir="/tmp"))
        pipes, logs = self.folder / "p", self.folder / "log"
        for folder in (pipes, logs):
            folder.mkdir()
        self.environment = {
            "CUDA_VISIBLE_DEVICES": uuid,
            "CUDA_MPS_PIPE_DIRECTORY": str(pipes),
            "CUDA_MPS_LOG_DIRECTORY": str(logs),
        }
        begin = time.perf_counter()
        words = shell(f"{CONTROL} -d", 20.0, **self.environment)
        self.started: dict[str, Any] = {
            "words": words,
            "s": time.perf_counter() - begin,
            "pipes": sorted(path.name for path in pipes.iterdir()),
        }
        self.pid = int((pipes / f"{CONTROL}.pid").read_text())

    def ask(self, *lines: str, seconds: float = 10.0) -> str:
        """Its answer to lines of its language."""
        words = "\\n".join(lines)
        command = f"printf '{words}\\n' | timeout {seconds:g} {CONTROL}"
        return shell(command, seconds + 2, **self.environment)

    def server(self) -> str:
        """The process of its server; empty without one."""
        return next(iter(self.ask("get_server_list").split()), "")

    def status(self, server: str) -> str:
        return self.ask(f"get_server_status {server}") if server else "none"

    def clients(self, server: str) -> list[str]:
        return self.ask(f"get_client_list {server}").split()

    def client(self, mode: str, *words: str, **environment: str) -> Child:
        """A process that is its client."""
        ours = {
            name: value
            for name, value in self.environment.items()
            if name != "CUDA_MPS_LOG_DIRECTORY"
        }
        return Child(mode, *words, environment={**ours, **environment})

    def log(self, name: str, lines: int = 14) -> list[str]:
        """The last lines of a log, without what our questions left."""
        with contextlib.suppress(OSError):
            text = (self.folder / "log" / f"{name}.log").read_text()
            told = [line for line in text.splitlines() if not CHATTER.search(line)]
            return told[-lines:]
        return []

    def log_bytes(self) -> int:
        return (self.folder / "log" / "control.log").stat().st_size

    def end(self) -> dict[str, Any]:
        """Quit, and end what is left by its pid; what was left."""
        servers = re.findall(r"^\d+$", self.ask("get_server_list"), re.MULTILINE)
        begin = time.perf_counter()
        words = self.ask("quit", seconds=8.0)
        seconds = time.perf_counter() - begin
        left = shell("ps ax -o pid,ppid,args | grep '[n]vidia-cuda-mps'")
        for pid in {self.pid, *map(int, servers)}:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return {"words": words, "s": seconds, "left": left}
