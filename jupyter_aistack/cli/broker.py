"""``jupyter aistack broker``: the broker of a host as a service of its own."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.exceptions import AIStackError, InvalidRequest
from jupyter_aistack.system.broker_path import DEFAULT_PATH
from jupyter_aistack.system.permissions import closed_to_others
from jupyter_aistack.system.standard_streams import tell

from .output import JSON, show

if TYPE_CHECKING:
    from jupyter_aistack.hostbroker.installation import PlacedFile

    Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EXIT_REFUSED = 1
"""The broker cannot begin, or its file is wrong."""


def add_commands(verbs: Verbs) -> None:
    """The command, and those below it."""
    text = "Run the broker of this host for all of its users."
    parser = verbs.add_parser("broker", help=text, description=text)
    _set(parser, serve)
    _add_json(parser, default=False)
    _add_paths(parser)
    kinds = parser.add_subparsers(title="what else to do", metavar="WHAT")
    text = "Check the administrator's file, and name the line that is wrong."
    checked = kinds.add_parser("check", help=text, description=text)
    _set(checked, check)
    _add_json(checked, default=argparse.SUPPRESS)
    _add_config(checked, default=argparse.SUPPRESS)
    text = "Make it a service of systemd; shows each file before it is written."
    installed = kinds.add_parser("install", help=text, description=text)
    _set(installed, install)
    _add_place(installed)
    text = "Take the files of the service away that install has written."
    uninstalled = kinds.add_parser("uninstall", help=text, description=text)
    _set(uninstalled, uninstall)
    _add_place(uninstalled)


def _set(parser: argparse.ArgumentParser, run: Callable[..., int]) -> None:
    parser.set_defaults(run=run)


def _add_json(parser: argparse.ArgumentParser, *, default: object) -> None:
    """Below another command the default is `SUPPRESS`: argparse would write it over
    what was given before the command's name.
    """
    parser.add_argument(
        "--json",
        action="store_true",
        default=default,
        help="print one JSON object as the last line",
    )


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="where it listens (/run/aistack/broker.sock)",
    )
    _add_config(parser, default=None)
    parser.add_argument(
        "--ledger",
        default="",
        metavar="URL",
        help="where leases are written down (/var/lib/aistack/ledger.sqlite)",
    )


def _add_config(parser: argparse.ArgumentParser, *, default: object) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=default,
        metavar="FILE",
        help="the administrator's settings (/etc/jupyter/aistack_config.py)",
    )


def _add_place(parser: argparse.ArgumentParser) -> None:
    _add_json(parser, default=argparse.SUPPRESS)
    parser.add_argument(
        "--user", default="root", metavar="LOGIN", help="as whom it runs (root)"
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="another root folder, for a package or an image",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done, and do nothing"
    )


def serve(options: argparse.Namespace) -> int:
    """Run until a signal comes; 1 where it cannot begin."""
    from jupyter_aistack.hostbroker.daemon import DaemonOptions, HostBroker

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s"
    )
    try:
        HostBroker(
            DaemonOptions(
                socket=options.socket or Path(DEFAULT_PATH),
                config=options.config,
                ledger_url=options.ledger,
            )
        ).run()
    except AIStackError as error:
        tell(f"jupyter aistack broker: {printable(error.message)}")
        return EXIT_REFUSED
    return 0


def _check_unused(options: argparse.Namespace, *names: str) -> None:
    """Refuse what was given before a command that does nothing with it.

    Raises:
        InvalidRequest: naming it.
    """
    for name in names:
        if getattr(options, name):
            raise InvalidRequest(
                f"{name}: --{name} is for the broker itself and changes nothing here; "
                "leave it out",
                field=name,
            )


def check(options: argparse.Namespace) -> int:
    """Whether the administrator's file can be used; 1 where it cannot."""
    from jupyter_aistack.hostbroker.admin_file import AdminFile

    _check_unused(options, "socket", "ledger")
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


def install(options: argparse.Namespace) -> int:
    """Write the files of the service; 1 where one is there already and differs."""
    from jupyter_aistack.hostbroker import installation

    _check_unused(options, "socket", "config", "ledger")
    try:
        files = _files(options)
        if not options.json:
            for each in files:
                show(options, {}, _file_lines(each))
        installation.check_may_install(files)
        written = () if options.dry_run else installation.install(files)
    except AIStackError as error:
        return _refuse(options, error)
    report = {
        "files": [_file_report(each) for each in files],
        "written": list(map(str, written)),
    }
    show(options, report, _next_steps(options, written))
    return 0


def uninstall(options: argparse.Namespace) -> int:
    """Take the files of the service away; 1 where one was changed and stays."""
    from jupyter_aistack.hostbroker import installation

    _check_unused(options, "socket", "config", "ledger")
    try:
        files = _files(options)
        ours = tuple(each.file.path for each in files if each.is_ours)
        removed = ours if options.dry_run else installation.uninstall(files)
    except AIStackError as error:
        return _refuse(options, error)
    kept = [each.file for each in files if each.state is installation.FileState.DIFFERS]
    report = {
        "removed": list(map(str, removed)),
        "kept": [str(file.path) for file in kept],
    }
    verb = "would be removed" if options.dry_run else "removed"
    lines = [f"{path}: {verb}" for path in removed]
    show(
        options, report, [*lines, *(f"{f.path}: was changed, and stays" for f in kept)]
    )
    return EXIT_REFUSED if any(not file.is_example for file in kept) else 0


def _refuse(options: argparse.Namespace, error: AIStackError) -> int:
    show(options, {"problem": error.message}, [])
    tell(f"jupyter aistack broker: {printable(error.message)}")
    return EXIT_REFUSED


def _files(options: argparse.Namespace) -> tuple[PlacedFile, ...]:
    """The files of the service, and what is at their places."""
    from jupyter_aistack.hostbroker import installation
    from jupyter_aistack.hostbroker.service_units import service_files

    files = service_files(sys.executable, options.user)
    return installation.placed(installation.below(options.root, files))


def _file_lines(placed: PlacedFile) -> Iterable[str]:
    """A file and its content, for people."""
    words = {
        "missing": "new",
        "same": "there already",
        "outdated": "there already, as it was installed otherwise; is replaced",
        "differs": "there already, with other content",
    }
    yield f"# {placed.file.path} ({words[placed.state.value]})"
    yield from placed.file.content.splitlines()
    yield ""


def _file_report(placed: PlacedFile) -> JSON:
    return {
        "path": str(placed.file.path),
        "state": placed.state.value,
        "content": placed.file.content,
    }


def _next_steps(options: argparse.Namespace, written: Iterable[Path]) -> Iterable[str]:
    closed = closed_to_others(Path(sys.executable))
    if closed is not None:
        yield (
            f"{sys.executable} is of no use to other users, and their kernels will not "
            f"start: {closed} is closed to them; make the environment, and the Python "
            "that it is made with, where everybody can run them"
        )
    if options.dry_run:
        yield "nothing was written"
        return
    for path in written:
        yield f"{path}: written"
    yield "start it with:"
    yield "  systemd-tmpfiles --create aistack.conf"
    yield "  systemctl daemon-reload"
    yield "  systemctl enable --now aistack-broker.socket aistack-broker.service"
