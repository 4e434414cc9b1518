"""The providers that are installed, by the name of their entry point. Importing this
module opens nothing.

A package adds a provider by an entry point of the group ``jupyter_aistack.providers``
whose value is a subclass of `Provider`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

from jupyter_aistack.core.enforcement.preparation import Preparation
from jupyter_aistack.core.model.device import Device
from jupyter_aistack.core.model.lease import Lease
from jupyter_aistack.core.model.sample import DeviceSample
from jupyter_aistack.core.placement.mig_plan import MIGPermission
from jupyter_aistack.exceptions import AIStackError, InvalidRequest, ProviderError

from .base import Provider, ProviderOptions

GROUP = "jupyter_aistack.providers"
AUTO = "auto"
ENFORCEMENTS = ("auto", "advisory")
_EXAMPLE = "e.g. gpu,cpu or simulated:8xH100-80GB"


def build_providers(
    text: str,
    *,
    enforcement: str = "auto",
    mps_strict: bool = False,
    serves_host: bool = False,
    users_share: bool = False,
    mig_create: MIGPermission | None = None,
) -> tuple[Provider, ...]:
    """The providers named in a setting such as ``auto``, ``gpu,cpu`` or
    ``simulated:8xH100-80GB,cpu``.

    ``auto`` is every installed provider that takes part in it: the GPUs, where a driver
    of NVIDIA (``gpu``) or AMD (``amd``) is installed, those of other packages, and the
    CPU. A driver that is installed but does not answer is shown as a problem of the
    host, and so is a provider that cannot be loaded; a host without any is a healthy
    host without GPUs. Nothing is opened yet.

    Args:
        text: the setting.
        enforcement: ``auto`` holds a share as firmly as its GPU allows, ``advisory`` by
            the caps of frameworks alone.
        mps_strict: an MPS daemon for each lease instead of one for each GPU.
        serves_host: leases are for all users of the host, and not for one.
        users_share: several users may have leases of one GPU at the same time.
        mig_create: which MIG instances may be created for requests that wait; None for
            none.

    Raises:
        InvalidRequest: naming the field, ``providers`` or ``enforcement``.
    """
    if enforcement not in ENFORCEMENTS:
        allowed = " or ".join(ENFORCEMENTS)
        raise InvalidRequest(
            f"enforcement: {enforcement!r} is not allowed; write {allowed}",
            field="enforcement",
        )
    options = ProviderOptions(
        is_advisory=enforcement == "advisory",
        mps_strict=mps_strict,
        serves_host=serves_host,
        users_share=users_share,
        mig_create=mig_create,
    )
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    providers: dict[str, Provider] = {}
    for name in (part.strip() for part in text.split(",")):
        for provider in _named(name, installed, options):
            known = providers.setdefault(provider.name, provider)
            if known is not provider and provider.takes_argument:
                raise _invalid(
                    f"{provider.name}:", "it may be given once; join tables with +"
                )
    return tuple(providers.values())


def _named(
    name: str, installed: Mapping[str, EntryPoint], options: ProviderOptions
) -> list[Provider]:
    """The providers that one name of the setting stands for."""
    if name == AUTO:
        return _automatic(installed.values(), replace(options, is_optional=True))
    kind, colon, argument = name.partition(":")
    if kind not in installed:
        raise _invalid(name, _allowed(installed))
    try:
        provider = _load(installed[kind])
    except ProviderError as error:
        raise _invalid(name, error.message) from error
    if bool(colon) != bool(provider.takes_argument):
        raise _invalid(name, _allowed(installed))
    try:
        return [provider.build(replace(options, argument=argument))]
    except AIStackError:
        raise
    except Exception as error:
        why = f"it cannot be built: {type(error).__name__}: {error}"
        raise _invalid(name, why) from error


def _automatic(
    entries: Iterable[EntryPoint], options: ProviderOptions
) -> list[Provider]:
    providers: list[Provider] = []
    for entry in entries:
        try:
            provider = _load(entry)
            if provider.is_automatic:
                providers.append(provider.build(options))
        except ProviderError as error:
            providers.append(BrokenProvider(entry.name, error))
        except Exception as error:
            # Whatever another package does wrong, this host's devices are leased.
            providers.append(BrokenProvider(entry.name, _cannot(entry, error)))
    return sorted(providers, key=lambda provider: (provider.order, provider.name))


def _load(entry: EntryPoint) -> type[Provider]:
    """The class behind an entry point.

    Raises:
        ProviderError: it cannot be imported, or is no provider.
    """
    try:
        loaded = entry.load()
    except Exception as error:
        raise _cannot(entry, error) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Provider)):
        raise ProviderError(
            f"the provider {entry.name} of {_package(entry)} cannot be loaded: "
            f"{entry.value} is no Provider"
        )
    return loaded


def _cannot(entry: EntryPoint, error: Exception) -> ProviderError:
    return ProviderError(
        f"the provider {entry.name} of {_package(entry)} cannot be loaded: "
        f"{type(error).__name__}: {error}"
    )


def _package(entry: EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else entry.dist.name


def _allowed(installed: Mapping[str, EntryPoint]) -> str:
    *names, last = [AUTO, *(_spelled(installed[name]) for name in sorted(installed))]
    return f"allowed are {', '.join(names)} or {last} ({_EXAMPLE}), separated by commas"


def _spelled(entry: EntryPoint) -> str:
    """A name as it is written in the setting."""
    try:
        argument = _load(entry).takes_argument
    except ProviderError:
        argument = ""
    return f"{entry.name}:{argument}" if argument else entry.name


def _invalid(shown: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"providers: {shown!r} is not a provider; {why}", field="providers"
    )


class BrokenProvider(Provider):
    """Stands for an installed provider that cannot be used: the host shows why.

    Args:
        name: of its entry point.
        error: what went wrong.
    """

    def __init__(self, name: str, error: ProviderError) -> None:
        self.name = name
        self._error = error

    def discover(self, host: str) -> tuple[Device, ...]:
        raise self._error

    def prepare(self, lease: Lease, devices: Mapping[str, Device]) -> Preparation:
        raise self._error

    def sample(
        self,
        devices: Mapping[str, Device],
        leases: Mapping[str, Lease],
        pids: Mapping[str, frozenset[int]],
        since: float | None = None,
    ) -> Mapping[str, DeviceSample]:
        raise self._error
