"""Ledgers of every kind for the tests, PostgreSQL's server included."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jupyter_aistack.ledger.base import Ledger
from jupyter_aistack.ledger.memory import MemoryLedger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from tests.fakes.leases import grant, wish

SERVER_OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=32MB"

_schemas = itertools.count(1)


def _postgres_binaries() -> Path | None:
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    result = packaged[-1] if packaged else shutil.which("initdb")
    return Path(result).parent if result else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server that was started for this session and ends with it."""
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip(
            "no PostgreSQL server on this machine; install Debian's package postgresql to run this test"
        )
    folder, port = Path(tempfile.mkdtemp(prefix="aistack-pg-")), _free_port()
    account: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def run(*command: str) -> None:
        # Not captured through a pipe: the server would inherit it and keep it open.
        with open(folder.with_suffix(".log"), "ab") as log:
            subprocess.run(
                command,
                check=True,
                cwd=folder,
                stdout=log,
                stderr=log,
                timeout=60,
                **account,
            )

    data, options = (
        str(folder / "data"),
        f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} {SERVER_OPTIONS}",
    )
    try:
        initdb = str(binaries / "initdb")
        run(
            initdb,
            "-D",
            data,
            "-U",
            "aistack",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        )
        run(
            str(binaries / "pg_ctl"),
            "-D",
            data,
            "-w",
            "-l",
            str(folder / "log"),
            "-o",
            options,
            "start",
        )
        yield f"postgresql+psycopg://aistack@127.0.0.1:{port}/postgres"
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            run(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """URL of an empty ledger on the server: a schema of its own."""
    name = f"t{next(_schemas)}"
    engine = sa.create_engine(postgres_server)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    engine.dispose()
    return f"{postgres_server}?options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a ledger that several processes can share, not yet created."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger of each kind."""
    build: dict[str, Callable[[], Ledger]] = {
        "memory": MemoryLedger,
        "sqlite": lambda: SQLLedger(f"sqlite:///{tmp_path}/ledger.sqlite"),
        "postgres": lambda: SQLLedger(request.getfixturevalue("postgres_url")),
    }
    built = build[request.param]()
    yield built
    built.close()


__all__ = ["grant", "wish"]
