"""How dense the code may be; ``python -m tests.house_figures`` prints how dense it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house import MODULES, PACKAGE_ROOT
from tests.house_figures import (
    Figures,
    complexity,
    condition_terms,
    figures_by_room,
    is_tuple_assignment,
    measure,
)


@pytest.fixture(scope="module")
def figures() -> Figures:
    return measure(MODULES)


def test_lines_are_not_compressed(figures: Figures) -> None:
    assert figures.nodes_per_line <= 6
    assert figures.tuple_assignments_per_1000_lines <= 1


MOST_NODES_PER_LINE = 6.0
DENSE_ROOMS: dict[str, float] = {
    "core/accounting": 6.7,
    "core/enforcement": 6.05,
    "core/model": 6.25,
    "core/placement": 7.25,
    "core/scheduling": 6.1,
    "core/wire": 6.15,
    "exceptions": 6.65,
    "system": 6.05,
}
"""Rooms that are denser yet, and how dense they may be: the figures may only fall."""


def test_lines_of_no_room_are_compressed() -> None:
    rooms = figures_by_room(MODULES)
    allowed = {room: DENSE_ROOMS.get(room, MOST_NODES_PER_LINE) for room in rooms}
    dense = {
        room: round(figures.nodes_per_line, 3)
        for room, figures in rooms.items()
        if figures.nodes_per_line > allowed[room]
    }
    assert dense == {}
    assert DENSE_ROOMS.keys() <= rooms.keys()


def test_functions_are_short(figures: Figures) -> None:
    assert figures.median_function_lines <= 9
    assert figures.function_lines_at(0.9) <= 28
    assert figures.longest_function.lines <= 70, figures.longest_function


def test_functions_are_simple(figures: Figures) -> None:
    assert figures.complexity_at(0.99) <= 12


def test_long_conditions_have_names(figures: Figures) -> None:
    """Ruff has this as PLR0916, in preview only."""
    assert figures.longest_condition.condition_terms <= 4, figures.longest_condition


def test_no_file_is_long(figures: Figures) -> None:
    assert figures.long_files == []


SAMPLE = """
def sample(values, flag):
    for value in values:
        if value and flag or value > 3:
            return [each for each in values if each]
    match flag:
        case 1:
            return 1 if values else 2
"""


def test_the_broker_only_joins_its_parts(figures: Figures) -> None:
    facade = PACKAGE_ROOT / "broker" / "broker.py"

    assert figures.file_lines[facade] <= 180


def test_conditions_inside_expressions_count() -> None:
    function = ast.parse(SAMPLE).body[0]
    assert isinstance(function, ast.FunctionDef)
    # for, if, or, and, comprehension, its if, case, conditional expression
    assert complexity(function) == 1 + 8
    assert condition_terms(function) == 3


@pytest.mark.parametrize(
    ("statement", "is_one"),
    [("a, b = c, d", True), ("a, b = call()", False), ("a = b, c", False)],
)
def test_a_tuple_assignment_is_told_from_unpacking(
    statement: str, is_one: bool
) -> None:
    assert is_tuple_assignment(ast.parse(statement).body[0]) is is_one


def test_docstrings_are_left_out(tmp_path: Path) -> None:
    bare = tmp_path / "bare.py"
    bare.write_text("def f(a):\n    return a\n")
    told = tmp_path / "told.py"
    told.write_text('def f(a):\n    """It\n    is.\n    """\n    return a\n')
    assert measure([bare]).functions[0].docstring_lines == 0
    assert measure([told]).functions[0].docstring_lines == 3
