"""Who can reach a cluster: nobody but its owner.

Whoever reaches a scheduler or a worker runs code as its owner, and a dashboard shows the
source of what runs. So all of them listen on loopback, connections are encrypted and
authenticated, and the pages lie below a path that cannot be guessed.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import dask
from distributed import Scheduler, Security
from distributed.http.routing import RoutingApplication
from distributed.utils import format_dashboard_link

from jupyter_aistack.exceptions import ClusterError, InvalidRequest

from .dask_options import DaskOptions

LOOPBACK = "127.0.0.1"
ENCRYPTED = "tls"
_LOADER = "distributed.client.security-loader"

_PLACES = ("host", "interface")
_EVERYWHERE = ("0.0.0.0", "[::]")
_OPEN = (
    "this cluster's connections are not encrypted: every user of this host can run code "
    "as you; leave out security=False"
)

_securities: dict[str, Security] = {}
"""By scheduler address, those of this process's clusters."""


def security_of(chosen: bool | Security | None) -> Security:
    """How connections are made: encrypted unless that is switched off.

    Raises:
        ClusterError: they cannot be encrypted, and nobody has said that they need not.
    """
    if isinstance(chosen, Security):
        return chosen
    if chosen is False:
        return Security()
    if find_spec("cryptography") is None:
        raise ClusterError(
            "security: connections cannot be encrypted without the package cryptography: "
            "pip install cryptography; security=False lets every user of this host run code as you"
        )
    return Security.temporary()


def _check_reach(security: Security, place: Mapping[str, Any]) -> None:
    """Refuse what is open to the network.

    Args:
        security: how connections are made.
        place: where something listens: ``host`` or ``interface``, or neither.

    Raises:
        InvalidRequest: neither encrypted nor on loopback.
    """
    is_local = place.get("interface") in (None, "lo")
    host = place.get("host") or LOOPBACK
    if security.require_encryption or (is_local and _is_loopback(host)):
        return
    raise InvalidRequest(
        "security: a cluster that other hosts can reach needs encryption: "
        "leave out security=False, or host and interface",
        field="security",
    )


def _is_loopback(host: str) -> bool:
    name = host.rpartition("://")[2].strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class PrivateScheduler(Scheduler):
    """A scheduler whose pages, the dashboard among them, are found only by who was told
    the path.

    Dask's own prefix keeps nothing secret: ``/`` leads to it, and ``/sitemap.json``
    lists all below it.
    """

    def __init__(self, *args: Any, http_prefix: str, **options: Any) -> None:
        self._secret_path = http_prefix.strip("/")
        super().__init__(*args, http_prefix=http_prefix, **options)

    def start_http_server(self, *args: Any, **options: Any) -> None:
        """Start to serve the pages below the path, and nothing beside it."""
        super().start_http_server(*args, **options)
        self.http_server.request_callback = SecretRoutes(
            self._secret_path, self.http_application
        )

    def identity(self, *args: Any, **options: Any) -> dict[str, Any]:
        """What it tells those who can reach it, which may see the dashboard too."""
        identity: dict[str, Any] = super().identity(*args, **options)
        services = identity["services"]
        # In the place of the port: so each link that Dask makes has the path.
        services["dashboard"] = f"{services['dashboard']}/{self._secret_path}"
        return identity


class SecretRoutes(RoutingApplication):
    """The pages of another application, for requests whose path begins with a secret;
    404 for all others.
    """

    def __init__(self, secret: str, application: RoutingApplication) -> None:
        super().__init__()
        self._secret = secret.encode()
        self._application = application

    def find_handler(self, request: Any, **options: Any) -> Any:
        """What answers a request; None is tornado's word for 404."""
        given = request.path.strip("/").encode()[: len(self._secret)]
        if not hmac.compare_digest(given, self._secret):
            return None
        return self._application.find_handler(request, **options)


