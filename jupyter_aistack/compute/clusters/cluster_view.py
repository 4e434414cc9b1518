"""How a cluster shows itself: progress of a start, text and HTML."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from html import escape

from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.core.model.units import format_bytes
from jupyter_aistack.system.standard_streams import tell

from .worker import LeasedWorker

QUIET_SECONDS = 2.0
"""A start that takes no longer shows no progress."""

COLUMNS = ("worker", "state", "lease", "slice", "device", "memory", "enforced by")
_ENDED = ("failed", "closed")
_NO_DASHBOARD = "no dashboard: install bokeh to see one"


class StartProgress:
    """Tells how far a start is, once it takes long, and only when that changed.

    Args:
        show: takes one line; prints it to standard error by default.
    """

    def __init__(self, show: Callable[[str], None] | None) -> None:
        self._show = show or tell
        self._began = time.monotonic()
        self._shown = ""

    def restart(self) -> None:
        """A start begins."""
        self._began = time.monotonic()
        self._shown = ""

    def update(self, workers: Iterable[LeasedWorker], wanted: int) -> None:
        """Show how many of the wanted workers are ready, and what another worker waits
        for.
        """
        if time.monotonic() - self._began < QUIET_SECONDS:
            return
        stages = {str(worker.name): worker.stage for worker in workers}
        ready = sum(stage == "ready" for stage in stages.values())
        pending = [
            f"worker {name} {stage}"
            for name, stage in sorted(stages.items())
            if stage not in ("ready", *_ENDED)
        ]
        line = "; ".join([f"{ready} of {wanted} workers ready", *pending[:1]])
        # A start that was quick to its end says nothing at all.
        is_slow = bool(pending or self._shown)
        if is_slow and line != self._shown:
            self._shown = line
            self._show(line)


def rows(workers: Iterable[LeasedWorker]) -> list[tuple[str, ...]]:
    """The workers that have not ended, by name, as the cells of `COLUMNS`."""
    shown = {
        str(worker.name): worker for worker in workers if worker.stage not in _ENDED
    }
    return [_row(shown[name]) for name in sorted(shown)]


def _row(worker: LeasedWorker) -> tuple[str, ...]:
    name = str(worker.name)
    lease = worker.lease
    if lease is None or not lease.is_granted:
        return (name, worker.stage, "", worker.plan.leases.spec, "", "", "")
    enforced_by = lease.enforcement
    if lease.verified is False:
        enforced_by += f" ({conditions_text(lease.conditions)})"
    return (
        name,
        worker.stage,
        lease.id,
        lease.spec,
        ", ".join(slice_.device_id for slice_ in lease.slices),
        format_bytes(lease.memory_bytes),
        enforced_by,
    )


def as_text(
    headline: str, table: Sequence[Sequence[str]], problem: str, dashboard_link: str
) -> str:
    """A cluster as lines of text."""
    lines = ["  " + "  ".join(row) for row in table]
    footer = problem or dashboard_link or _NO_DASHBOARD
    return "\n".join([headline, *lines, f"  {footer}"])


def as_html(
    headline: str, table: Sequence[Sequence[str]], problem: str, dashboard_link: str
) -> str:
    """A cluster as HTML, with `table` under `COLUMNS`."""
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    body = "".join(f"<tr>{_html_cells(row)}</tr>" for row in table)
    end = escape(_NO_DASHBOARD)
    if dashboard_link:
        end = f'<a href="{escape(dashboard_link)}" target="_blank">dashboard</a>'
    return (
        f"<strong>{escape(headline)}</strong>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{escape(problem)} {end}</p>"
    )


def _html_cells(row: Sequence[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in row)
