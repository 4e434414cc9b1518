"""``track()``: where a run begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .run import Run
from .values import checked_experiment


def track(
    experiment: str,
    *,
    run_name: str | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
) -> Run:
    """A run of `experiment`, to be used with ``with``.

    It is stored in MLflow, by default in an SQLite file, so no server is needed. What
    is logged goes to a queue in memory and is written by a thread, so a training loop
    never waits for the store. Entering the ``with`` does, for seconds at most where a
    server does not answer, and says what for after two; leaving it waits as long as the
    store takes what is queued. In an event loop use ``async with``: there the loop goes
    on while it waits.

    Inside the ``with`` it is MLflow's active run: ``mlflow.autolog`` and calls such as
    ``mlflow.log_metric`` add to it.

    Args:
        experiment: name of the experiment; made when there is none.
        run_name: name of the run; MLflow invents one otherwise.
        tags, params: what to note at the start.
        tracking_uri: where to store it; see
            :func:`~jupyter_aistack.tracking.active_run.default_uri` for the default.

    Raises (on entering the ``with``):
        InvalidRequest: a name cannot be used.
        TrackingError: the store cannot be opened, or its server does not answer.

    Raises (on leaving it):
        TrackingError: how much could not be stored, and why.
    """
    return Run(
        checked_experiment(experiment),
        run_name=run_name,
        tags=tags or {},
        params=params or {},
        tracking_uri=tracking_uri,
    )
