"""What the magics share: a line is parsed, one verb of it is run, its answer is shown."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jupyter_aistack.exceptions import AIStackError

from .arguments import HelpRequested, Parser

if TYPE_CHECKING:
    from jupyter_aistack.client.client import Client

JSON = dict[str, Any]
Connect = Callable[[], "Client"]
"""Gives the client that a magic speaks to; called at each use, for it may connect."""

Answer = tuple[JSON, Any]
"""What ``--json`` prints, and what is shown otherwise."""

Verbs = Mapping[str, Callable[[Namespace], Answer]]
"""The subcommands of a magic, by name; ``status`` is the subcommand without a name."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Let our errors fail the cell, showing their sentence instead of a traceback."""
    try:
        yield
    except (AIStackError, KeyboardInterrupt) as error:
        line = f"{type(error).__name__}: {getattr(error, 'message', 'stopped')}"
        # IPython asks the instance for it.
        error._render_traceback_ = lambda: [line]  # type: ignore[union-attr]
        raise error.with_traceback(None) from None


def parse(parser: Parser, line: str) -> Namespace | None:
    """The arguments of a line; None where its help was asked for and printed.

    Raises:
        InvalidRequest: the line cannot be understood.
    """
    try:
        return parser.parse(line)
    except HelpRequested as help_requested:
        print(help_requested)
        return None


def run_verb(parser: Parser, line: str, verbs: Verbs) -> Any:
    """Run the verb that a line names; what IPython is to show of it."""
    with one_line_errors():
        arguments = parse(parser, line)
        if arguments is None:
            return None
        answer, shown = verbs[arguments.verb or "status"](arguments)

    if getattr(arguments, "json", False):
        print(json.dumps(answer, default=str))
        return None
    return shown
