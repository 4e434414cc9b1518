"""How a process is shown some devices of a vendor and no others. Each vendor's facts are
given by its provider; nothing here knows a vendor by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class RuntimeProbe:
    """How a process finds out whether it has started a vendor's runtime, and so chosen
    its devices for good: a function of its library answers with a certain error until
    then.

    Attributes:
        name: the runtime, for people.
        library: the library as the loader knows it.
        function: a function that changes nothing.
        arguments: its arguments; None stands for a pointer to a number it writes.
        not_started: what it returns as long as the runtime has not started.
    """

    name: str
    library: str
    function: str
    arguments: tuple[int | None, ...]
    not_started: int


@dataclass(frozen=True, kw_only=True)
class DeviceVisibility:
    """The environment variables by which a runtime chooses its devices.

    Attributes:
        hidden: the variables, each with the value that shows no device.
        lists: those of them that name devices, separated by commas: for several leases
            of one process they are joined.
        counted: a variable that numbers anew what another variable leaves, by its name.
        prefixes: beginnings of variables that a lease sets whatever the user had set.
        is_safe_to_hide: devices may be hidden where none was found; some tools take a
            vendor's variable for the sign of a host that has its devices.
        runtime: tells when the choice is made; None where it is never fixed.
        detached: variables by which a lease ties a process to a server, each with the
            value that ties it to none: a child with a lease of its own inherits them.
        probe: the module that asks the vendor's driver, in a child, which devices a
            process is shown: its ``ask_devices`` returns ``visible``, ``memory_total``,
            ``memory_free`` and ``multiprocessors``, or ``problem``, and ``release``
            ends that. It may import the standard library alone. Empty: nothing can be
            asked.
    """

    hidden: Mapping[str, str] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    counted: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()
    is_safe_to_hide: bool = False
    runtime: RuntimeProbe | None = None
    detached: Mapping[str, str] = field(default_factory=dict)
    probe: str = ""


Visibilities = tuple[DeviceVisibility, ...]


def hidden_environment(visibilities: Iterable[DeviceVisibility]) -> dict[str, str]:
    """Variables that hide all devices of these vendors."""
    hidden: dict[str, str] = {}
    for visibility in visibilities:
        hidden.update(visibility.hidden)
    return hidden


def shown_environment(visibility: DeviceVisibility, uuid: str) -> dict[str, str]:
    """Variables that show a process one device of a vendor."""
    return {**visibility.hidden, **dict.fromkeys(visibility.lists, uuid)}


def detached_environment(visibilities: Iterable[DeviceVisibility]) -> dict[str, str]:
    """Variables that tie a process to no server of these vendors."""
    detached: dict[str, str] = {}
    for visibility in visibilities:
        detached.update(visibility.detached)
    return detached


def shown_count(
    environment: Mapping[str, str], visibilities: Iterable[DeviceVisibility]
) -> int:
    """How many devices of one vendor an environment lists, at most."""
    most = 0
    for visibility in visibilities:
        for variable in visibility.lists:
            names = environment.get(variable, "")
            if names:
                most = max(most, len(names.split(",")))
    return most


def forced_prefixes(visibilities: Iterable[DeviceVisibility]) -> tuple[str, ...]:
    """Beginnings of variables that a lease sets whatever the user had set."""
    prefixes: list[str] = []
    for visibility in visibilities:
        prefixes.extend(visibility.prefixes)
    return tuple(prefixes)


def united(first: Visibilities, second: Visibilities) -> Visibilities:
    """Both, each vendor once."""
    return first + tuple(each for each in second if each not in first)
