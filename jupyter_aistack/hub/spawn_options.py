"""A choice of slices on the page where users of a hub start their servers, with what
fits now. In ``jupyterhub_config.py``::

    from jupyter_aistack.hub.spawn_options import SpawnOptions

    options = SpawnOptions()
    c.Spawner.options_form = options.form
    c.Spawner.options_from_form = options.from_form
    c.Spawner.apply_user_options = options.apply
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from typing import Any

from jupyter_aistack._version import __version__
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.exceptions import AIStackError, InvalidRequest
from jupyter_aistack.system.broker_path import DEFAULT_PATH, broker_path
from jupyter_aistack.system.broker_socket import BrokerSocket

JSON = dict[str, Any]
log = logging.getLogger("jupyter_aistack")

SLICES = ("1/4", "1/2", "1")
"""What is offered, beside no slice at all."""
FIELD = "aistack_slice"
OPTION = "slice"
SETTING = "--SliceProvisioner.slice="
"""How a Jupyter server is told what its kernels ask for at launch."""
ASK_SECONDS = 5.0
NO_SLICE = "No slice at the start; notebooks may ask for one"
MAX_SPEC = 64


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A slice that may be chosen.

    Attributes:
        spec: as a request says it.
        devices: on how many devices it fits now; None where that is not known.
        waiting: how many requests wait there, and go first; None where that is not
            known.
    """

    spec: str
    devices: int | None = None
    waiting: int | None = None

    @property
    def is_free(self) -> bool:
        """Whether a kernel would have it at once."""
        return bool(self.devices) and not self.waiting

    @property
    def title(self) -> str:
        """What people call it."""
        return "A whole GPU" if self.spec == "1" else f"{self.spec} of a GPU"

    @property
    def sentence(self) -> str:
        """Whether it is to be had now."""
        if self.devices is None or self.waiting is None:
            return "whether it is free cannot be told now"
        fits = _count(self.devices, "GPU")
        if self.is_free:
            return f"fits now, on {fits}"
        if self.waiting:
            return f"kernels wait for it, behind {_count(self.waiting, 'request')}"
        return "fits on no GPU now; kernels wait for it"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def offers_of(
    host: JSON, queue: Sequence[JSON], specs: Iterable[str] = SLICES
) -> list[Offer]:
    """What may be chosen on a host, by what it says of itself and of its queue."""
    usable = [device for device in host["devices"] if _grants(device)]
    free = [Fraction(device["free_fraction"]) for device in usable]
    return [
        Offer(
            spec=spec,
            devices=sum(Fraction(spec) <= share for share in free),
            waiting=len(queue),
        )
        for spec in specs
    ]


def _grants(device: JSON) -> bool:
    """Whether slices by share are granted on a device."""
    is_drained = device.get("drain") is not None
    is_whole = not device["mig_enabled"] and device["kind"] == "gpu"
    return is_whole and not device["problem"] and not is_drained


class SpawnOptions:
    """What the hub calls when a server is to be started.

    Args:
        broker: the path of the broker's socket; empty for that of this host.
        token: of a service of the hub, where the hub's own account is one of
            ``AIStack.hub_accounts``.
        slices: what is offered, beside no slice at all.

    Raises:
        InvalidRequest: `slices` names what is no share of a GPU.
    """

    def __init__(
        self, broker: str = "", token: str = "", slices: Sequence[str] = SLICES
    ) -> None:
        self._broker = broker
        self._token = token
        self._slices = tuple(_share(spec) for spec in slices)

    async def form(self, spawner: Any) -> str:
        """The choice as HTML (``Spawner.options_form``), asked anew for each page."""
        chosen = str((spawner.user_options or {}).get(OPTION, ""))
        return form_html(await asyncio.to_thread(self.offers), chosen)

    def from_form(self, form: Mapping[str, Sequence[str]]) -> JSON:
        """What a user has chosen, as the hub keeps it (``options_from_form``)."""
        values = form.get(FIELD) or [""]
        return {OPTION: values[0]}

    def apply(self, spawner: Any, options: Mapping[str, Any]) -> None:
        """Start a server whose kernels ask for what was chosen, if they are of a
        kernelspec of ours that names no slice itself (``apply_user_options``).

        Raises:
            HTTPError: it is no slice.
        """
        spec = options.get(OPTION, "")
        arguments = [each for each in spawner.args if not each.startswith(SETTING)]
        if spec:
            arguments.append(f"{SETTING}{_checked(spec)}")
        spawner.args = arguments

    def offers(self) -> list[Offer]:
        """What may be chosen now; where the broker does not answer, the same slices
        without what is free.
        """
        try:
            return self._ask()
        except AIStackError as error:
            log.warning("the spawn page cannot tell what is free: %s", error.message)
            return [Offer(spec=spec) for spec in self._slices]

    def _ask(self) -> list[Offer]:
        broker = BrokerSocket(
            self._broker or broker_path() or DEFAULT_PATH,
            client=f"jupyter_aistack.hub {__version__}",
            token=self._token,
        )
        try:
            host = broker.call("host", {}, seconds=ASK_SECONDS)
            queue = broker.call("queue", {}, seconds=ASK_SECONDS)
        finally:
            broker.close()
        return offers_of(host, queue["queue"], self._slices)


def _share(spec: str) -> str:
    """A share of a GPU, by which it is told what fits."""
    share = parse_spec(spec)
    try:
        is_share = 0 < Fraction(share.text) <= 1
    except ValueError:
        is_share = False
    if not is_share:
        raise InvalidRequest(
            f"slices: expected shares of a GPU up to 1, such as 1/4, got {spec!r}",
            field="slices",
        )
    return share.text


def form_html(offers: Iterable[Offer], chosen: str = "") -> str:
    """The choice as HTML.

    Args:
        offers: what is offered.
        chosen: what was chosen last.
    """
    lines = [_radio("", NO_SLICE, "", is_chosen=not chosen)]
    lines += [
        _radio(offer.spec, offer.title, offer.sentence, is_chosen=offer.spec == chosen)
        for offer in offers
    ]
    legend = "What kernels ask for at launch"
    return f"<fieldset><legend>{legend}</legend>{''.join(lines)}</fieldset>"


def _radio(value: str, title: str, remark: str, *, is_chosen: bool) -> str:
    checked = " checked" if is_chosen else ""
    small = f" <small>{escape(remark)}</small>" if remark else ""
    return (
        f'<div class="radio"><label><input type="radio" name="{FIELD}" '
        f'value="{escape(value)}"{checked}> {escape(title)}{small}</label></div>'
    )


def _checked(spec: object) -> str:
    """A slice that users may name: the choice also comes from the hub's API."""
    from tornado.web import HTTPError

    try:
        if not isinstance(spec, str) or len(spec) > MAX_SPEC:
            raise InvalidRequest("slice: expected a text such as 1/4", field=OPTION)
        return parse_spec(spec).text
    except InvalidRequest as error:
        raise HTTPError(400, error.message.replace("%", "%%")) from error
