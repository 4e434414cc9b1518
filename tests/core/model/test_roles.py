"""The table of who may do what."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model.roles import (
    REACHES,
    Reach,
    Role,
    Standing,
    entitled,
)
from tests.paths import ROOT

USER = Standing()
MANAGER = Standing(queues=frozenset({"class"}))
OPERATOR = Standing(is_operator=True)
ADMIN = Standing(is_admin=True)
BY_ROLE = {
    Role.USER: USER,
    Role.MANAGER: MANAGER,
    Role.OPERATOR: OPERATOR,
    Role.ADMIN: ADMIN,
}


@pytest.mark.parametrize("verb", sorted(REACHES))
@pytest.mark.parametrize("role", Role)
def test_a_role_may_do_what_its_column_says(verb: str, role: Role) -> None:
    standing = BY_ROLE[role]
    reach = REACHES[verb].of(role)
    user_reach = REACHES[verb].user
    assert standing.may(verb, "other") is (reach is Reach.ALL)
    assert standing.may(verb, "class") is (reach in (Reach.QUEUES, Reach.ALL))
    is_for_own = reach is Reach.ALL or user_reach is not Reach.NONE
    assert standing.may(verb, "other", is_own=True) is is_for_own
    assert standing.may_use(verb) is (reach is not Reach.NONE)


def test_every_role_may_what_users_may_and_admins_all_that_others_may() -> None:
    order = list(Reach)
    for verb, reaches in REACHES.items():
        least = order.index(reaches.user)
        most = order.index(reaches.admin)
        for role in Role:
            assert least <= order.index(reaches.of(role)) <= most, verb


def test_who_has_several_roles_may_what_any_of_them_allows() -> None:
    both = Standing(is_operator=True, queues=frozenset({"class"}))
    assert both.roles == (Role.USER, Role.MANAGER, Role.OPERATOR)
    assert both.may("reserve", "class"), "as its manager"
    assert not both.may("reserve", "other")
    assert both.may("suspend", "other"), "as an operator"


def test_who_is_entitled_is_named_by_role_and_setting() -> None:
    assert entitled("reserve") == (Role.MANAGER, Role.ADMIN)
    assert entitled("cancel") == (Role.MANAGER, Role.OPERATOR, Role.ADMIN)
    assert [role.setting for role in entitled("mig_apply")] == ["AIStack.admins"]


def test_the_documented_table_is_the_table() -> None:
    documented: dict[str, list[str]] = {}
    for line in (ROOT / "docs" / "sharing.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        is_row = len(cells) == 1 + len(Role) and cells[0].startswith("`")
        for verb in cells[0].split(", ") if is_row else ():
            documented[verb.strip("`")] = cells[1:]
    table = {verb: [reach.value for reach in REACHES[verb]] for verb in REACHES}
    assert documented == table
