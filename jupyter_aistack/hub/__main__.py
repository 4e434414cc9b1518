"""``python -m jupyter_aistack.hub``: the service of a hub, as the hub starts it."""

from __future__ import annotations

import asyncio
import os
import sys

from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.broker_path import DEFAULT_PATH, broker_path

from .app import serve


def main() -> int:
    """Serve until ended; an exit status."""
    try:
        asyncio.run(serve(os.environ, broker_path() or DEFAULT_PATH))
    except KeyboardInterrupt:
        return 130
    except AIStackError as error:
        print(f"jupyter_aistack.hub: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
