"""Whose memory it is, told apart as far as it can be seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_aistack.core.model.device import (
    Device,
    DeviceKind,
    Inventory,
    ProcessUse,
    Slice,
    SliceKind,
)
from jupyter_aistack.core.model.foreign_memory import (
    Holders,
    is_to_be_told_apart,
    told_apart,
    with_foreign,
)
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.core.placement.placement import place
from jupyter_aistack.core.placement.verdict import PlacementFailure

OURS, STRANGER, OF_HOST = 10, 20, 4242017
HALF = {"GPU-0": 40 * GIB}


def gpu(*held: tuple[int, int | None], used_gib: int | None = None) -> Device:
    """A GPU of 80 GiB on which these processes (id, GiB) hold memory."""
    uses = tuple(
        ProcessUse(pid=pid, memory_bytes=None if gib is None else gib * GIB)
        for pid, gib in held
    )
    return Device(
        id="GPU-0",
        host="box",
        kind=DeviceKind.GPU,
        index=0,
        name="H100",
        memory_bytes=80 * GIB,
        processes=uses,
        used_bytes=None if used_gib is None else used_gib * GIB,
    )


def unlisted(used_gib: int | None) -> Device:
    """The same where the driver lists no processes at all."""
    values = vars(gpu(used_gib=used_gib)) | {"processes": None}
    return Device(**values)


def foreign_gib(device: Device, **holders: object) -> float | None:
    known = told_apart(device, Holders(**holders)).foreign_memory_bytes  # type: ignore[arg-type]
    return None if known is None else known / GIB


def own_gib(device: Device, **holders: object) -> float | None:
    known = told_apart(device, Holders(**holders)).own_memory_bytes  # type: ignore[arg-type]
    return None if known is None else known / GIB


def test_a_complete_list_is_summed_up_with_what_the_driver_needs_beside() -> None:
    device = gpu((OURS, 30), (STRANGER, 20), used_gib=51)
    holders = {"ours": frozenset({OURS}), "granted": HALF}
    assert (foreign_gib(device, **holders), own_gib(device, **holders)) == (20, 30)


@pytest.mark.parametrize(
    ("device", "foreign"),
    [
        (gpu((OURS, 30), used_gib=60), 30),
        (gpu((OURS, 30), (STRANGER, 20), used_gib=60), 30),
        (gpu((OURS, 30), (OURS, 0), used_gib=31), 0),
    ],
)
def test_what_a_list_leaves_out_is_others_memory(device: Device, foreign: int) -> None:
    """The open kernel modules list no process of another PID namespace."""
    holders = {"ours": frozenset({OURS}), "granted": HALF}
    assert (foreign_gib(device, **holders), own_gib(device, **holders)) == (foreign, 30)


def test_a_gpu_that_others_fill_unseen_is_not_granted() -> None:
    device = gpu(used_gib=60)
    assert is_to_be_told_apart(device)
    inventory = with_foreign(Inventory(host="box", devices=(device,)), Holders())
    assert isinstance(place(parse_spec("1"), inventory, ()), PlacementFailure)
    assert isinstance(place(parse_spec("1/2"), inventory, ()), PlacementFailure)


@pytest.mark.parametrize("device", [unlisted(78), gpu((STRANGER, None), used_gib=78)])
def test_what_an_unseen_process_uses_is_not_free(device: Device) -> None:
    assert foreign_gib(device) == 78
    inventory = with_foreign(Inventory(host="box", devices=(device,)), Holders())
    refused = place(parse_spec("1"), inventory, ())
    assert isinstance(refused, PlacementFailure)
    assert refused.reason == (
        "H100 0: 78.0 GiB of its memory are held by processes outside aistack"
    )


def test_a_gap_beside_our_known_process_is_what_is_in_use_without_ours() -> None:
    device = gpu((OURS, 30), (STRANGER, None), used_gib=75)
    holders = {"ours": frozenset({OURS}), "granted": HALF}
    assert (foreign_gib(device, **holders), own_gib(device, **holders)) == (45, 30)


def test_where_ours_is_a_gap_the_lease_holds_what_it_was_granted_at_most() -> None:
    device = gpu((OURS, None), (STRANGER, None), used_gib=75)
    holders = {"ours": frozenset({OURS}), "granted": HALF}
    assert (foreign_gib(device, **holders), own_gib(device, **holders)) == (35, None)


@pytest.mark.parametrize(
    "device",
    [
        gpu((OF_HOST, 38), used_gib=38),
        gpu((OURS, None), used_gib=38),
        unlisted(38),
        unlisted(None),
    ],
)
def test_what_may_all_be_ours_is_unknown_and_refuses_nothing(device: Device) -> None:
    holders = Holders(
        ours=frozenset({OURS}), elsewhere=frozenset({OF_HOST}), granted=HALF
    )
    known = told_apart(device, holders)
    assert (known.foreign_memory_bytes, known.own_memory_bytes) == (None, None)
    held = Slice(
        device_id="GPU-0",
        kind=SliceKind.SHARE,
        fraction=parse_spec("1/2").amount,
        memory_bytes=40 * GIB,
    )
    placed = place(parse_spec("1/2"), Inventory(host="box", devices=(known,)), [held])
    assert not isinstance(placed, PlacementFailure)


def test_of_another_namespace_more_than_was_granted_is_others() -> None:
    device = gpu((OF_HOST, 78), used_gib=78)
    holders = {"elsewhere": frozenset({OF_HOST}), "granted": HALF}
    assert foreign_gib(device, **holders) == 38
    assert foreign_gib(device, elsewhere=frozenset({OF_HOST})) == 78


def test_a_known_stranger_counts_where_the_rest_cannot_be_seen() -> None:
    device = gpu((STRANGER, 20), (OF_HOST, None))
    holders = {"elsewhere": frozenset({OF_HOST}), "granted": HALF}
    assert foreign_gib(device, **holders) == 20


def test_only_real_devices_with_unseen_or_listed_holders_are_told_apart() -> None:
    assert is_to_be_told_apart(unlisted(0))
    assert is_to_be_told_apart(gpu((OURS, 1)))
    assert not is_to_be_told_apart(gpu())
    assert not is_to_be_told_apart(Device(**vars(unlisted(0)) | {"simulated": True}))


FIGURES = st.one_of(st.none(), st.integers(0, 80))


@given(
    ours=FIGURES,
    stranger=FIGURES,
    is_listed=st.booleans(),
    used=st.integers(0, 80),
    granted=st.integers(0, 80),
)
def test_leases_and_others_never_get_more_than_is_free(
    ours: int | None, stranger: int | None, is_listed: bool, used: int, granted: int
) -> None:
    """Wherever a figure is missing, what could be granted beside the leases is at most
    what the driver has free.
    """
    device = gpu((OURS, ours), (STRANGER, stranger), used_gib=used)
    if not is_listed:
        device = unlisted(used)
    known = told_apart(
        device,
        Holders(ours=frozenset({OURS}), granted={"GPU-0": granted * GIB}),
    )
    has_gap = not is_listed or None in (ours, stranger)
    own_gib = max(granted, ours or 0) if is_listed else granted
    left = 80 - own_gib - (known.foreign_memory_bytes or 0) / GIB
    if has_gap:
        assert left <= 80 - used
