"""The root helper as a program: ``python -m jupyter_aistack.providers.nvidia.dmem``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from jupyter_aistack.providers.nvidia.nvml import NVML

from .client import SOCKET
from .groups import BASE, ROOT, Groups
from .helper import Helper
from .listener import Listener


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m jupyter_aistack.providers.nvidia.dmem",
        description="Lets users limit the device memory of their own leases' control groups. Run it as root.",
    )
    parser.add_argument(
        "--socket", type=Path, default=SOCKET, help="where it listens (%(default)s)"
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=ROOT,
        help="where control groups are mounted (%(default)s)",
    )
    parser.add_argument(
        "--base", default=BASE, help="name of its own group below that (%(default)s)"
    )
    parser.add_argument(
        "--reserve",
        type=int,
        choices=range(101),
        default=0,
        metavar="PERCENT",
        help="of each GPU's memory that one user's leases may keep from others, used or not (%(default)s)",
    )
    options = parser.parse_args(arguments)
    if not (options.root / "cgroup.controllers").exists():
        print(f"control groups v2 are not mounted at {options.root}", file=sys.stderr)
        return 2
    groups = Groups(options.root, options.base)
    helper = Helper(NVML(), groups, reserve_percent=options.reserve)
    with Listener(options.socket, helper) as listener:
        # From another thread: the loop that is to end waits for the handler that
        # tells it to.
        signal.signal(
            signal.SIGTERM,
            lambda *_: threading.Thread(target=listener.shutdown).start(),
        )
        listener.serve_forever()
    options.socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
