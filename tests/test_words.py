"""Names say what a thing is: words that stand for anything name nothing here."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house import MODULES, place, tree_of
from tests.paths import ROOT

EMPTY_WORDS = {"one", "said", "found", "piece"}
TESTS = sorted((ROOT / "tests").rglob("*.py"))
UNTIDY: set[str] = {
    "tests/broker/test_usage_meter.py",
    "tests/ledger/sql/test_cache.py",
    "tests/ledger/sql/test_ledger.py",
    "tests/ledger/test_base.py",
    "tests/ledger/test_memory.py",
    "tests/ledger/test_transactional.py",
    "tests/providers/amd/test_provider.py",
    "tests/providers/nvidia/test_provider.py",
    "tests/tracking/test_run.py",
    "tests/tracking/test_writer.py",
}
"""Files of tests that still use them; the list may only become shorter."""


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


def names_given(tree: ast.AST) -> Iterator[str]:
    """Every name that a module gives; those of libraries are not its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def test_tests_give_no_empty_words_either() -> None:
    empty = {
        path.relative_to(ROOT).as_posix()
        for path in TESTS
        if not EMPTY_WORDS.isdisjoint(names_given(tree_of(path)))
    }
    assert empty == UNTIDY


def test_no_name_is_an_empty_word() -> None:
    empty = [
        f"{place(path)}:{line} {name}"
        for path in MODULES
        for line, name in names(tree_of(path))
        if name in EMPTY_WORDS
    ]
    assert empty == []
