"""``jupyter aistack broker``: the broker of a host as a service of its own."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.exceptions import AIStackError
from jupyter_aistack.system.standard_streams import tell

from .output import show

if TYPE_CHECKING:
    Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EXIT_REFUSED = 1
"""The broker cannot begin, or its file is wrong."""


def add_commands(verbs: Verbs) -> None:
    """The command, and those below it."""
    text = "Run the broker of this host for all of its users."
    parser = verbs.add_parser("broker", help=text, description=text)
    _set(parser, serve)
    _add_paths(parser)
    kinds = parser.add_subparsers(title="what else to do", metavar="WHAT")
    text = "Check the administrator's file, and name the line that is wrong."
    checked = kinds.add_parser("check", help=text, description=text)
    _set(checked, check)
    _add_config(checked)


def _set(parser: argparse.ArgumentParser, run: Callable[..., int]) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )
    parser.set_defaults(run=run)


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="where it listens (/run/aistack/broker.sock)",
    )
    _add_config(parser)
    parser.add_argument(
        "--ledger",
        default="",
        metavar="URL",
        help="where leases are written down (/var/lib/aistack/ledger.sqlite)",
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the administrator's settings (/etc/jupyter/aistack_config.py)",
    )


def serve(options: argparse.Namespace) -> int:
    """Run until a signal comes; 1 where it cannot begin."""
    from jupyter_aistack.hostbroker.daemon import DaemonOptions, HostBroker
    from jupyter_aistack.hostbroker.listening import DEFAULT_PATH

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s"
    )
    try:
        HostBroker(
            DaemonOptions(
                socket=options.socket or DEFAULT_PATH,
                config=options.config,
                ledger_url=options.ledger,
            )
        ).run()
    except AIStackError as error:
        tell(f"jupyter aistack broker: {printable(error.message)}")
        return EXIT_REFUSED
    return 0


def check(options: argparse.Namespace) -> int:
    """Whether the administrator's file can be used; 1 where it cannot."""
    from jupyter_aistack.hostbroker.admin_file import AdminFile

    file = AdminFile(options.config)
    try:
        file.load()
    except AIStackError as error:
        show(options, {"file": str(file.path), "problem": error.message}, [])
        tell(f"jupyter aistack broker: {printable(error.message)}")
        return EXIT_REFUSED
    exists = file.mark() is not None
    fine = f"{file.path}: no mistakes found"
    missing = f"{file.path}: there is no such file; all settings are the defaults"
    report = {"file": str(file.path), "problem": ""}
    show(options, report, [fine if exists else missing])
    return 0
