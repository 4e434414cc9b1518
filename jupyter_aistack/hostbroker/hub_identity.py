"""Who shows a token of JupyterHub, as the hub itself answers.

A server that shares its Unix user with others proves by its token whose it is. The hub
is asked what the token stands for, and its answer is believed for half a minute, so that
a token that is revoked there is refused here soon. While the hub does not answer, tokens
that it has vouched for go on for five minutes.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from jupyter_aistack.core.model.printable import printable
from jupyter_aistack.exceptions import InvalidRequest, PermissionDenied

RECHECK_SECONDS = 30.0
"""How long an answer of the hub is believed."""
TRUST_SECONDS = 300.0
"""How long after its last answer a token is still good while the hub does not answer."""
RETRY_SECONDS = 5.0
"""How long a hub that did not answer is left alone."""
HUB_SECONDS = 3.0
"""How long the hub is waited for."""
MAX_KNOWN = 10_000
"""Tokens that are remembered; the one that was shown longest ago goes first."""
MAX_NAME = 512
MAX_ANSWER_BYTES = 2**20
REFUSED = frozenset({401, 403})
"""What the hub answers to a token that it does not know, or knows no more."""
ADMIN_SCOPE = "custom:aistack:admin"
"""Who has it at the hub is an admin here."""
SCOPE_PREFIX = "custom:aistack:"
SERVICE_PREFIX = "service:"


@dataclass(frozen=True, kw_only=True)
class HubUser:
    """Whom a token stands for.

    Attributes:
        name: the name at the hub; that of a service begins with ``service:``.
        groups: the groups at the hub, and the custom scopes of the token that are ours,
            which settings may name like groups.
        is_admin: the token has the scope of admins.
    """

    name: str
    groups: frozenset[str] = frozenset()
    is_admin: bool = False


class HubSilent(Exception):
    """The hub does not answer, or nothing that can be understood."""


AskHub = Callable[[str], HubUser | None]
"""Whom a token stands for at the hub; None where it knows no such token. Raises
`HubSilent`.
"""


@dataclass
class _Known:
    """What is remembered of a token."""

    user: HubUser | None = None
    asked_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class HubIdentities:
    """Checks tokens at the hub. May be used by several threads at once.

    Args:
        ask: asks the hub.
        clock: seconds that only go on.
    """

    def __init__(
        self, ask: AskHub, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._lock = threading.Lock()
        self._silent_since: float | None = None
        self._silent_at = 0.0
        self._silence = ""

    def __len__(self) -> int:
        """How many tokens are remembered."""
        return len(self._known)

    def known(self, token: str) -> HubUser | None:
        """Whom a token stands for, if the hub has said so a moment ago; at once."""
        known = self._entry(token)
        return known.user if self._is_fresh(known) else None

    def user_of(self, token: str) -> HubUser:
        """Whom a token stands for. It may take seconds where the hub is asked.

        Raises:
            PermissionDenied: the hub does not know the token, or does not answer and
                has not vouched for it lately.
        """
        known = self._entry(token)
        with known.lock:
            if not self._is_fresh(known):
                self._ask_again(token, known)
            if known.user is None:
                raise PermissionDenied(
                    "the hub does not know the token that was shown; "
                    "start your server again from the hub"
                )
            return known.user

    def _entry(self, token: str) -> _Known:
        # Tokens themselves are not kept: a dump of this process must not show them.
        key = hashlib.sha256(token.encode()).digest()
        with self._lock:
            known = self._known.setdefault(key, _Known())
            self._known.move_to_end(key)
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return known

    def _is_fresh(self, known: _Known) -> bool:
        asked_at = known.asked_at
        return asked_at is not None and self._clock() - asked_at < RECHECK_SECONDS

    def _ask_again(self, token: str, known: _Known) -> None:
        """Ask the hub about a token, unless it was silent a moment ago."""
        now = self._clock()
        if self._silent_since is None or now - self._silent_at >= RETRY_SECONDS:
            try:
                user = self._ask(token)
            except HubSilent as error:
                self._note_silence(str(error))
            else:
                self._silent_since = None
                known.user = user
                known.asked_at = self._clock()
                return
        self._check_trust(known)

    def _note_silence(self, why: str) -> None:
        self._silent_at = self._clock()
        self._silence = why
        if self._silent_since is None:
            self._silent_since = self._silent_at

    def _check_trust(self, known: _Known) -> None:
        """While the hub is silent, go by its last answer if that is not too old."""
        asked_at = known.asked_at
        is_vouched = asked_at is not None and self._clock() - asked_at < TRUST_SECONDS
        if not is_vouched:
            raise PermissionDenied(
                f"the hub does not answer ({self._silence}), and has not vouched for "
                f"your token in the last {TRUST_SECONDS / 60:.0f} min; try again when "
                "it is back"
            )


class _NoRedirect(HTTPRedirectHandler):
    """The token is for the hub, and for nobody it names."""

    def redirect_request(self, *_: Any) -> None:
        return None


# Neither a proxy that the environment names: the hub is near, and tokens are secrets.
_OPENER = build_opener(ProxyHandler({}), _NoRedirect())


def asking(api_url: str) -> AskHub:
    """Asks the hub whose API is there, such as ``http://127.0.0.1:8081/hub/api``.

    Raises:
        InvalidRequest: that is no address.
    """
    parts = urlsplit(api_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidRequest(
            "hub_url: expected the address of the hub's API, such as "
            f"http://127.0.0.1:8081/hub/api, got {api_url!r}",
            field="hub_url",
        )
    address = f"{api_url.rstrip('/')}/user"

    def ask(token: str) -> HubUser | None:
        # A line break in a header would begin another.
        if not (token.isascii() and token.isprintable()):
            return None
        headers = {"Authorization": f"token {token}", "Accept": "application/json"}
        try:
            with _OPENER.open(Request(address, headers=headers), None, HUB_SECONDS) as (
                response
            ):
                return read_user(json.loads(response.read(MAX_ANSWER_BYTES)))
        except HTTPError as error:
            if error.code in REFUSED:
                return None
            raise HubSilent(f"{address} answers {error.code}") from error
        except (OSError, ValueError) as error:
            raise HubSilent(f"{address}: {getattr(error, 'reason', error)}") from error

    return ask


def read_user(model: Any) -> HubUser:
    """What the hub says of the owner of a token.

    Raises:
        HubSilent: it is not what a hub says.
    """
    name = model.get("name") if isinstance(model, Mapping) else None
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise HubSilent("what it says of the token names nobody")
    is_service = model.get("kind") == "service"
    scopes = _texts(model.get("scopes"))
    own_scopes = {scope for scope in scopes if scope.startswith(SCOPE_PREFIX)}
    return HubUser(
        name=printable(f"{SERVICE_PREFIX if is_service else ''}{name}"),
        groups=frozenset(_texts(model.get("groups")) | own_scopes),
        is_admin=ADMIN_SCOPE in own_scopes,
    )


def _texts(value: object) -> set[str]:
    members = value if isinstance(value, list) else []
    return {member for member in members if isinstance(member, str)}
