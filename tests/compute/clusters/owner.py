"""A process that owns a cluster, for the test that kills it. Prints who is who, then
waits for its end.
"""

from __future__ import annotations

import json
import os
import signal


def main() -> None:
    from jupyter_aistack import Cluster

    cluster = Cluster(1, "cpu:1/4", timeout=60)
    # A process forked here, as multiprocessing does in notebooks, holds the pipe on
    # which Dask's workers watch us.
    forked = os.fork()
    if forked == 0:
        signal.pause()
    workers = [worker.pid for worker in cluster.workers.values()]
    print(json.dumps({"workers": workers, "forked": forked}), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
