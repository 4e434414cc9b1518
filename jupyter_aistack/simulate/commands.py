"""What the command line offers of this package; the modules behind it are opened when they are asked for."""

from __future__ import annotations

from .session_options import add_sessions_parser

__all__ = ["add_sessions_parser"]
