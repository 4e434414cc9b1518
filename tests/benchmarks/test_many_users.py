"""The benchmark of many users, at a small size: what it measures is there."""

from __future__ import annotations

import pytest

from tests.benchmarks.many_users import Scale, measure
from tests.fakes.other_users import why_not

SMALL = Scale(users=2, kernels=2, spec="1/2", spread_seconds=0.1, rest_seconds=0.2)


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_both_contenders_are_measured_in_all_figures() -> None:
    report = measure(1, SMALL)
    kinds = ("p50_ms", "p99_ms", "rss_mib", "look_p50_ms")
    for name in ("one", "many"):
        assert all(report.figures[f"{name}_{kind}"] > 0 for kind in kinds)
        p50 = report.figures[f"{name}_p50_ms"]
        assert report.figures[f"{name}_p99_ms"] >= p50
        idle = report.figures[f"{name}_idle_cpu_s_per_h"]
        assert 0 <= idle <= 3600 * SMALL.users * 2
    assert report.ratios.keys() == report.goals.keys()
    assert report.figures["one_rss_mib"] < report.figures["many_rss_mib"]
