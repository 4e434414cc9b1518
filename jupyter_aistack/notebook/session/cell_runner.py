"""Running the body of ``%%gpu`` as IPython runs a cell, top-level ``await``
included.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import CodeType
from typing import Any

Shell = Any
"""IPython's ``InteractiveShell``, of which only parts are typed."""


def compile_cell(shell: Shell, cell: str) -> list[CodeType]:
    """A cell's code, its last expression apart, for that is its value. Raises
    `SyntaxError` as Python does.
    """
    text = shell.transform_cell(cell)
    name = shell.compile.cache(text, shell.execution_count, raw_code=cell)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if shell.autoawait else 0
    with shell.compile.extra_flags(flags):
        tree = shell.transform_ast(shell.compile.ast_parse(text, filename=name))
        last = (
            tree.body.pop()
            if tree.body and isinstance(tree.body[-1], ast.Expr)
            else None
        )
        codes = [shell.compile(tree, name, "exec")]
        if last is not None:
            codes.append(shell.compile(ast.Expression(last.value), name, "eval"))
    return codes


def ends_in_semicolon(cell: str) -> bool:
    """Whether a cell asks for its value not to be shown, as IPython reads it."""
    from IPython.core.displayhook import DisplayHook

    is_silenced: Any = DisplayHook.semicolon_at_end_of_expression
    return bool(is_silenced(cell))


def needs_await(codes: Sequence[CodeType]) -> bool:
    """Whether a part awaits."""
    return any(code.co_flags & inspect.CO_COROUTINE for code in codes)


def run(codes: Sequence[CodeType], shell: Shell) -> Any:
    """Run the parts in the notebook's namespace; the value of the last part."""
    value = None
    for code in codes:
        value = eval(code, shell.user_global_ns, shell.user_ns)
    return value


async def run_awaiting(
    codes: Sequence[CodeType],
    shell: Shell,
    lease: Callable[[], AbstractContextManager[Any]],
    *,
    is_shown: bool = True,
) -> Any:
    """The same for parts that await, while `lease` is held; it is asked for when this
    is awaited and not before.
    """
    value = None
    with lease():
        for code in codes:
            value = eval(code, shell.user_global_ns, shell.user_ns)
            if code.co_flags & inspect.CO_COROUTINE:
                value = await value
    return value if is_shown else None


class AwaitedCells:
    """An input transformer: where the body of ``%%gpu`` awaits, the call of the magic
    is awaited.

    IPython then runs the whole cell on the kernel's event loop, as it runs any other
    cell that awaits.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def __call__(self, lines: list[str]) -> list[str]:
        body = _body("".join(lines))
        if body is None or not self._awaits(body):
            return lines
        return [f"await {lines[0]}", *lines[1:]]

    def _awaits(self, body: str) -> bool:
        shell = self._shell
        return bool(
            shell.should_run_async(body, transformed_cell=shell.transform_cell(body))
        )


def _body(text: str) -> str | None:
    """The body of ``%%gpu``, where a transformed cell is nothing else; None for any
    other cell.
    """
    if not text.startswith("get_ipython().run_cell_magic('gpu'"):
        return None
    match ast.parse(text).body:
        case [ast.Expr(ast.Call(args=[_, _, ast.Constant(str(body))]))]:
            return body
    return None
