"""How dense the code is: ``python -m tests.house_figures [FOLDER]`` prints it.

Figures that go up when code is compressed rather than made simpler: nodes of syntax on
a line, several assignments in one, long functions and files, and conditions, those
inside expressions counted.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.house import MODULES, against_the_order, module_circles, place, tree_of

Function = ast.FunctionDef | ast.AsyncFunctionDef

BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.Assert,
    ast.match_case,
)

LONG_FILE_LINES = 400


@dataclass(frozen=True, kw_only=True)
class FunctionFigures:
    """One function, those inside it included.

    Attributes:
        name: where it is, and what it is called.
        lines: from its ``def`` to its end.
        docstring_lines: how many of them are its docstring.
        nodes: nodes of its syntax tree.
        complexity: 1, and 1 for each way the code may go differently.
        condition_terms: terms of its longest ``if``, ``elif`` or ``while``.
    """

    name: str
    lines: int
    docstring_lines: int
    nodes: int
    complexity: int
    condition_terms: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A tree of Python files.

    Attributes:
        functions: every function there.
        file_lines: by file.
        tuple_assignments: assignments of one tuple literal to another.
    """

    functions: Sequence[FunctionFigures]
    file_lines: dict[Path, int]
    tuple_assignments: int

    @property
    def lines(self) -> int:
        return sum(self.file_lines.values())

    @property
    def nodes_per_line(self) -> float:
        """Nodes on a line of a function, docstrings left out."""
        nodes = sum(each.nodes for each in self.functions)
        lines = sum(each.lines - each.docstring_lines for each in self.functions)
        return nodes / lines

    @property
    def tuple_assignments_per_1000_lines(self) -> float:
        return 1000 * self.tuple_assignments / self.lines

    @property
    def median_function_lines(self) -> float:
        return statistics.median(each.lines for each in self.functions)

    def function_lines_at(self, share: float) -> int:
        """So many lines has a function that is longer than this share of all."""
        return quantile([each.lines for each in self.functions], share)

    @property
    def longest_function(self) -> FunctionFigures:
        return max(self.functions, key=lambda each: each.lines)

    def complexity_at(self, share: float) -> int:
        """So complex is a function that is more complex than this share of all."""
        return quantile([each.complexity for each in self.functions], share)

    @property
    def most_complex_function(self) -> FunctionFigures:
        return max(self.functions, key=lambda each: each.complexity)

    @property
    def longest_condition(self) -> FunctionFigures:
        return max(self.functions, key=lambda each: each.condition_terms)

    @property
    def long_files(self) -> list[Path]:
        sizes = self.file_lines.items()
        return sorted(path for path, lines in sizes if lines > LONG_FILE_LINES)


def quantile(values: Sequence[int], share: float) -> int:
    return sorted(values)[int(len(values) * share)]


def complexity(function: Function) -> int:
    """Ways through a function: conditions inside expressions count like statements."""
    ways = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            ways += 1
        elif isinstance(node, ast.BoolOp):
            ways += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            ways += 1 + len(node.ifs)
    return ways


def condition_terms(function: Function) -> int:
    """Terms of the longest condition of a statement: ``a and (b or c)`` has three."""
    tests = [
        node.test for node in ast.walk(function) if isinstance(node, ast.If | ast.While)
    ]
    return max(map(terms, tests), default=0)


def terms(condition: ast.expr) -> int:
    if isinstance(condition, ast.BoolOp):
        return sum(map(terms, condition.values))
    return 1


def docstring_lines(function: Function) -> int:
    first = function.body[0]
    if ast.get_docstring(function) is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


def node_count(function: Function) -> int:
    """Nodes of syntax; whether a name is read or written is not one of them."""
    nodes = ast.walk(function)
    return sum(not isinstance(node, ast.expr_context) for node in nodes)


def is_tuple_assignment(node: ast.AST) -> bool:
    """Whether several values are given several names at once: ``a, b = c, d``."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)


def function_figures(path: Path, tree: ast.Module) -> Iterator[FunctionFigures]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            assert node.end_lineno is not None
            yield FunctionFigures(
                name=f"{path}:{node.lineno} {node.name}",
                lines=node.end_lineno - node.lineno + 1,
                docstring_lines=docstring_lines(node),
                nodes=node_count(node),
                complexity=complexity(node),
                condition_terms=condition_terms(node),
            )


def measure(paths: Sequence[Path]) -> Figures:
    functions: list[FunctionFigures] = []
    file_lines = {}
    tuple_assignments = 0
    for path in paths:
        text = path.read_text()
        tree = tree_of(path)
        functions.extend(function_figures(path, tree))
        file_lines[path] = text.count("\n")
        tuple_assignments += sum(map(is_tuple_assignment, ast.walk(tree)))
    return Figures(
        functions=functions,
        file_lines=file_lines,
        tuple_assignments=tuple_assignments,
    )


def figures_by_room(paths: Sequence[Path]) -> dict[str, Figures]:
    """The figures of each room that has functions, the parts of the core apart."""
    rooms: dict[str, list[Path]] = {}
    for path in paths:
        parts = place(path).split("/")
        is_part_of_core = parts[0] == "core" and len(parts) > 2
        room = "/".join(parts[:2]) if is_part_of_core else parts[0]
        rooms.setdefault(room.removesuffix(".py"), []).append(path)
    measured = {room: measure(modules) for room, modules in sorted(rooms.items())}
    return {room: figures for room, figures in measured.items() if figures.functions}


def table(figures: Figures) -> str:
    longest = figures.longest_function
    most_complex = figures.most_complex_function
    wordiest = figures.longest_condition
    rows = [
        ("files", len(figures.file_lines)),
        ("lines", figures.lines),
        ("nodes per line", round(figures.nodes_per_line, 2)),
        (
            "tuple assignments per 1,000 lines",
            round(figures.tuple_assignments_per_1000_lines, 2),
        ),
        ("function lines, median", figures.median_function_lines),
        ("function lines, p90", figures.function_lines_at(0.9)),
        ("function lines, max", f"{longest.lines} ({longest.name})"),
        ("complexity, median", figures.complexity_at(0.5)),
        ("complexity, p99", figures.complexity_at(0.99)),
        ("complexity, max", f"{most_complex.complexity} ({most_complex.name})"),
        ("condition terms, max", f"{wordiest.condition_terms} ({wordiest.name})"),
        ("files over 400 lines", " ".join(map(str, figures.long_files)) or 0),
    ]
    return "\n".join(f"{name:36}{value}" for name, value in rows)


def main() -> None:
    if len(sys.argv) > 1:
        print(table(measure(sorted(Path(sys.argv[1]).rglob("*.py")))))
        return
    print(table(measure(MODULES)))
    for room, figures in figures_by_room(MODULES).items():
        name = f"nodes per line, {room}"
        print(f"{name:36}{figures.nodes_per_line:.2f}")
    wrong = [path for path in MODULES if against_the_order(path)]
    print(f"{'modules in circles':36}{len(module_circles())}")
    print(f"{'modules against the order':36}{len(wrong)}")


if __name__ == "__main__":
    main()
