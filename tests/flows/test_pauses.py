"""Processes that are stopped for longer than a lease lives without renewal, and
processes that are gone: real ones, on both kinds of ledger.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupyter_aistack.broker.broker import Broker
from jupyter_aistack.core.model.lease import Outcome
from jupyter_aistack.core.model.request import Holder, HolderKind, RequestState
from jupyter_aistack.exceptions import AcquireTimeout
from jupyter_aistack.ledger.opening import open_ledger
from jupyter_aistack.providers.registry import build_providers
from jupyter_aistack.system.users import current_user
from tests.fakes.waiting import wait_until
from tests.ledger.conftest import postgres_server, postgres_url, url

__all__ = ["postgres_server", "postgres_url", "url"]

DEVICES = "simulated:1xH100-80GB"
TTL_SECONDS = 1.0
HOLD = """
import jupyter_aistack as aistack
lease = aistack.request("1", attach=False)
print(lease.id, flush=True)
for line in open(0):
    print(lease.refresh().state, flush=True)
"""
Script = subprocess.Popen[str]
Start = Callable[[str], Script]


@pytest.fixture
def environment(url: str, tmp_path: Path) -> dict[str, str]:
    """Of processes that share a ledger on which leases are short."""
    settings = {"AIStack": {"lease_ttl_seconds": TTL_SECONDS}}
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "jupyter_aistack_config.json").write_text(json.dumps(settings))
    return {
        **os.environ,
        "AISTACK_LEDGER": url,
        "AISTACK_PROVIDERS": DEVICES,
        "JUPYTER_CONFIG_DIR": str(folder),
    }


@pytest.fixture
def broker(url: str) -> Iterator[Broker]:
    """A process that comes by."""
    broker = Broker(open_ledger(url), build_providers(DEVICES), ttl_seconds=TTL_SECONDS)
    yield broker
    broker.close()


@contextmanager
def script(code: str, environment: dict[str, str]) -> Iterator[Script]:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def answer(process: Script, line: str = "") -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


def me(broker: Broker) -> Holder:
    pid = os.getpid()
    return Holder(
        kind=HolderKind.PROCESS,
        id=f"pid-{pid}",
        user=current_user(),
        host=broker.host,
        pid=pid,
    )


def test_a_stopped_process_keeps_its_lease_and_a_killed_one_does_not(
    environment: dict[str, str], broker: Broker
) -> None:
    with script(HOLD, environment) as process:
        lease_id = answer(process)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: time.time() > broker.lease(lease_id).expires_at + 0.2)
        broker.cycle()
        with pytest.raises(AcquireTimeout):
            broker.submit("1/2", me(broker), patience_seconds=0)
        assert broker.lease(lease_id).is_live
        waiting = broker.submit("1/2", me(broker))
        process.send_signal(signal.SIGCONT)
        assert answer(process, "how is it?") in ("granted", "active")

        process.send_signal(signal.SIGSTOP)
        process.kill()
        process.wait()
        broker.cycle()
        assert broker.lease(lease_id).outcome is Outcome.ABANDONED
        assert broker.request(waiting.id).state is RequestState.GRANTED


def shown(environment: dict[str, str]) -> list[str]:
    """Ids of the leases that ``jupyter aistack status`` shows, without a server."""
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_aistack.cli", "status", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [lease["id"] for lease in json.loads(done.stdout)["leases"]]


def test_status_without_a_server_shows_the_living_and_none_of_the_dead(
    environment: dict[str, str], broker: Broker
) -> None:
    quarter = HOLD.replace('"1"', '"1/4"')
    with (
        script(quarter, environment) as living,
        script(quarter, environment) as killed,
        script(quarter, environment) as ended,
    ):
        kept, lost, left = answer(living), answer(killed), answer(ended)
        assert set(shown(environment)) == {kept, lost, left}
        killed.kill()
        killed.wait()
        assert ended.stdin is not None
        ended.stdin.close()  # its input ends, and so does it
        ended.wait()
        assert shown(environment) == [kept]
        assert not broker.lease(lost).is_live
        assert not broker.lease(left).is_live
