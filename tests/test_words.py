"""Names say what a thing is: words that stand for anything name nothing here."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house import MODULES, place, tree_of

EMPTY_WORDS = {"one", "said", "found", "piece"}


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that a module gives or uses, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def test_no_name_is_an_empty_word() -> None:
    empty = [
        f"{place(path)}:{line} {name}"
        for path in MODULES
        for line, name in names(tree_of(path))
        if name in EMPTY_WORDS
    ]
    assert empty == []
