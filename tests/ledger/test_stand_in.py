"""Who has nowhere to write a ledger gets one in memory, in one process at a time."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.ledger.opening import open_own_ledger
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from tests.fakes.storage.host import environment_without

pytestmark = pytest.mark.service

KEEPER = """
import json, sys
from jupyter_aistack.config import load_settings
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.stand_in import StandInLedger
try:
    broker = load_settings().build_broker()
    again = load_settings().build_broker()
    broker.leases()
    told = {
        "is_in_memory": isinstance(broker.ledger, StandInLedger),
        "is_same": broker.ledger is again.ledger,
        "problems": broker.ledger.problems(),
    }
except LedgerUnavailable as error:
    told = {"message": error.message, "problem": error.facts["problem"]}
print(json.dumps(told), flush=True)
sys.stdin.read()
"""


class Keeper:
    """A process that keeps a broker of its own until it is ended."""

    def __init__(self, data: Path, **environment: str) -> None:
        variables = {**os.environ, "JUPYTER_DATA_DIR": str(data), **environment}
        variables["AISTACK_PROVIDERS"] = "simulated:1xL4-24GB"
        del variables["AISTACK_LEDGER"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", KEEPER],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.end()
        self.told: dict[str, Any] = json.loads(line)

    def end(self) -> str:
        """What it has logged."""
        _, logged = self._process.communicate(timeout=30)
        return logged


def test_leases_are_kept_in_memory_where_nothing_can_be_locked(tmp_path: Path) -> None:
    lacking = environment_without(tmp_path, lock=errno.ENOLCK)
    first = Keeper(tmp_path / "data", **lacking)
    second = Keeper(tmp_path / "data", **lacking)
    able = Keeper(tmp_path / "data")
    logged = first.end()
    assert first.told["is_in_memory"]
    assert first.told["is_same"], "one process has one such ledger"
    assert "has no file locks" in first.told["problems"][0]
    assert "kept in the memory of this process" in logged
    for other in (second, able):
        assert "another process of this user keeps its leases" in other.told["message"]
        other.end()

    later = Keeper(tmp_path / "data")
    later.end()
    assert (later.told["is_in_memory"], later.told["problems"]) == (False, [])


def test_a_ledger_that_is_begun_is_not_stood_in_for(tmp_path: Path) -> None:
    Keeper(tmp_path / "data").end()
    lacking = environment_without(tmp_path, lock=errno.ENOLCK)
    failing = Keeper(tmp_path / "data", **lacking)
    failing.end()
    assert failing.told["problem"] == "no-locks"


def test_where_it_can_be_written_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "new"))
    ledger = open_own_ledger()
    assert isinstance(ledger, SQLLedger)
    assert list(tmp_path.iterdir()) == [], "opening touches nothing"
    ledger.close()
