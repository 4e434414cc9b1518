"""Shares of a GPU as the driver counts them."""

from __future__ import annotations

from fractions import Fraction

from jupyter_aistack.core.model.units import MIB
from jupyter_aistack.providers.nvidia.mps.limits import (
    limit_mib,
    multiprocessors_at_most,
    percent,
    slots,
)


def test_percent_is_rounded_down_and_multiprocessors_as_the_driver_does() -> None:
    assert [percent(Fraction(1, n)) for n in (1, 2, 3, 8, 1000)] == [100, 50, 33, 12, 1]
    assert [multiprocessors_at_most(188, p, protocol=3) for p in (25, 50, 75)] == [
        46,
        94,
        140,
    ]
    assert multiprocessors_at_most(132, 25, protocol=2) == 34
    assert multiprocessors_at_most(8, 1, protocol=3) == 2
    assert multiprocessors_at_most(0, 50, protocol=3) is None
    assert [slots(driver) for driver in (0, 580, 615)] == [48, 48, 60]


def test_a_limit_is_whole_mebibytes_within_the_slice() -> None:
    assert [limit_mib(size) for size in (1, MIB, 2 * MIB - 1, 10 * MIB)] == [
        1,
        1,
        1,
        10,
    ]
