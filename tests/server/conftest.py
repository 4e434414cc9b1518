"""A server on simulated GPUs; see `tests.fakes.rest_server`."""

from __future__ import annotations

from tests.fakes.rest_server import (
    ask,
    jp_server_config,
    providers,
    server,
    workbench,
)

__all__ = ["ask", "jp_server_config", "providers", "server", "workbench"]
