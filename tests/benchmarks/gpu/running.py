"""One section as a process of its own: its rows are told while it runs, and how it
ended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence

from tests.benchmarks.gpu.bench import Row
from tests.benchmarks.gpu.processes import run_marked


def run_section(
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str],
    show: Callable[[Row], None],
    *,
    latest: float = math.inf,
) -> list[Row]:
    """The rows of one section, each shown when it is there. However it ends, the last
    row says how if not well.

    Args:
        latest: when all must be over, its tidying too, on the monotonic clock.
    """
    result = list[Row]()

    def take(row: Row) -> None:
        result.append(row)
        show(row)

    def read(line: str) -> None:
        row = _row(line)
        if row is not None:
            take(row)

    ending = run_marked(command, seconds, environment, read, latest=latest)
    if ending.is_cut:
        says = f"cut after its {seconds:.0f} s; what is above was measured"
        take(Row(name="cut", says=says))
    elif ending.status != 0:
        says = f"failed: its process ended with {ending.status}"
        take(Row(name="failed", says=says))
    if ending.left:
        count, says = float(len(ending.left)), "; ".join(ending.left)
        take(Row(name="left_behind", value=count, says=says, most=0.0))
    return result


def _row(line: str) -> Row | None:
    """The row on a line; None for something else that a library printed."""
    try:
        return Row(**json.loads(line))
    except (ValueError, TypeError):
        return None
