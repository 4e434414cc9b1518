"""A server on simulated GPUs; see `tests.fakes.rest_server`."""

from __future__ import annotations

from tests.fakes.rest_server import (
    ask,
    context,
    jp_server_config,
    providers,
    server,
)

__all__ = ["ask", "context", "jp_server_config", "providers", "server"]
