"""MLflow's own notion of the run that is active, while a run of ours is open: so that
``mlflow.autolog`` and calls such as ``mlflow.log_metric`` inside the ``with`` add to it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

from jupyter_aistack.system.sqlite_files import sqlite_url

_VARIABLE = "MLFLOW_TRACKING_URI"

_lock = threading.RLock()
_open: list[ActiveRun] = []
"""The runs that are active, the outermost first."""

_before: tuple[str | None, str | None] = (None, None)
"""What the user had set as MLflow's URI when the first of them began: in MLflow, and in
the environment.
"""


class ActiveRun:
    """Makes a run MLflow's active run, in the thread that begins it, and its store
    MLflow's store, in the process.

    Args:
        uri: where the run is.
        run: MLflow's run.
    """

    def __init__(self, uri: str, run: Any) -> None:
        self._uri = uri
        self._run = run
        self._stack: list[Any] = []
        self._entry: Any = None

    def begin(self) -> None:
        """Make it active, above a run that is active already."""
        global _before
        from mlflow.tracking import fluent

        self._entry = fluent.ActiveRun(self._run)
        self._stack = fluent._active_run_stack.get()
        self._stack.append(self._entry)
        with _lock:
            if not _open:
                _before = (_set_in_mlflow(), os.environ.get(_VARIABLE))
            _open.append(self)
            _use(self._uri)

    def end(self) -> None:
        """Leave MLflow as it was. Ending twice is allowed."""
        with contextlib.suppress(ValueError):  # mlflow.end_run() took it away
            self._stack.remove(self._entry)
        with _lock:
            if self not in _open:
                return
            _open.remove(self)
            # A store that was chosen meanwhile stays chosen.
            if _set_in_mlflow() != self._uri:
                return
            if _open:
                _use(_open[-1]._uri)
                return
            mlflow_uri, environment_uri = _before
            _use(mlflow_uri)
            if environment_uri is not None:
                os.environ[_VARIABLE] = environment_uri


def default_uri() -> str:
    """Where runs go by default: where MLflow is set to store them, else beside the
    notebook, else with the user's data.

    ``mlflow.set_tracking_uri`` and MLFLOW_TRACKING_URI go first; then an ``mlflow.db``
    in the working folder, which is where MLflow itself keeps its database; then
    ``aistack/mlflow.db`` in Jupyter's data directory.
    """
    with _lock:
        is_ours = any(run._uri == _set_in_mlflow() for run in _open)
        chosen = _before if is_ours else (_set_in_mlflow(), os.environ.get(_VARIABLE))
    configured = chosen[0] or chosen[1]
    if configured:
        return configured
    beside = _beside()
    if beside is not None:
        return sqlite_url(beside)
    from jupyter_core.paths import jupyter_data_dir

    return sqlite_url(Path(jupyter_data_dir()) / "aistack" / "mlflow.db")


def _beside() -> Path | None:
    try:
        path = Path("mlflow.db").resolve()
    except FileNotFoundError:
        return None  # the working folder has been deleted
    return path if path.exists() else None


def _set_in_mlflow() -> str | None:
    """What ``mlflow.set_tracking_uri`` was given; None where it was not called, or
    MLflow is not imported.
    """
    utils: Any = sys.modules.get("mlflow.tracking._tracking_service.utils")
    uri = getattr(utils, "_tracking_uri", None)
    return str(uri) if uri else None


def _use(uri: str | None) -> None:
    from mlflow.tracking import set_tracking_uri

    set_tracking_uri(uri)  # type: ignore[arg-type]  # None is what it begins with


def _renew_lock() -> None:
    """A lock that was held when the process forked would never be free in the child."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
