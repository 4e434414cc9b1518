"""A run as people see it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from jupyter_aistack.client.display import Panel

from .store import without_secrets


def run_panel(
    experiment: str, rows: Sequence[tuple[str, object]], *, uri: str, url: str | None
) -> Panel:
    """The panel of a run.

    Args:
        experiment: name of its experiment.
        rows: its figures.
        uri: where it is stored; empty before it has begun.
        url: a page that shows it; None where no server does.
    """
    shown = shlex.quote(without_secrets(uri))
    viewer = url or (f"mlflow ui --backend-store-uri {shown}" if uri else "")
    return Panel(
        title=f"Experiment {experiment}",
        rows=list(rows),
        remark=f"look at it: {viewer}" if viewer else "",
    )