def scheduler_spec(security: Security, options: DaskOptions) -> dict[str, Any]:
    """What Dask makes the scheduler from: its class and arguments.

    Args:
        security: how connections are made.
        options: of the cluster, all of them.

    Raises:
        InvalidRequest: other hosts could reach it, and it is not encrypted.
    """
    host = options["host"]
    interface = options["interface"]
    _check_reach(security, {**options})
    if not security.require_encryption:
        warnings.warn(_OPEN, stacklevel=3)
    default = ENCRYPTED if security.require_encryption else "tcp"
    protocol = (options["protocol"] or default).removesuffix("://")
    dashboard = options["dashboard_address"]
    own = {
        "protocol": f"{protocol}://",
        "host": host if host or interface else LOOPBACK,
        "interface": interface,
        "port": options["scheduler_port"],
        "dashboard": dashboard is not None and find_spec("bokeh") is not None,
        # Without one too: health and metrics are served in any case.
        "dashboard_address": _http_address(dashboard or ":0"),
        "http_prefix": f"/{secrets.token_urlsafe(16)}",
        "security": security,
        "blocked_handlers": options["blocked_handlers"],
    }
    further = options["scheduler_kwargs"] or {}
    return {"cls": PrivateScheduler, "options": {**own, **further}}


def nanny_places(
    security: Security, scheduler: Mapping[str, Any], nanny: Mapping[str, Any]
) -> dict[str, Any]:
    """The user's own arguments of nannies, and where they and their workers listen:
    where the scheduler does, unless those say otherwise.

    Args:
        security: how connections are made.
        scheduler: the arguments of :func:`scheduler_spec`.
        nanny: the user's own.

    Raises:
        InvalidRequest: other hosts could reach them, and they are not encrypted.
    """
    if nanny.keys().isdisjoint(_PLACES):
        nanny = {**{name: scheduler[name] for name in _PLACES}, **nanny}
    _check_reach(security, nanny)
    return {"protocol": scheduler["protocol"], **nanny}


def _http_address(address: str) -> str:
    """With a host: Dask takes an address without one for all interfaces."""
    host, _, port = address.rpartition(":")
    return f"{host or LOOPBACK}:{port}"


def dashboard_link(
    address: str, services: Mapping[str, Any], options: Mapping[str, Any]
) -> str:
    """Address of the dashboard; empty where there is none.

    Args:
        address: the scheduler's.
        services: the scheduler's services by name, as it tells them.
        options: the arguments of :func:`scheduler_spec`.
    """
    if not options["dashboard"] or "dashboard" not in services:
        return ""
    host = options["dashboard_address"].rpartition(":")[0]
    if host in _EVERYWHERE:
        host = address.rpartition("://")[2].rpartition(":")[0]
    link: str = format_dashboard_link(host, services["dashboard"])
    return link


# -- clients that are given an address only --------------------------------------------


def share_security(address: str, security: Security) -> None:
    """Let clients of this process connect to a scheduler by its address alone."""
    _securities[address] = security
    # A user's own loader stays.
    if not dask.config.get(_LOADER, default=None):
        dask.config.set({_LOADER: f"{__name__}.{load_security.__name__}"})


def forget_security(address: str) -> None:
    """The scheduler has ended."""
    _securities.pop(address, None)


def load_security(client: Mapping[str, Any]) -> Security | None:
    """What Dask calls for a client without security of its own.

    Args:
        client: what is known of it: the ``address`` it connects to.

    Raises:
        ClusterError: the address asks for certificates, and there are none.
    """
    address = str(client["address"])
    known = _securities.get(address)
    has_own = bool(Security().get_tls_config_for_role("client")["ca_file"])
    if known is not None or has_own or not address.startswith(f"{ENCRYPTED}://"):
        return known
    raise ClusterError(
        f"{address} takes no client without its cluster's certificates: Client(cluster), "
        "or Client(address, security=cluster.security)"
    )
