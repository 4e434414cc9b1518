"""Which broker a process uses, as its settings say: the host's, or one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_aistack.system.broker_path import broker_path
from jupyter_aistack.system.broker_socket import BrokerSocket

from .settings import AIStack

if TYPE_CHECKING:
    from jupyter_aistack.broker.remote.port import KernelBroker


def find_host_broker(settings: AIStack) -> BrokerSocket | None:
    """The connection to the host's broker; None where this process is to have a broker
    of its own. Nothing is connected yet.

    Raises:
        PermissionDenied: another user could have put its socket there.
        InvalidRequest: the setting is no path of a socket.
    """
    path = broker_path(settings.broker_socket)
    return BrokerSocket(path) if path else None


def build_kernel_broker(settings: AIStack) -> KernelBroker:
    """What kernels without a Jupyter server are launched through: the host's broker, or
    one of this process. Raises as `find_host_broker` and `AIStack.build_broker` do.
    """
    from jupyter_aistack.broker.remote.embedded import EmbeddedBroker
    from jupyter_aistack.broker.remote.remote import RemoteBroker

    host_broker = find_host_broker(settings)
    if host_broker is not None:
        return RemoteBroker(host_broker)
    return EmbeddedBroker(settings.build_broker())
