"""A run as people see it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from jupyter_aistack.client.display import Panel
from jupyter_aistack.core.model.units import format_duration

from .store import without_secrets

if TYPE_CHECKING:
    from .run import Run


def run_panel(run: Run, age: float | None) -> Panel:
    """The panel of a run that began `age` seconds ago; None before it has begun."""
    rows = [
        ("run", run.run_id),
        ("status", run.status),
        ("metrics stored", run.metrics_logged),
        ("age", "not begun" if age is None else format_duration(age)),
    ]
    uri = without_secrets(run.tracking_uri)
    command = f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri else ""
    viewer = run.url or command
    return Panel(
        title=f"Experiment {run.experiment}",
        rows=rows,
        remark=f"look at it: {viewer}" if viewer else "",
    )
