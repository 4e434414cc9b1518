"""How kernels are launched with a slice, by a kernelspec or for all kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Float, List, TraitError, Unicode

from jupyter_aistack.core.model.ceiling import parse_ceiling
from jupyter_aistack.core.model.spec import parse_spec

from .environment import SECRETS

_SETTINGS = {
    "slice": 'text such as "1/4", "20GiB" or "cpu:2"',
    "up_to": 'text such as "1/1"',
    "queue": "the name of a queue",
    "wait_seconds": "a number of seconds, 0 or more",
    "grace_seconds": "a number of seconds, 0 or more",
    "drop_environment": "a list of names of environment variables",
}


class SliceSettings(LocalProvisioner):
    """The settings of a provisioner that launches kernels with a slice.

    They come from ``metadata.kernel_provisioner.config`` of the kernelspec, or from
    ``c.SliceProvisioner`` for all.
    """

    slice = Unicode(
        "",
        help="""What a kernel leases at launch: ``1/4``, ``20GiB``, ``2``, ``1g.18gb``, ``cpu:2``, ``gpu:1/4``. Empty,
        the default, is nothing until the notebook asks.""",
    ).tag(config=True)

    up_to = Unicode(
        "",
        help="""The share of each device that ``slice`` may use while nobody else needs it, such as ``1/1``. Empty, the
        default, is what was granted.""",
    ).tag(config=True)

    queue = Unicode(
        "",
        help="The queue its request is charged to; empty, the default, for the user's own.",
    ).tag(config=True)

    wait_seconds = Float(
        2.0,
        help="""Seconds a launch waits for a slice to come free. After that the kernel starts without a device and stays
        in the queue; the slice is attached once it is granted.""",
    ).tag(config=True)

    grace_seconds = Float(
        30.0,
        help="Seconds a dead kernel keeps its slice for being started again. Default 30, at least 0.",
    ).tag(config=True)

    drop_environment = List(
        Unicode(),
        default_value=list(SECRETS),
        help="""Environment variables of the server that kernels do not get, because whatever runs in a notebook could
        read them. The default is the tokens of Jupyter and JupyterHub; take JUPYTERHUB_API_TOKEN off the list for
        notebooks that call the hub or a Dask Gateway with it. AISTACK_LEDGER is dropped too when it holds a password
        and the kernel has a server to ask.""",
    ).tag(config=True)

    @property
    def terms(self) -> dict[str, str]:
        """On which terms the slice is asked for."""
        return {"queue": self.queue, "up_to": self.up_to}

    def check_slice(self) -> None:
        """Raise `InvalidRequest` where what is asked for makes no sense."""
        if self.slice:
            parse_ceiling(self.up_to, parse_spec(self.slice))

    def configure(self, settings: Mapping[str, Any]) -> str:
        """Take the kernelspec's settings; returns what is wrong with them. traitlets
        would drop a typo silently.
        """
        for name, value in settings.items():
            field = f"kernel_provisioner.config.{name}"
            if name not in _SETTINGS:
                return f"{field}: there is no such setting; there is {', '.join(_SETTINGS)}"
            try:
                setattr(self, name, value)
            except TraitError:
                return f"{field}: expected {_SETTINGS[name]}, got {value!r}"
        if self.wait_seconds < 0 or self.grace_seconds < 0:
            name = "wait_seconds" if self.wait_seconds < 0 else "grace_seconds"
            return f"kernel_provisioner.config.{name}: expected {_SETTINGS[name]}"
        return ""
