"""A Jupyter server with the extension on simulated GPUs, started as a real one is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError
from traitlets.config import Config

from jupyter_aistack.server.app import ServerContext

Answer = tuple[int, Any]
Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
def providers() -> str:
    """What the server's host has."""
    return "simulated:1xH100-80GB"


@pytest.fixture
def jp_server_config(providers: str) -> Config:
    return Config(
        {
            "ServerApp": {
                "jpserver_extensions": {
                    "jupyter_aistack": True,
                    "jupyter_server_terminals": False,
                },
                "allow_unauthenticated_access": False,
            },
            "AIStack": {"providers": providers, "cycle_seconds": 0.1},
        }
    )


@pytest.fixture
def server(
    jp_serverapp: Any, jp_asyncio_loop: asyncio.AbstractEventLoop
) -> Iterator[Any]:
    """The server with its start hooks run, which pytest-jupyter leaves out."""
    manager = jp_serverapp.extension_manager
    jp_asyncio_loop.run_until_complete(manager.start_all_extensions())
    yield jp_serverapp
    jp_asyncio_loop.run_until_complete(manager.stop_all_extensions())
    jp_serverapp.web_app.settings["aistack"].close()


@pytest.fixture
def context(server: Any) -> ServerContext:
    result = server.web_app.settings["aistack"]
    assert isinstance(result, ServerContext)
    return result


@pytest.fixture
def ask(server: Any, jp_fetch: Any) -> Ask:
    """Calls a REST verb and returns status and JSON, errors included: ``await
    ask("GET", "host")``.
    """

    async def call(method: str, path: str, body: Any = None, **options: Any) -> Answer:
        raw = (
            body if isinstance(body, (str, bytes)) or body is None else json.dumps(body)
        )
        options.setdefault("allow_nonstandard_methods", True)
        try:
            response = await jp_fetch(
                "aistack",
                "api",
                "v1",
                *path.split("/"),
                method=method,
                body=raw,
                **options,
            )
        except HTTPClientError as error:
            response = error.response  # None only when nobody answered
        return response.code, json.loads(response.body)

    return call
