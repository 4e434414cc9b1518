"""A process that trains, for the tests that kill or stop it: ``owner.py MAY_END``
trains until there is a file of that name. Prints the processes that must end with it,
then how its run went.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

STALL_SECONDS = 1.5


def until_it_may_end(ctx: Any) -> None:
    """Trains beside two processes of its own, one of them in a session of its own."""
    helper = subprocess.Popen(["sleep", "600"])
    daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
    ctx.log(pid=os.getpid(), helper=helper.pid, daemon=daemon.pid, every_rank=True)
    while ctx.mean(float(ctx.config["may_end"].exists())) < 1.0:
        pass


def main() -> None:
    from jupyter_aistack import Cluster, train

    processes: list[int] = []

    def tell(point: dict[str, Any]) -> None:
        pids = point["metrics"]
        server = psutil.Process(int(pids["pid"])).ppid()
        worker = psutil.Process(server).ppid()
        processes.extend([*map(int, pids.values()), server, worker])
        if len(processes) == 10:
            print(json.dumps(processes), flush=True)

    result = train(
        until_it_may_end,
        workers=Cluster(2, "cpu:1/4"),
        on_metrics=tell,
        stall_timeout=STALL_SECONDS,
        config={"may_end": Path(sys.argv[1])},
    )
    print(json.dumps({"restarts": result.restarts}), flush=True)


if __name__ == "__main__":
    main()
