"""Roles as admins write them: lists of logins and groups. Each error names the setting."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jupyter_aistack.core.model.roles import RoleSettings
from jupyter_aistack.exceptions import InvalidRequest


def read_roles(
    *, admins: object, operators: object, managers: object, queues: Collection[str]
) -> RoleSettings:
    """Who has which role.

    Args:
        admins, operators: logins and ``@group`` names.
        managers: the same by the name of the queue that they manage.
        queues: the queues there are.

    Raises:
        InvalidRequest: naming the setting and what is allowed.
    """
    return RoleSettings(
        admins=_names(admins, "admins", "admins"),
        operators=_names(operators, "operators", "operators"),
        managers=_managers(managers, queues),
    )


def _managers(value: object, queues: Collection[str]) -> dict[str, frozenset[str]]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(
            f"managers: expected lists of names by queue, got {value!r}",
            field="managers",
        )
    for queue in value:
        if queue not in queues:
            known = ", ".join(sorted(queues))
            raise InvalidRequest(
                f"managers: there is no queue {queue!r}; there is {known}",
                field="managers",
            )
    return {
        queue: _names(names, "managers", f"managers: {queue!r}")
        for queue, names in value.items()
    }


def _names(value: object, setting: str, where: str) -> frozenset[str]:
    if isinstance(value, list | tuple) and all(map(_is_name, value)):
        return frozenset(value)
    raise InvalidRequest(
        f"{where}: expected a list of logins and @group names, got {value!r}",
        field=setting,
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip().removeprefix("@"))
