"""Two containers of one machine, on one ledger: one device, one lease, whoever is stopped
or killed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.fakes.namespaces import Container, container, first_child, needs_namespaces
from tests.fakes.waiting import wait_until
from tests.ledger.conftest import (  # noqa: F401 - fixtures
    postgres_server,
    postgres_url,
    url,
)

TTL = 2.0
pytestmark = needs_namespaces


def opening(ledger_url: str) -> tuple[str, ...]:
    """Statements that make a broker on a ledger, and a holder."""
    return (
        "import os",
        "from jupyter_aistack.broker.broker import Broker",
        "from jupyter_aistack.core.model.request import Holder, HolderKind",
        "from jupyter_aistack.ledger.sql.ledger import SQLLedger",
        "from jupyter_aistack.providers.simulated import SimulatedProvider",
        "gpu = SimulatedProvider('1xH100-80GB')",
        f"broker = Broker(SQLLedger({ledger_url!r}), [gpu], ttl_seconds={TTL})",
        "me = Holder(kind=HolderKind.PROCESS, id='pid-1', user='ann',"
        " host=broker.host, pid=os.getpid())",
        "ask = lambda spec: broker.submit(spec, me).state.value",
        "held = lambda: [(lease.holder.shown_host, str(lease.spec))"
        " for lease in broker.leases()]",
        "turn = lambda: broker.maintain() and None",
    )


@pytest.fixture
def pair(url: str) -> Iterator[tuple[Container, Container]]:  # noqa: F811
    """Two containers, with a broker each on one ledger."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(container(*opening(url), hostname=name))
            for name in ("lab-7f3a", "lab-91cc")
        )
        yield first, second


def is_granted_after_turn(waiting: Container) -> bool:
    waiting.ask("turn()")
    return ["lab-91cc", "1"] in waiting.ask("held()")


def test_the_second_waits_until_the_first_is_done(
    pair: tuple[Container, Container],
) -> None:
    first, second = pair
    assert first.ask("ask('1')") == "granted"
    assert second.ask("ask('1')") == "queued"
    assert second.ask("held()") == [["lab-7f3a", "1"]]
    release = (
        "[broker.release(lease.id, lease.token) and 0 for lease in broker.leases()]"
    )
    first.ask(release)
    assert is_granted_after_turn(second)


def test_a_stopped_container_keeps_what_it_has_and_a_killed_one_does_not(
    pair: tuple[Container, Container],
) -> None:
    first, second = pair
    assert first.ask("ask('1')") == "granted"
    expires = "max(lease.expires_at for lease in broker.leases())"
    granted_until = second.ask(expires)
    pid = first_child(first.process.pid)
    os.kill(pid, signal.SIGSTOP)
    assert second.ask("ask('1')") == "queued"
    # For longer than its TTL: its lease has been renewed for it.
    wait_until(
        lambda: second.ask("turn()") or second.ask(expires) > granted_until + TTL
    )
    assert second.ask("held()") == [["lab-7f3a", "1"]]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_granted_after_turn(second))
