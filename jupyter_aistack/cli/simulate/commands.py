"""What the command line offers of this package; the modules behind it are opened when
they are asked for.
"""

from __future__ import annotations

from .place import add_place_parser
from .session_options import add_sessions_parser

__all__ = ["add_place_parser", "add_sessions_parser"]
