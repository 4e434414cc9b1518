"""Opening a store: which, that it answers, and that its first opening is made by one
process at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

from jupyter_aistack.exceptions import TrackingError
from jupyter_aistack.system.sqlite_files import (
    create_private,
    is_shared_folder,
    sqlite_path,
)

from .bounds import Bounds, bounded, failure_of
from .progress import FIRST_SECONDS, tell
from .store import without_secrets

T = TypeVar("T")

KNOCK_SECONDS = 10.0
"""How long a server may take over its first answer."""

KNOCK_PAUSE_SECONDS = 0.5
LOCK_SECONDS = 120.0
"""How long another process may take over the tables of a new database."""

LOCK_PAUSE_SECONDS = 0.05
MAKING_PAUSES_SECONDS = (1.0, 2.0, 4.0)
"""Pauses after a new database could not be made, since another host may be making it."""

SQL = frozenset({"sqlite", "postgresql", "mysql", "mssql"})
OTHER_STORE = (
    "start it, or name another store in tracking_uri or in MLFLOW_TRACKING_URI"
)


def open_experiment(uri: str, name: str) -> tuple[Any, str]:
    """A client of the store at `uri`, and the id of an experiment in it, which is made
    when there is none.

    Raises:
        TrackingError: the store does not answer, or cannot be opened or written; in one
            sentence.
    """
    shown = without_secrets(uri)
    with one_sentence(f"the tracking store {shown} cannot be opened"):
        if uri.startswith(("http://", "https://")):
            client = _client(uri)
            _knock(uri, lambda: _repeated(lambda: client.get_experiment_by_name(name)))
        elif _dialect(uri) in SQL:
            client = open_database(uri)
        else:
            client = _client(uri)
    with one_sentence(f"no run can be started in {shown}"):
        return client, _experiment_id(client, uri, name)


@contextlib.contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Any error as a `TrackingError` that begins with `what`."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        raise TrackingError(f"{what}: {failure_of(error).why}") from error


def _client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def _dialect(uri: str) -> str:
    return uri.partition("://")[0].partition("+")[0]


# -- servers ---------------------------------------------------------------------------


def _knock(uri: str, ask: Callable[[], T]) -> T:
    """The answer of a server that is asked for the first time.

    Raises:
        TrackingError: it does not come in time, or is no good.
    """
    shown = without_secrets(uri)
    bounds = Bounds(connect_seconds=KNOCK_SECONDS, read_seconds=KNOCK_SECONDS)
    try:
        with bounded(bounds):
            return within(KNOCK_SECONDS, ask)
    except TimeoutError:
        why = f"it did not answer within {KNOCK_SECONDS:g} s"
    except TrackingError:
        raise
    except Exception as error:
        why = failure_of(error).why
    raise TrackingError(
        f"tracking_uri: no tracking store can be reached at {shown} ({why}); {OTHER_STORE}"
    )


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises in a thread of its own; looking up a name may take
    longer than any time-out.

    Raises:
        TimeoutError: it has not returned after `seconds`; it goes on unheard.
    """
    outcomes: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()

    def work() -> None:
        try:
            value = call()
        except BaseException as error:
            failure = error
            outcomes.put(lambda: _raise(failure))
        else:
            outcomes.put(lambda: value)

    thread = threading.Thread(
        target=copy_context().run, args=(work,), name="aistack-knock", daemon=True
    )
    thread.start()
    try:
        outcome = outcomes.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    return outcome()


def _raise(error: BaseException) -> Any:
    raise error


def _repeated(ask: Callable[[], T]) -> T:
    """The answer of a server that may just be starting: asked again while nobody is
    there, and a little less long than is waited for it.
    """
    deadline = time.monotonic() + KNOCK_SECONDS - 2 * KNOCK_PAUSE_SECONDS
    while True:
        try:
            return ask()
        except Exception as error:
            if not failure_of(error).is_outage or time.monotonic() > deadline:
                raise
        time.sleep(KNOCK_PAUSE_SECONDS)


# -- databases -------------------------------------------------------------------------


def open_database(uri: str) -> Any:
    """A client of a database, whose tables are made where there are none."""
    path = sqlite_path(uri)
    if path is not None:
        _make_file(path)
    with making(uri, path):
        is_new = _connect(uri, path)
        pauses = iter(MAKING_PAUSES_SECONDS if is_new else ())
        while True:
            try:
                return _client(uri)
            except Exception:
                pause = next(pauses, None)
                if pause is None:
                    raise
            time.sleep(pause)


