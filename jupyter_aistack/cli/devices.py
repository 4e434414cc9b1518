"""Commands that take a device out of placement by hand, and back."""

from __future__ import annotations

import argparse

from jupyter_aistack.client.text import drain_text
from jupyter_aistack.exceptions import InvalidRequest

from .connection import connect
from .output import JSON, show
from .queues import read_moment


def drain(options: argparse.Namespace) -> int:
    """Grant nothing new on a device, until a time or until it is undrained."""
    from jupyter_aistack.client.durations import lease_seconds

    if options.until is not None and options.duration is not None:
        raise InvalidRequest("for: give either --until or --for", field="for")
    wish: JSON = {"device": options.device, "reason": options.reason}
    if options.until is not None:
        wish["until"] = read_moment(options.until, field="until")
    if options.duration is not None:
        wish["seconds"] = lease_seconds(options.duration, field="for")
    return _show(options, connect().call("drain", **wish))


def quarantine(options: argparse.Namespace) -> int:
    """Grant nothing new on a device until it is undrained."""
    wish = {"device": options.device, "reason": options.reason}
    return _show(options, connect().call("quarantine", **wish))


def undrain(options: argparse.Namespace) -> int:
    """Grant a device again."""
    return _show(options, connect().call("undrain", device=options.device))


def _show(options: argparse.Namespace, device: JSON) -> int:
    text = drain_text(device) or "may be granted again"
    show(options, device, [f"{device['name']} {device['index']}: {text}"])
    return 0
