"""PostgreSQL servers for tests: started here, ended here, and stopped, killed and started
again by tests of what becomes of a ledger then.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.system.processes import is_alive
from tests.fakes.waiting import wait_until

SERVER_OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=32MB"

DATABASE = "postgres"
OWNER = "aistack"


def _binaries() -> Path | None:
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    result = packaged[-1] if packaged else shutil.which("initdb")
    return Path(result).parent if result else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """A server of its own on a port of this host; everybody may log in without password.

    Args:
        binaries: where its programs are.
        folder: where it keeps everything.

    Attributes:
        port: where it listens.
        url: of its database, for the role that owns everything.
    """

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._data = folder / "data"
        self._account: dict[str, Any] = {}
        self.port = _free_port()
        self.url = self.url_of(OWNER)
        if os.geteuid() == 0:  # the server refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._account = {"user": user.pw_uid, "group": user.pw_gid}
            self._account["extra_groups"] = []

    def url_of(self, role: str, options: str = "") -> str:
        """The URL for a role."""
        place = f"127.0.0.1:{self.port}/{DATABASE}"
        return f"postgresql+psycopg://{role}@{place}{options}"

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        # Not captured through a pipe: the server would inherit it and keep it open.
        with open(self._folder.with_suffix(".log"), "ab") as log:
            subprocess.run(
                [str(self._binaries / program), "-D", str(self._data), *arguments],
                check=check,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                timeout=60,
                **self._account,
            )

    def create(self) -> None:
        """Make an empty database."""
        login = ("-U", OWNER, "-A", "trust")
        self._run("initdb", *login, "--no-sync", "-E", "UTF8", "--locale=C")

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        address = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self._folder}"
        options = f"{address} {SERVER_OPTIONS}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-w", "-l", log, "-o", options, "start")

    def require_password(self, role: str) -> None:
        """Let a role log in with its password only."""
        rules = self._data / "pg_hba.conf"
        rule = f"host all {role} 127.0.0.1/32 scram-sha-256\n"
        rules.write_text(rule + rules.read_text())
        self._run("pg_ctl", "reload")

    def pids(self) -> list[int]:
        """The server's processes, the first first."""
        first = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the server."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End all of it as a crash of its machine would."""
        # One that goes on would start a process more that is not seen, and outlives it.
        os.kill(self.pids()[0], signal.SIGSTOP)
        pids = self.pids()
        self.signal(signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid, None) for pid in pids))
        # They name a pid that nobody may have reaped, and that so seems to live.
        (self._data / "postmaster.pid").unlink()
        for lock in self._folder.glob(".s.PGSQL.*"):
            lock.unlink()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Nothing of the server runs inside; its connections stay open."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the server at once, if it runs."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-m", "immediate", "-w", "stop", check=False)

    def remove(self) -> None:
        """Leave nothing behind."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.with_suffix(".log").unlink(missing_ok=True)


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A server that ends with the block; the test is skipped where there is none."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip(
            "no PostgreSQL server on this machine; install Debian's package postgresql to run this test"
        )
    server = PostgresServer(binaries, Path(tempfile.mkdtemp(prefix="aistack-pg-")))
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.remove()
