"""A short turn of ``python -m tests.stress``, and proof that its checker can find what
it looks for.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from jupyter_aistack.core.model.lease import Lease, LeaseTransition
from jupyter_aistack.core.model.request import Request
from jupyter_aistack.ledger.sql.ledger import SQLLedger
from tests.fakes.leases import grant, wish
from tests.paths import ROOT

__all__ = ["grant", "wish"]

Wish = Callable[..., Request]
Granter = Callable[..., Lease]


@pytest.fixture
def stress() -> ModuleType:
    """The module, wherever pytest was started from."""
    spec = importlib.util.spec_from_file_location(
        "aistack_stress", ROOT / "tests" / "stress.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def history(tmp_path: Path, wish: Wish, grant: Granter) -> SQLLedger:
    """A ledger with three leases of halves of one GPU: one given back, two live."""
    ledger = SQLLedger(f"sqlite:///{tmp_path}/ledger.sqlite")
    first = grant(ledger, wish("r-1"), 1.0)
    ledger.step(first.id, first.token, LeaseTransition.RELEASE, 2.0)
    ledger.step(first.id, first.token, LeaseTransition.FINISH, 2.0)
    grant(ledger, wish("r-2"), 3.0, ends_at=63.0)
    grant(ledger, wish("r-3"), 4.0, ends_at=64.0)
    return ledger


def test_processes_that_are_killed_at_random_break_nothing() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.stress",
        "--operations",
        "1000",
        "--processes",
        "4",
        "--json",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (
        figures["double_grants"],
        figures["alive_after_ttl"],
        figures["problems"],
    ) == (0, 0, [])
    assert figures["operations"] >= 1000
    assert figures["kills"] > 0
    assert figures["events"]["LeaseGranted"] > 20


def on_gpu_0(ledger: SQLLedger) -> dict[str, Lease]:
    """The leases, as if their slices were of the stress test's first GPU."""
    leases = ledger.leases(5.0, live=False)
    return {
        lease.id: replace(lease, slices=(replace(lease.slices[0], device_id="GPU-0"),))
        for lease in leases
    }


def test_the_checker_accepts_a_clean_history(
    stress: ModuleType, history: SQLLedger
) -> None:
    assert stress.replay(history.events(), on_gpu_0(history)) == 0
    assert stress.check(history, 100.0) == stress.Findings()


def test_the_checker_finds_a_double_grant(
    stress: ModuleType, history: SQLLedger
) -> None:
    never_given_back = [
        event for event in history.events() if event.kind.value != "LeaseReleased"
    ]
    assert stress.replay(never_given_back, on_gpu_0(history)) == 1


def test_the_checker_finds_a_lease_that_outlived_its_time(
    stress: ModuleType, history: SQLLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jupyter_aistack.ledger.transactions.expire_due",
        lambda rows, now, half_life: [],
    )
    assert stress.check(history, 100.0).alive_after_ttl == 2


def test_the_checker_finds_use_that_was_charged_twice_or_never(
    stress: ModuleType, history: SQLLedger
) -> None:
    leases = {lease.id: lease for lease in history.leases(5.0, live=False)}
    (account,) = history.read("box", 5.0).accounts
    assert stress.miscounted([account], leases) == []
    twice = replace(account, decayed=2 * account.decayed)
    assert stress.miscounted([twice], leases) == [
        "the account of ann in default is not what their leases used"
    ]
    assert stress.miscounted([], leases) == [
        "accounts without an ended lease, or the other way round"
    ]


def test_the_checker_finds_events_that_are_missing(
    stress: ModuleType, history: SQLLedger
) -> None:
    leases = {lease.id: lease for lease in history.leases(5.0, live=False)}
    assert stress.incoherent(history.events(after=2), leases) == [
        "leases without a grant, or granted twice"
    ]
    assert stress.incoherent(history.events(limit=2), leases)
