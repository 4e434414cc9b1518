"""Roles as admins write them."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_aistack.broker.role_settings import read_roles
from jupyter_aistack.exceptions import InvalidRequest

QUEUES = ("default", "class")


def read(**settings: Any) -> Any:
    nobody = {"admins": [], "operators": [], "managers": {}}
    return read_roles(**{**nobody, **settings}, queues=QUEUES)


def test_names_are_read_as_they_are_written() -> None:
    roles = read(
        admins=["root"], operators=["@gpu-ops"], managers={"class": ["@teachers", "t"]}
    )
    assert roles.admins == {"root"}
    assert roles.operators == {"@gpu-ops"}
    assert roles.managers == {"class": {"@teachers", "t"}}


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("admins", "root", "admins: expected a list of logins and @group names"),
        ("operators", [7], "operators: expected a list of logins and @group names"),
        ("operators", ["@"], "operators: expected a list of logins"),
        ("operators", [""], "operators: expected a list of logins"),
        ("managers", ["@teachers"], "managers: expected lists of names by queue"),
        ("managers", {"class": "t"}, "managers: 'class': expected a list of logins"),
        (
            "managers",
            {"clas": ["t"]},
            "managers: there is no queue 'clas'; there is class, default",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_setting(
    setting: str, value: object, sentence: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**{setting: value})
    assert caught.value.message.startswith(sentence)
    assert caught.value.facts["field"] == setting
