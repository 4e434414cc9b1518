"""A host broker of its own, in a folder whose path is short and open to other users."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.host_broker import LiveBroker, live_broker
from tests.fakes.hub_api import Answering, hub_api
from tests.fakes.other_users import open_folder

needs_root = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become several users"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    with open_folder() as path:
        yield path


@pytest.fixture
def host(folder: Path) -> Iterator[LiveBroker]:
    """A host broker that answers."""
    with live_broker(folder) as broker:
        yield broker


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Starts servers in place of a hub's API."""
    with ExitStack() as servers:
        yield lambda answer: servers.enter_context(hub_api(answer))
