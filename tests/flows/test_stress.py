"""Short turns of both parts of ``python -m tests.stress``."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.ledger.conftest import postgres_server, postgres_url, url
from tests.paths import ROOT
from tests.stress.hosts import why_no_hosts

__all__ = ["postgres_server", "postgres_url", "url"]


def run(
    *options: str, processes: int = 4, is_sabotaged: bool = False
) -> dict[str, Any]:
    """The figures of a run that finds nothing, or something where it is sabotaged."""
    size = ("--processes", str(processes), "--json")
    command = [sys.executable, "-m", "tests.stress", *size]
    done = subprocess.run(
        [*command, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == is_sabotaged, done.stdout + done.stderr
    (figures,) = json.loads(done.stdout.splitlines()[-1]).values()
    assert isinstance(figures, dict)
    return figures


def test_processes_that_are_killed_at_random_break_nothing() -> None:
    figures = run("--part", "deaths", "--operations", "250")
    none = (figures["double_grants"], figures["alive_after_ttl"], figures["problems"])
    assert none == (0, 0, [])
    assert figures["operations"] >= 250
    assert figures["kills"] > 0
    assert figures["events"]["LeaseGranted"] > 10


def test_the_living_keep_and_the_dead_lose_their_leases_whatever_happens(
    url: str,
) -> None:
    ledger = "sqlite" if url.startswith("sqlite") else "postgresql"
    options = ("--part", "chaos", "--ledger", ledger, "--url", url)
    figures = run(*options, "--operations", "60")
    assert figures["details"] == {}
    none = ("double_grants", "lost_by_living", "held_by_dead")
    assert [figures[name] for name in none] == [0, 0, 0]
    assert figures["problems"] == []
    assert figures["operations"] >= 60
    assert figures["events"]["LeaseGranted"] > 3


@pytest.mark.parametrize(
    ("sabotage", "violation"),
    [
        ("grant-twice", "double_grants"),
        ("free-the-living", "lost_by_living"),
        ("keep-the-dead", "held_by_dead"),
    ],
)
def test_brokers_that_break_a_rule_are_found_out(sabotage: str, violation: str) -> None:
    options = ("--part", "chaos", "--ledger", "sqlite", "--operations", "150")
    figures = run(*options, "--sabotage", sabotage, is_sabotaged=True)
    assert figures[violation] > 0


@pytest.mark.postgres
@pytest.mark.skipif(bool(why_no_hosts()), reason="no machine of its own can be made")
def test_two_hosts_on_one_server_lose_nothing_whoever_of_them_is_killed() -> None:
    figures = run("--part", "hosts", "--operations", "60", processes=8)
    nothing = ("double_grants", "above_limit", "lost", "problems")
    assert [figures[name] for name in nothing] == [0, 0, [], []]
    assert figures["operations"] >= 60
    assert figures["accidents"].keys() >= {"client", "broker", "server"}
    assert figures["leases_by_host"].keys() == {"near", "far"}
