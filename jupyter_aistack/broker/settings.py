"""A policy as admins write it: queues, limits and durations, checked one by one. Each
error names setting and field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from jupyter_aistack.core.model.policy import (
    DEFAULT_QUEUE,
    IdlePolicy,
    Policy,
    Queue,
    SuspendPolicy,
    UserLimits,
)
from jupyter_aistack.core.model.spec import is_profile
from jupyter_aistack.core.model.units import parse_bytes, parse_duration
from jupyter_aistack.core.placement.mig_plan import MIGPermission
from jupyter_aistack.exceptions import InvalidRequest

Reader = Callable[[Any], Any]
"""Gives what a value means, or raises `_Wrong`."""


class _Wrong(Exception):
    """A value that makes no sense; the text reads on after its name."""


def read_policy(
    *,
    queues: Mapping[str, Any],
    user_limits: Mapping[str, Any],
    half_life: Any,
    batch_share: Any,
    notice_seconds: Any,
    min_runtime: Any,
    age: Any,
) -> Policy:
    """The policy that these settings describe; see
    :class:`jupyter_aistack.config.AIStack`.

    Raises:
        InvalidRequest: naming the setting and, in its tables, the entry and the field.
    """
    return Policy(
        queues=read_queues(queues),
        limits=read_limits(user_limits),
        half_life_seconds=_setting("half_life", half_life, _duration),
        batch_share=_setting("batch_share", batch_share, _share),
        notice_seconds=_setting("notice_seconds", notice_seconds, _wait),
        min_runtime_seconds=_setting("min_runtime", min_runtime, _wait),
        age_seconds=_setting("age", age, _duration),
    )


def read_queues(table: Mapping[str, Any]) -> tuple[Queue, ...]:
    """Queues from settings; always with one named ``default``.

    Raises:
        InvalidRequest: naming ``queues``, the queue at fault and its field.
    """
    queues = [_read_queue(name, entry) for name, entry in table.items()]
    if DEFAULT_QUEUE not in table:
        queues.append(Queue(name=DEFAULT_QUEUE))
    return tuple(queues)


def read_limits(table: Mapping[str, Any]) -> dict[str, UserLimits]:
    """Limits by login name from settings; ``"*"`` is for everybody else.

    Raises:
        InvalidRequest: naming ``user_limits``, the user and the field.
    """
    return {
        user: UserLimits(**_fields("user_limits", user, entry, _LIMITS))
        for user, entry in table.items()
    }


def read_suspend(setting: Any) -> SuspendPolicy | None:
    """When idle kernels are suspended, from settings; None for never.

    Raises:
        InvalidRequest: naming ``suspend``, and in its table the field.
    """
    if setting in ("off", "auto"):
        return None if setting == "off" else SuspendPolicy()
    if not isinstance(setting, Mapping):
        allowed = f'"off", "auto", or a table with {", ".join(_SUSPEND)}'
        raise InvalidRequest(
            f"suspend: expected {allowed}, got {setting!r}", field="suspend"
        )
    readers = {name: read for name, (_, read) in _SUSPEND.items()}
    policy = SuspendPolicy(
        **{
            _SUSPEND[name][0]: value
            for name, value in _table("suspend", setting, readers).items()
        }
    )
    for shorter, longer in (("warm", "hard"), ("retry", "longest_retry")):
        least = getattr(policy, _SUSPEND[shorter][0])
        most = getattr(policy, _SUSPEND[longer][0])
        if least > most:
            raise InvalidRequest(
                f"suspend: {longer}: {most:g} s is less than {shorter}, {least:g} s",
                field="suspend",
                entry_field=longer,
            )
    return policy


def _table(
    setting: str, table: Mapping[Any, Any], readers: Mapping[str, Reader]
) -> dict[str, Any]:
    """The fields of a setting that is one table."""
    found = {}
    for field, value in table.items():
        if field not in readers:
            why = f"there is no such field; there is {', '.join(readers)}"
            raise InvalidRequest(
                f"{setting}: {field}: {why}", field=setting, entry_field=str(field)
            )
        try:
            found[field] = readers[field](value)
        except _Wrong as wrong:
            raise InvalidRequest(
                f"{setting}: {field}: {wrong}", field=setting, entry_field=field
            ) from None
    return found


def read_mig_create(value: Any) -> MIGPermission | None:
    """Which MIG instances may be created; None for none.

    Raises:
        InvalidRequest: naming the setting, the GPU and what is allowed.
    """
    if isinstance(value, bool):
        return MIGPermission(everywhere=True) if value else None
    allowed = {
        str(gpu): _profiles_on(str(gpu), names) for gpu, names in dict(value).items()
    }
    return MIGPermission(profiles=allowed) if allowed else None


def _profiles_on(gpu: str, names: Any) -> frozenset[str]:
    if not gpu.isdigit() and not gpu.startswith("GPU-"):
        raise _no_permission(gpu, "a GPU is named by its number or its UUID (GPU-...)")
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(name, str) and is_profile(name) for name in names
    ):
        raise _no_permission(
            gpu, f"expected a list of profiles such as 1g.18gb, got {names!r}"
        )
    return frozenset(names)


def _no_permission(gpu: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"mig_create: {gpu!r}: {why}", field="mig_create", entry=gpu)


def _read_queue(name: str, entry: Any) -> Queue:
    if not isinstance(name, str) or not name.strip():
        raise InvalidRequest(f"queues: {name!r}: a queue needs a name", field="queues")
    fields = _fields("queues", name, entry, _QUEUE)
    queue = Queue(name=name, **fields)
    if queue.limit is not None and queue.quota > queue.limit:
        raise _refuse(
            "queues",
            name,
            "quota",
            f"{queue.quota} is above the queue's limit, {queue.limit}",
        )
    return queue


def _fields(
    setting: str, name: str, entry: Any, readers: Mapping[str, Reader]
) -> dict[str, Any]:
    """The entry `name` of a table, field by field."""
    allowed = ", ".join(readers)
    if not isinstance(entry, Mapping):
        raise InvalidRequest(
            f"{setting}: {name!r}: expected a table with {allowed}, got {entry!r}",
            field=setting,
        )
    found = {}
    for field, value in entry.items():
        if field not in readers:
            raise _refuse(
                setting, name, str(field), f"there is no such field; there is {allowed}"
            )
        try:
            found[field] = readers[field](value)
        except _Wrong as wrong:
            raise _refuse(setting, name, str(field), str(wrong)) from None
    return found


def _refuse(setting: str, name: str, field: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{setting}: {name!r}: {field}: {why}",
        field=setting,
        entry=name,
        entry_field=field,
    )


def _setting(name: str, value: Any, read: Reader) -> Any:
    try:
        return read(value)
    except _Wrong as wrong:
        raise InvalidRequest(f"{name}: {wrong}", field=name) from None


# -- values ----------------------------------------------------------------------------


def _fraction(value: Any) -> Fraction:
    try:
        if isinstance(value, bool):
            raise ValueError
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise _Wrong(f'expected a number such as 2 or "1/2", got {value!r}') from None


def _amount(value: Any) -> Fraction:
    number = _fraction(value)
    if number < 0:
        raise _Wrong(f"expected 0 or more, got {value!r}")
    return number


def _positive(value: Any) -> Fraction:
    number = _fraction(value)
    if number <= 0:
        raise _Wrong(f"expected a number above 0, got {value!r}")
    return number


def _share(value: Any) -> Fraction:
    number = _fraction(value)
    if not 0 <= number <= 1:
        raise _Wrong(f"expected a share from 0 to 1, got {value!r}")
    return number


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Wrong(f"expected a whole number, got {value!r}")
    return value


def _count(value: Any) -> int:
    number = _whole(value)
    if number < 0:
        raise _Wrong(f"expected 0 or more, got {value!r}")
    return number


def _hours(value: Any) -> float:
    return float(_amount(value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(f"expected true or false, got {value!r}")
    return value


def _or_none(read: Reader) -> Reader:
    return lambda value: None if value is None else read(value)


def _members(value: Any) -> frozenset[str]:
    is_list = isinstance(value, (list, tuple, set, frozenset))
    if not is_list or not all(
        isinstance(member, str) and member.strip("@ ") for member in value
    ):
        raise _Wrong(f'expected a list of logins and "@group" names, got {value!r}')
    return frozenset(value)


def _duration(value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise InvalidRequest
        return parse_duration(value)
    except InvalidRequest:
        raise _Wrong(
            f'expected a duration such as "30min", "2h" or "7d", above 0, got {value!r}'
        ) from None


def _wait(value: Any) -> float:
    """A duration that may be none at all."""
    return (
        0.0 if value in (0, "0") and not isinstance(value, bool) else _duration(value)
    )


def _idle(value: Any) -> IdlePolicy | None:
    """When idle leases are taken back; ``False`` for never."""
    if value is False or value is None:
        return None
    if value is True:
        return IdlePolicy()
    if not isinstance(value, Mapping) or not set(value) <= _IDLE.keys():
        raise _Wrong(
            f"expected false, or a table with {', '.join(_IDLE)}, got {value!r}"
        )
    policy = IdlePolicy(
        **{_IDLE[key]: _step(key, given) for key, given in value.items()}
    )
    if not policy.badge_seconds <= policy.notice_seconds <= policy.reclaim_seconds:
        steps = ", ".join(
            f"{key} {getattr(policy, field):g} s" for key, field in _IDLE.items()
        )
        raise _Wrong(f"badge comes first, then notice, then reclaim; got {steps}")
    return policy


def _step(key: str, value: Any) -> float:
    try:
        return _duration(value)
    except _Wrong as wrong:
        raise _Wrong(f"{key}: {wrong}") from None


def _bytes(value: Any) -> int:
    try:
        if (
            isinstance(value, bool)
            or not isinstance(value, (str, int))
            or (isinstance(value, int) and value < 0)
        ):
            raise InvalidRequest
        return value if isinstance(value, int) else parse_bytes(value)
    except InvalidRequest:
        raise _Wrong(
            f'expected an amount of memory such as "500MB", got {value!r}'
        ) from None


def _as_float(read: Reader) -> Reader:
    return lambda value: float(read(value))


_IDLE = {
    "badge": "badge_seconds",
    "notice": "notice_seconds",
    "reclaim": "reclaim_seconds",
}
_QUEUE: dict[str, Reader] = {
    "quota": _amount,
    "limit": _or_none(_positive),
    "weight": _positive,
    "priority": _whole,
    "is_open": _flag,
    "is_batch": _flag,
    "members": _members,
    "idle": _idle,
    "suspend": _flag,
}
_SUSPEND: dict[str, tuple[str, Reader]] = {
    "warm": ("warm_seconds", _wait),
    "hard": ("hard_seconds", _duration),
    "context": ("context_bytes", _bytes),
    "margin": ("margin_share", _as_float(_share)),
    "host_share": ("host_share", _as_float(_share)),
    "lock": ("lock_seconds", _duration),
    "retry": ("retry_seconds", _duration),
    "longest_retry": ("longest_retry_seconds", _duration),
}
"""What a table calls a field of :class:`SuspendPolicy`, and how it is read."""
_LIMITS: dict[str, Reader] = {
    "slices": _or_none(_count),
    "devices": _or_none(_amount),
    "hours_per_week": _or_none(_hours),
    "queued": _or_none(_count),
}
