from __future__ import annotations

import pickle
import re

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


DRAWN = re.compile(r"^ {4}(?: +([x+]) )?(\w+) (\d{3})", re.MULTILINE)
"""A line of the tree: the mark of its depth, the name, and the status."""


def drawn_tree() -> dict[str, tuple[str, int]]:
    """By name, the parent and the status that the docstring draws."""
    tree: dict[str, tuple[str, int]] = {}
    group = "AIStackError"
    for mark, name, status in DRAWN.findall(exceptions.__doc__ or ""):
        parent = {"": "Exception", "x": "AIStackError", "+": group}[mark]
        tree[name] = (parent, int(status))
        group = name if mark == "x" else group
    return tree


def test_the_drawn_tree_is_that_of_the_classes() -> None:
    classes = {
        cls.__name__: (cls.__bases__[0].__name__, cls.http_status) for cls in ERRORS
    }
    assert drawn_tree() == classes


def test_a_code_nobody_knows_becomes_the_plain_error() -> None:
    error = error_from_dict({"code": "FromTheFuture", "message": "later"})
    assert (type(error), error.message) == (AIStackError, "later")


def test_facts_json_cannot_carry_become_text() -> None:
    assert StaleToken(cause=ValueError("x")).as_dict()["facts"] == {"cause": "x"}
