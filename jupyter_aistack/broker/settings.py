"""A policy as admins write it: queues, limits and durations. Each error names the
setting and the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_aistack.core.model.policy import (
    DEFAULT_QUEUE,
    GpuSharing,
    IdlePolicy,
    Policy,
    Queue,
    SuspendPolicy,
    UserLimits,
)
from jupyter_aistack.core.model.spec import is_profile
from jupyter_aistack.core.placement.mig_plan import MIGPermission
from jupyter_aistack.exceptions import InvalidRequest

from .setting_values import (
    Reader,
    WrongValue,
    as_float,
    or_none,
    read_amount,
    read_bytes,
    read_choice,
    read_count,
    read_duration,
    read_flag,
    read_hours,
    read_integer,
    read_members,
    read_positive,
    read_setting,
    read_share,
    read_wait,
)


def read_policy(
    *,
    queues: Mapping[str, Any],
    user_limits: Mapping[str, Any],
    half_life: Any,
    batch_share: Any,
    notice_seconds: Any,
    min_runtime: Any,
    age: Any,
    gpu_sharing: str = GpuSharing.ANY_USER.value,
) -> Policy:
    """The policy that these settings describe; see
    :class:`jupyter_aistack.config.AIStack`.

    Raises:
        InvalidRequest: naming the setting and, in its tables, the entry and the field.
    """
    return Policy(
        queues=read_queues(queues),
        limits=read_limits(user_limits),
        half_life_seconds=read_setting("half_life", half_life, read_duration),
        batch_share=read_setting("batch_share", batch_share, read_share),
        notice_seconds=read_setting("notice_seconds", notice_seconds, read_wait),
        min_runtime_seconds=read_setting("min_runtime", min_runtime, read_wait),
        age_seconds=read_setting("age", age, read_duration),
        gpu_sharing=read_choice(GpuSharing, "gpu_sharing", gpu_sharing),
    )


def read_queues(table: Mapping[str, Any]) -> tuple[Queue, ...]:
    """Queues from settings; always with a queue named ``default``.

    Raises:
        InvalidRequest: naming ``queues``, the queue at fault and its field.
    """
    queues = [_read_queue(name, entry) for name, entry in table.items()]
    if DEFAULT_QUEUE not in table:
        queues.append(Queue(name=DEFAULT_QUEUE))
    return tuple(queues)


def read_limits(table: Mapping[str, Any]) -> dict[str, UserLimits]:
    """Limits by login name from settings; ``"*"`` is for all others.

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
    fields = _fields("suspend", "", setting, readers)
    policy = SuspendPolicy(
        **{_SUSPEND[name][0]: value for name, value in fields.items()}
    )
    for shorter, longer in (("warm", "hard"), ("retry", "longest_retry")):
        least = getattr(policy, _SUSPEND[shorter][0])
        most = getattr(policy, _SUSPEND[longer][0])
        if least > most:
            why = f"{most:g} s is less than {shorter}, {least:g} s"
            raise _refuse("suspend", "", longer, why)
    return policy


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
    is_list = isinstance(names, (list, tuple))
    if not is_list or not all(map(_is_profile, names)):
        why = f"expected a list of profiles such as 1g.18gb, got {names!r}"
        raise _no_permission(gpu, why)
    return frozenset(names)


def _is_profile(name: Any) -> bool:
    return isinstance(name, str) and is_profile(name)


def _no_permission(gpu: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"mig_create: {gpu!r}: {why}", field="mig_create", entry=gpu)


def _read_queue(name: str, entry: Any) -> Queue:
    if not isinstance(name, str) or not name.strip():
        raise InvalidRequest(f"queues: {name!r}: a queue needs a name", field="queues")
    fields = _fields("queues", name, entry, _QUEUE)
    queue = Queue(name=name, **fields)
    if queue.limit is not None and queue.quota > queue.limit:
        why = f"{queue.quota} is above the queue's limit, {queue.limit}"
        raise _refuse("queues", name, "quota", why)
    return queue


def _fields(
    setting: str, name: str, entry: Any, readers: Mapping[str, Reader]
) -> dict[str, Any]:
    """The entry `name` of a table, field by field; `name` is empty for a setting that
    is a single table.
    """
    allowed = ", ".join(readers)
    if not isinstance(entry, Mapping):
        raise InvalidRequest(
            f"{setting}: {name!r}: expected a table with {allowed}, got {entry!r}",
            field=setting,
        )
    fields = {}
    for field, value in entry.items():
        if field not in readers:
            why = f"there is no such field; there is {allowed}"
            raise _refuse(setting, name, str(field), why)
        try:
            fields[field] = readers[field](value)
        except WrongValue as wrong:
            raise _refuse(setting, name, str(field), str(wrong)) from None
    return fields


def _refuse(setting: str, name: str, field: str, why: str) -> InvalidRequest:
    """The error about a field of a setting."""
    if not name:
        return InvalidRequest(
            f"{setting}: {field}: {why}", field=setting, entry_field=field
        )
    return InvalidRequest(
        f"{setting}: {name!r}: {field}: {why}",
        field=setting,
        entry=name,
        entry_field=field,
    )


def _idle(value: Any) -> IdlePolicy | None:
    """When idle leases are reclaimed; ``False`` for never."""
    if value is False or value is None:
        return None
    if value is True:
        return IdlePolicy()
    if not isinstance(value, Mapping) or not set(value) <= _IDLE.keys():
        raise WrongValue(
            f"expected false, or a table with {', '.join(_IDLE)}, got {value!r}"
        )
    policy = IdlePolicy(
        **{_IDLE[key]: _idle_step(key, given) for key, given in value.items()}
    )
    if not policy.badge_seconds <= policy.notice_seconds <= policy.reclaim_seconds:
        steps = ", ".join(
            f"{key} {getattr(policy, field):g} s" for key, field in _IDLE.items()
        )
        raise WrongValue(f"badge comes first, then notice, then reclaim; got {steps}")
    return policy


def _idle_step(key: str, value: Any) -> float:
    try:
        return read_duration(value)
    except WrongValue as wrong:
        raise WrongValue(f"{key}: {wrong}") from None


_IDLE = {
    "badge": "badge_seconds",
    "notice": "notice_seconds",
    "reclaim": "reclaim_seconds",
}
_QUEUE: dict[str, Reader] = {
    "quota": read_amount,
    "limit": or_none(read_positive),
    "weight": read_positive,
    "priority": read_integer,
    "is_open": read_flag,
    "is_batch": read_flag,
    "members": read_members,
    "idle": _idle,
    "suspend": read_flag,
}
_SUSPEND: dict[str, tuple[str, Reader]] = {
    "warm": ("warm_seconds", read_wait),
    "hard": ("hard_seconds", read_duration),
    "context": ("context_bytes", read_bytes),
    "margin": ("margin_share", as_float(read_share)),
    "host_share": ("host_share", as_float(read_share)),
    "host_memory": ("host_bytes", read_bytes),
    "lock": ("lock_seconds", read_duration),
    "retry": ("retry_seconds", read_duration),
    "longest_retry": ("longest_retry_seconds", read_duration),
}
"""What a table calls a field of :class:`SuspendPolicy`, and how it is read."""
_LIMITS: dict[str, Reader] = {
    "slices": or_none(read_count),
    "devices": or_none(read_amount),
    "hours_per_week": or_none(read_hours),
    "queued": or_none(read_count),
}
