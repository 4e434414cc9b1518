"""Everything that can go wrong, as one tree.

::

    AIStackError 500
     x InvalidRequest 400            cannot be understood; names the field
       + UnknownProfile 400
       + UnknownQueue 404
     x Refused 409                   understood, not granted by policy
       + QuotaExceeded 409
       + Unsatisfiable 409           no state of this inventory could ever hold it
       + QueueClosed 409
     x LeaseError 409
       + LeaseNotFound 404
       + StaleToken 409
       + LeaseLost 409               expired, reclaimed or preempted
       + AcquireTimeout 409          also a TimeoutError
       + PermissionDenied 403        only the holder of a lease may change it
       + DeviceInUse 409             the process has already chosen its devices
     x LedgerError 503
       + LedgerUnavailable 503
       + LedgerConflict 503          the ledger moved on since the snapshot; retried
       + SchemaMismatch 503
     x ProviderError 503
       + DriverNotFound 503
       + DeviceLost 503
       + PrepareFailed 503
       + NotEnforced 503             a process found more than its lease grants
       + CheckpointFailed 503        the GPU state of a process could not be moved
     x ClusterError 500
     x TrainingError 500
     x TrackingError 500
     x InvalidTransition 500         a bug of ours

An error's message is its class docstring's first line unless one is given. Facts travel
as attributes, given by keyword, and reach the other side of a socket in ``facts``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

__all__ = [
    "AIStackError",
    "AcquireTimeout",
    "CheckpointFailed",
    "ClusterError",
    "DeviceInUse",
    "DeviceLost",
    "DriverNotFound",
    "InvalidRequest",
    "InvalidTransition",
    "LeaseError",
    "LeaseLost",
    "LeaseNotFound",
    "LedgerConflict",
    "LedgerError",
    "LedgerUnavailable",
    "NotEnforced",
    "PermissionDenied",
    "PrepareFailed",
    "ProviderError",
    "QueueClosed",
    "QuotaExceeded",
    "Refused",
    "SchemaMismatch",
    "StaleToken",
    "TrackingError",
    "TrainingError",
    "UnknownProfile",
    "UnknownQueue",
    "Unsatisfiable",
    "error_from_dict",
]


class AIStackError(Exception):
    """Something went wrong in jupyter_aistack."""

    http_status: ClassVar[int] = 500

    def __init__(self, message: str | None = None, **facts: Any) -> None:
        if not message:
            documented = type(self).__doc__ or ""
            message = documented.strip().splitlines()[0]
        self.message = message
        self.facts: dict[str, Any] = facts
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The class name, by which both ends of a wire know the error."""
        return type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.facts))

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON: ``code``, ``message`` and ``facts`` that JSON can
        carry.
        """
        return {
            "code": self.code,
            "message": self.message,
            "facts": _portable(self.facts),
        }


class InvalidRequest(AIStackError):
    """The request cannot be understood."""

    http_status = 400


class UnknownProfile(InvalidRequest):
    """No device of this host offers that profile."""


class UnknownQueue(InvalidRequest):
    """There is no queue of that name."""

    http_status = 404


class Refused(AIStackError):
    """The request was understood but policy does not allow it."""

    http_status = 409


class QuotaExceeded(Refused):
    """The queue's limit leaves no capacity for this request."""


class Unsatisfiable(Refused):
    """This host could never hold what was asked for, even when idle."""


class QueueClosed(Refused):
    """The queue takes no requests."""


class LeaseError(AIStackError):
    """The lease does not allow that."""

    http_status = 409


class LeaseNotFound(LeaseError):
    """There is no such lease."""

    http_status = 404


class StaleToken(LeaseError):
    """The lease has moved on: this token may change nothing any more."""


class LeaseLost(LeaseError):
    """The lease has ended and its slices belong to others now."""


class AcquireTimeout(LeaseError, TimeoutError):
    """No slice came free within the time given."""


class PermissionDenied(LeaseError):
    """Only the holder of a lease may change it."""

    http_status = 403


class DeviceInUse(LeaseError):
    """This process has already chosen its devices; restart the kernel to change them."""


class LedgerError(AIStackError):
    """The ledger failed."""

    http_status = 503


class LedgerUnavailable(LedgerError):
    """The ledger cannot be opened."""


class LedgerConflict(LedgerError):
    """The ledger changed while a plan was being made."""


class SchemaMismatch(LedgerError):
    """The ledger was written by another version of jupyter_aistack."""


class ProviderError(AIStackError):
    """A device provider failed."""

    http_status = 503


class DriverNotFound(ProviderError):
    """No GPU driver answers on this host."""


class DeviceLost(ProviderError):
    """The device no longer answers."""


class PrepareFailed(ProviderError):
    """The slice could not be made ready."""


class NotEnforced(ProviderError):
    """Nothing holds the slice to its size."""


class CheckpointFailed(ProviderError):
    """The GPU state of a process could not be moved."""


class ClusterError(AIStackError):
    """The Dask cluster failed."""


class TrainingError(AIStackError):
    """The training run failed."""


class TrackingError(AIStackError):
    """The experiment could not be logged."""


class InvalidTransition(AIStackError):
    """A lease was asked to take a step its state does not allow."""


def error_from_dict(data: Mapping[str, Any]) -> AIStackError:
    """The error that :meth:`AIStackError.as_dict` described, as the same class again."""
    classes = _tree(AIStackError)
    known = {cls.__name__: cls for cls in classes}
    code = str(data.get("code"))
    message = data.get("message")
    facts = data.get("facts") or {}
    cls = known.get(code, AIStackError)
    if not message:
        return cls(**facts)
    return cls(str(message), **facts)


def _rebuild(
    cls: type[AIStackError], message: str, facts: dict[str, Any]
) -> AIStackError:
    return cls(message, **facts)


def _tree(cls: type[AIStackError]) -> Iterator[type[AIStackError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


def _portable(facts: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(facts, default=str)
    portable: dict[str, Any] = json.loads(text)
    return portable
