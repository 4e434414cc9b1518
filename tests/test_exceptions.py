from __future__ import annotations

import pickle

import pytest

from jupyter_aistack import exceptions
from jupyter_aistack.exceptions import AIStackError, StaleToken, error_from_dict

ERRORS = [getattr(exceptions, name) for name in exceptions.__all__ if name[0].isupper()]


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_crosses_a_wire_and_a_process_as_the_same_class(
    cls: type[AIStackError],
) -> None:
    error = cls("what happened", field="spec", token=3)
    for copy in (error_from_dict(error.as_dict()), pickle.loads(pickle.dumps(error))):
        assert (type(copy), copy.message, copy.facts) == (
            cls,
            "what happened",
            {"field": "spec", "token": 3},
        )


@pytest.mark.parametrize("cls", ERRORS)
def test_every_error_has_a_sentence_of_its_own_and_a_status(
    cls: type[AIStackError],
) -> None:
    assert cls().message.endswith(".")
    assert 400 <= cls.http_status < 600


def test_the_drawn_tree_names_every_error() -> None:
    drawn = exceptions.__doc__ or ""
    assert not [cls.__name__ for cls in ERRORS if cls.__name__ not in drawn]


def test_a_code_nobody_knows_becomes_the_plain_error() -> None:
    error = error_from_dict({"code": "FromTheFuture", "message": "later"})
    assert (type(error), error.message) == (AIStackError, "later")


def test_facts_json_cannot_carry_become_text() -> None:
    assert StaleToken(cause=ValueError("x")).as_dict()["facts"] == {"cause": "x"}
