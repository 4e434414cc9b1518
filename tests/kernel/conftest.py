"""Kernels on a real server; see `tests.fakes.kernel_server`."""

from __future__ import annotations

from tests.fakes.kernel_server import (
    broker,
    jp_server_config,
    kernels,
    kernelspec,
    no_linger,
    server,
)

__all__ = [
    "broker",
    "jp_server_config",
    "kernels",
    "kernelspec",
    "no_linger",
    "server",
]
