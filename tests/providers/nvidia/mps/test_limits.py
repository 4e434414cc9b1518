"""Shares of a GPU as the driver counts them."""

from __future__ import annotations

from fractions import Fraction

from jupyter_aistack.core.model.units import MIB
from jupyter_aistack.providers.nvidia.mps.limits import (
    limit_mib,
    multiprocessor_unit,
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


def test_an_older_daemon_may_round_up_to_a_whole_cluster() -> None:
    units = [multiprocessor_unit(c) for c in ((7, 5), (8, 9), (9, 0), (12, 0), (0, 0))]
    assert units == [2, 2, None, None, None]
    for share in (1, 12, 25, 50, 100):
        most = multiprocessors_at_most(132, share, protocol=2, unit=None)
        assert most is not None
        rounded = [
            multiprocessors_at_most(132, share, protocol=2, unit=unit)
            for unit in (2, 4, 16, 18)
        ]
        assert most >= max(each or 0 for each in rounded)
        assert most <= 132
    assert multiprocessors_at_most(132, 25, protocol=2, unit=None) == 50
    assert multiprocessors_at_most(40, 10, protocol=2) == 4


def test_a_limit_is_whole_mebibytes_within_the_slice() -> None:
    assert [limit_mib(size) for size in (1, MIB, 2 * MIB - 1, 10 * MIB)] == [
        1,
        1,
        1,
        10,
    ]
