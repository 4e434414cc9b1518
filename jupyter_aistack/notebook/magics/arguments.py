"""The words after ``%gpu`` and ``%cluster``: parsing, help, completion. A mistake is an
`InvalidRequest`, no exit.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from jupyter_aistack.exceptions import InvalidRequest

SPEC_HELP = "1/4 or 0.25 (share), 20GiB (memory), 2 (whole devices), 1/2x2, 1g.18gb (MIG profile), cpu:2, gpu:1/4"


UP_TO_HELP = "share of each device that it may use while nobody else needs it, e.g. 1/1 (what is granted)"


MAX_WORKERS = 1024


class HelpRequested(Exception):
    """The user asked for help; the text is the argument."""


class Parser(argparse.ArgumentParser):
    """A parser for a line in a notebook: it raises where others leave the process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **options,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument(
            "-h", "--help", action=_Help, nargs=0, help="show this and do nothing"
        )

    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(
            f"{self.prog}: {message}; see {self.prog} --help", field="arguments"
        )

    def parse(self, line: str) -> argparse.Namespace:
        """The arguments in `line`.

        Raises:
            InvalidRequest: they cannot be understood.
            HelpRequested: ``--help`` is among them.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            self.error(str(error).lower())
        return self.parse_args(words)

    def words(self) -> dict[str, Parser]:
        """The subcommands."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}

    def options(self) -> list[str]:
        """The long options."""
        return [
            text
            for action in self._actions
            for text in action.option_strings
            if text.startswith("--")
        ]

    def takes_spec(self) -> bool:
        """Whether a SPEC is among the arguments without a name."""
        return any(
            action.metavar == "SPEC" and not action.option_strings
            for action in self._actions
        )


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise HelpRequested(parser.format_help())


_GPU_VERBS = {
    "status": "what this kernel holds, what enforces it, how much is used, how long it lasts",
    "request": "ask for a slice, and give it to this kernel",
    "release": "give the slice back, or leave the queue",
    "queue": "who waits for what, why, and until when",
    "extend": "move the end of a lease that has an end, and keep a lease that is idle",
    "usage": "what is in use now, and what it has cost so far, cell by cell",
    "advise": "which size would have done, judged by what this notebook has used",
    "suspend": "move this kernel's GPU memory to host memory, so that others may have the capacity",
    "resume": "move it back once there is capacity; the next cell that needs it does so by itself",
    "pin": "keep it on the GPU even if others need the capacity",
    "unpin": "let it be suspended again while this kernel is idle",
}
"""The subcommands of ``%gpu``, each with its help, in the order of the help."""


def gpu_parser() -> Parser:
    """The parser of ``%gpu``."""
    parser = Parser(
        prog="%gpu",
        description="Lease a slice of this machine for this kernel. Alone: what it holds now.",
    )
    _json(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", parser_class=Parser)
    parsers = {name: _verb(verbs, name, text) for name, text in _GPU_VERBS.items()}

    request = parsers["request"]
    add_request_options(request)
    request.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="wait in the queue until granted (default)",
    )
    parsers["extend"].add_argument(
        "duration",
        nargs="?",
        default="1h",
        metavar="TIME",
        help="how much longer: 30m, 2h, 1h30m (1h)",
    )
    parsers["usage"].add_argument(
        "--week",
        action="store_true",
        help="what this notebook has used in the last seven days",
    )
    return parser


def cell_parser() -> Parser:
    """The parser of ``%%gpu``."""
    parser = Parser(
        prog="%%gpu",
        description="Run this cell on a slice of its own, and release it afterwards.",
    )
    add_request_options(parser)
    return parser


def cluster_parser() -> Parser:
    """The parser of ``%cluster``."""
    parser = Parser(
        prog="%cluster",
        description="A Dask cluster, each worker on a slice of its own.",
    )
    _json(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", parser_class=Parser)
    up = _verb(verbs, "up", "start workers; they are `cluster` and `client` afterwards")
    up.add_argument(
        "workers",
        nargs="?",
        type=_count,
        default=2,
        metavar="N",
        help="how many workers (2)",
    )
    up.add_argument(
        "--slice",
        default="1/4",
        metavar="SPEC",
        help=f"what each gets (1/4): {SPEC_HELP}",
    )
    _waiting(up)
    scale = _verb(verbs, "scale", "change the number of workers")
    scale.add_argument(
        "workers", type=_count, metavar="N", help="how many there should be"
    )
    _verb(verbs, "down", "stop the workers and release their slices")
    _verb(verbs, "status", "the workers and their slices")
    return parser


def add_request_options(parser: Parser) -> None:
    """SPEC and how to wait for it."""
    parser.add_argument("spec", metavar="SPEC", help=SPEC_HELP)
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        help="how long it is wanted, e.g. 2h (until released)",
    )
    parser.add_argument(
        "--preemptible",
        action="store_true",
        help="may be ended when others need the capacity",
    )
    parser.add_argument("--up-to", default="", metavar="SHARE", help=UP_TO_HELP)
    _waiting(parser)


def _waiting(parser: Parser) -> None:
    parser.add_argument(
        "--queue", default="", metavar="NAME", help="where to wait (your own)"
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        help="how long to wait at most, e.g. 5min (for ever)",
    )


def _verb(verbs: Any, name: str, summary: str) -> Parser:
    parser: Parser = verbs.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    _json(parser)
    return parser


def _json(parser: Parser) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print the answer as JSON",
    )


def _count(text: str) -> int:
    is_number = text.isascii() and text.isdigit()
    if not is_number or int(text) > MAX_WORKERS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of workers; use 0 to {MAX_WORKERS}"
        )
    return int(text)


_SPECS = ("1/4", "1/2", "1", "1/8", "20GiB", "gpu:1/4", "cpu:1", "cpu:2")


def suggestions(
    parser: Parser, words: Sequence[str], host_specs: Iterable[str] = ()
) -> list[str]:
    """What may follow `words`, the complete words already on the line: subcommands,
    options, SPECs.
    """
    verbs = parser.words()
    if verbs and not words:
        return [*verbs, *parser.options()]
    if verbs:
        if words[0] not in verbs:
            return []
        parser = verbs[words[0]]
        words = words[1:]

    specs = [*host_specs, *_SPECS]
    if words and words[-1] == "--slice":
        return specs
    has_spec = any(not word.startswith("-") for word in words)
    possible = specs if parser.takes_spec() and not has_spec else []
    return [*possible, *(name for name in parser.options() if name not in words)]
