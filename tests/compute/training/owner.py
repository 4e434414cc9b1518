"""A process that trains without end, for the test that kills it. Prints the processes
that must end with it.
"""

from __future__ import annotations

import json
import os
from typing import Any

import psutil


def forever(ctx: Any) -> None:
    ctx.log(pid=os.getpid(), every_rank=True)
    while True:
        ctx.mean(1.0)


def main() -> None:
    from jupyter_aistack import Cluster, train

    ranks: list[int] = []

    def tell(point: dict[str, Any]) -> None:
        ranks.append(int(point["metrics"]["pid"]))
        if len(ranks) == 2:
            servers = [psutil.Process(rank).ppid() for rank in ranks]
            workers = [psutil.Process(server).ppid() for server in servers]
            print(json.dumps(ranks + servers + workers), flush=True)

    train(forever, workers=Cluster(2, "cpu:1/4"), on_metrics=tell)


if __name__ == "__main__":
    main()
