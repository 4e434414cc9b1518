"""A process that trains on a cluster of another process, for the test that kills it:
``python -m tests.compute.training.guest CONNECTION MAY_END``. Prints the pids of its
ranks.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

from tests.compute.training.owner import until_it_may_end


def main() -> None:
    from distributed import Client

    from jupyter_aistack import train

    address, security = pickle.loads(Path(sys.argv[1]).read_bytes())
    ranks: list[int] = []

    def tell(point: dict[str, Any]) -> None:
        ranks.append(int(point["metrics"]["pid"]))
        if len(ranks) == 2:
            print(json.dumps(ranks), flush=True)

    with Client(address, security=security) as client:
        may_end = Path(sys.argv[2])
        train(
            until_it_may_end,
            workers=client,
            on_metrics=tell,
            config={"may_end": may_end},
        )


if __name__ == "__main__":
    main()
