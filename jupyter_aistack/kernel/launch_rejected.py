"""The error by which a launch is turned down."""

from __future__ import annotations

from tornado.web import HTTPError


class LaunchRejected(HTTPError):
    """A launch we turn down. Whichever way a server passes it on, users read the
    sentence and nothing else.

    ``POST /api/kernels`` answers with status and message, ``POST /api/sessions`` with
    ``str()``.
    """

    def __init__(self, message: str) -> None:
        super().__init__(503, message, reason="Slice refused")
        self.message = message

    def __str__(self) -> str:
        return self.message