def _make_file(path: Path) -> None:
    try:
        create_private(path)
    except OSError as error:
        raise TrackingError(
            f"tracking_uri: {path} cannot be made ({error.strerror})"
        ) from error


def _connect(uri: str, path: Path | None) -> bool:
    """Connect once, so that a server that is down or refuses the login is told at once,
    where MLflow would try for minutes; whether the tables are still to be made.

    MLflow is given the connection: it would take the path out of the URL by rules of
    its own.
    """
    from mlflow.store.db.utils import _all_tables_exist, create_sqlalchemy_engine
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    _forget_replaced(uri, path)
    with SqlAlchemyStore._engine_map_lock:
        engine = SqlAlchemyStore._engine_map.get(uri)
    if engine is None:
        engine = create_sqlalchemy_engine(uri)
    if path is None:
        _knock(uri, lambda: engine.connect().close())
    else:
        engine.connect().close()
    with SqlAlchemyStore._engine_map_lock:
        SqlAlchemyStore._engine_map.setdefault(uri, engine)
    return not _all_tables_exist(engine)


_files: dict[str, tuple[int, int]] = {}
"""Device and inode of the file behind each URI when it was opened."""


def _forget_replaced(uri: str, path: Path | None) -> None:
    """Have MLflow open a file anew that was removed since: it would go on writing to
    what nobody can read.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service import utils

    if path is None:
        return
    status = path.stat()
    file = (status.st_dev, status.st_ino)
    if _files.setdefault(uri, file) == file:
        return
    _files[uri] = file
    with SqlAlchemyStore._engine_map_lock:
        engine = SqlAlchemyStore._engine_map.pop(uri, None)
    if engine is not None:
        engine.dispose()
    utils._tracking_store_registry._get_store_with_resolved_uri.cache_clear()


def _forget_connections() -> None:
    """A forked child must not speak through its parent's connections."""
    import sys

    store: Any = sys.modules.get("mlflow.store.tracking.sqlalchemy_store")
    if store is not None:
        for engine in list(store.SqlAlchemyStore._engine_map.values()):
            engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)


@contextlib.contextmanager
def making(uri: str, path: Path | None) -> Iterator[None]:
    """One process of this user at a time may make the tables of a database. Where files
    cannot be locked, all may.
    """
    try:
        descriptor = _open_lock(uri, path)
    except OSError:
        yield
        return
    try:
        _lock(descriptor)
        yield
    finally:
        # Said aloud, since a child forked meanwhile shares the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _open_lock(uri: str, path: Path | None) -> int:
    """What is locked: the folder of an SQLite file, where all who share it meet; for a
    server, a file among the user's own runtime files.
    """
    if path is not None:
        return os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    from jupyter_core.paths import jupyter_runtime_dir

    folder = Path(jupyter_runtime_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    file = folder / f"aistack-tracking-{name}.lock"
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int) -> None:
    began = time.monotonic()
    has_told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
        except OSError:
            return  # no locks on this file system
        else:
            return
        if waited > LOCK_SECONDS:
            return  # its holder hangs
        if waited > FIRST_SECONDS and not has_told:
            has_told = True
            tell("waiting for another process that is making the tracking store")
        time.sleep(LOCK_PAUSE_SECONDS)


# -- experiments -----------------------------------------------------------------------


def _experiment_id(client: Any, uri: str, name: str) -> str:
    """The experiment's id; it is made when there is none, also when another process
    makes it at the same moment.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = _artifact_folder(uri)
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment: {name!r} has been deleted; restore it in MLflow or choose another name"
        )
    return str(experiment.experiment_id)


def _artifact_folder(uri: str) -> str | None:
    """Where artifacts of an SQLite store go: beside it, and for those who may read it.
    Without a place of their own they would land in a folder of the working directory.
    """
    path = sqlite_path(uri)
    if path is None:
        return None
    folder = path.parent / "mlartifacts"
    if not folder.exists():
        mode = 0o2770 if is_shared_folder(path.parent) else 0o700
        folder.mkdir(mode=mode, exist_ok=True)
        folder.chmod(mode)
    return folder.as_uri()
