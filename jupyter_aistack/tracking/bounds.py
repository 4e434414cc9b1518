"""How long MLflow may take over a call of ours, and why it failed.

MLflow repeats a failed HTTP request for minutes, in silence. Ours end after seconds
instead, since the writer repeats them itself and says so. The user's own calls of
MLflow keep what the user has set for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .store import first_line


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How long one HTTP request may take.

    Attributes:
        connect_seconds: until the server takes the connection.
        read_seconds: until it sends something.
    """

    connect_seconds: float
    read_seconds: float


_current: ContextVar[Bounds | None] = ContextVar("aistack_bounds", default=None)
_installing = threading.Lock()
_is_installed = False


@contextlib.contextmanager
def bounded(bounds: Bounds) -> Iterator[None]:
    """Make MLflow's requests of this thread once only, within `bounds`; and keep its
    log of database errors, which are told by us, out of the notebook.
    """
    _install()
    token = _current.set(bounds)
    try:
        with _some_working_folder():
            yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def _some_working_folder() -> Iterator[None]:
    """MLflow asks for the working folder, also where it does not matter, and fails where
    it has been deleted. The process is in another meanwhile, since in that one nobody
    can do anything.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        pass
    else:
        yield
        return
    deleted = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(deleted)
        os.close(deleted)


def _install() -> None:
    """Have MLflow ask us first; it has no argument for this."""
    global _is_installed
    from mlflow import environment_variables

    with _installing:
        if _is_installed:
            return
        timeout = environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT
        _ask_first(
            environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES, lambda bounds: 0
        )
        _ask_first(
            timeout, lambda bounds: (bounds.connect_seconds, bounds.read_seconds)
        )
        logging.getLogger("mlflow.store.db.utils").addFilter(
            lambda record: _current.get() is None
        )
        _is_installed = True


def _ask_first(variable: Any, ours: Callable[[Bounds], object]) -> None:
    theirs = variable.get

    def get() -> object:
        bounds = _current.get()
        return theirs() if bounds is None else ours(bounds)

    variable.get = get


def chosen_read_seconds(default: float) -> float:
    """How long the user lets MLflow wait for an answer; `default` where nothing is
    set.
    """
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT

    if not MLFLOW_HTTP_REQUEST_TIMEOUT.is_set():
        return default
    return float(MLFLOW_HTTP_REQUEST_TIMEOUT.get())


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a request failed.

    Attributes:
        why: for people, without secrets.
        is_outage: no answer came that the server meant: trying again may help.
    """

    why: str
    is_outage: bool


def failure_of(error: BaseException) -> Failure:
    """Why a call of MLflow failed, by the kinds of the errors behind it."""
    from requests import exceptions as http

    for cause in _causes(error):
        if isinstance(cause, http.SSLError):
            return Failure(
                why=f"no secure connection: {_innermost(cause)}",
                is_outage=False,
            )
        if isinstance(cause, (http.RetryError, http.ConnectionError, http.Timeout)):
            return _connection_failure(cause)
    return Failure(why=first_line(error), is_outage=False)


def _connection_failure(error: BaseException) -> Failure:
    import socket

    from requests.exceptions import Timeout

    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return Failure(why="no host of that name is known", is_outage=False)
        if isinstance(cause, (TimeoutError, Timeout)):
            return Failure(why="it did not answer in time", is_outage=True)
    return Failure(why=_innermost(error), is_outage=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = _cause_of(error)


def _cause_of(error: BaseException) -> BaseException | None:
    # urllib3 keeps the cause as `reason`, and requests keeps urllib3's error as its
    # only argument.
    inner = (getattr(error, "reason", None), *error.args[:1])
    for candidate in (error.__cause__, *inner, error.__context__):
        if isinstance(candidate, BaseException):
            return candidate
    return None


def _innermost(error: BaseException) -> str:
    *_, last = _causes(error)
    return first_line(last)
