"""Arguments of Dask's clusters: those that are taken, and what is said of the others."""

from __future__ import annotations

import inspect
from typing import Any

import numpy
import pytest
from distributed import LocalCluster, SpecCluster

from jupyter_aistack import Cluster
from jupyter_aistack.compute.clusters.dask_options import (
    DEFAULTS,
    checked_options,
    count_of,
)
from jupyter_aistack.exceptions import InvalidRequest


@pytest.mark.parametrize("count", [2, 2.0, numpy.int64(2), numpy.float32(2)])
def test_a_number_of_workers_may_be_of_any_type(count: Any) -> None:
    counted = count_of("workers", count)
    assert (type(counted), counted) == (int, 2)


def test_options_that_are_not_given_have_defaults() -> None:
    assert checked_options({}) == DEFAULTS
    assert checked_options({"scheduler_port": 8786})["scheduler_port"] == 8786


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ({"n_workers": 2}, r"^n_workers: say workers$"),
        ({"threads_per_worker": 2}, r"^threads_per_worker: say threads$"),
        ({"memory_limit": "1GiB"}, r"^memory_limit: .* say slice"),
        ({"processes": False}, "^processes: a worker is always a process"),
        ({"worker_class": object}, r"say nanny=\{'worker_class': \.\.\.\}"),
        ({"worker_dashboard_address": ":0"}, "say nanny"),
        ({"service_kwargs": {}}, "see dashboard_link"),
        ({"scheduler": {}}, "starts its own scheduler and workers"),
        ({"resources": {"GPU": 1}}, r"workers take it from nanny=\{'resources'"),
        ({"lifetime": "1h"}, r"workers take it from nanny=\{'lifetime'"),
        ({"colour": "red"}, "^colour: Cluster takes no such argument; of Dask's"),
        ({"host": "127.0.0.1", "interface": "lo"}, "^interface: give host or"),
        ({"protocol": "inproc://"}, "^protocol: inproc is for threads"),
    ],
)
def test_an_option_that_makes_no_sense_says_what_to_do(
    option: Any, advice: str
) -> None:
    with pytest.raises(InvalidRequest, match=advice) as caught:
        Cluster(1, **option)
    assert caught.value.facts["field"] in option


@pytest.mark.parametrize("cls", [LocalCluster, SpecCluster])
def test_each_argument_of_dasks_clusters_is_taken_or_spoken_of(cls: type) -> None:
    own = inspect.signature(Cluster).parameters.keys()
    # Deprecated by Dask, and without effect there.
    deprecated = {"ip", "start", "self", "worker_kwargs"}
    for name in inspect.signature(cls).parameters.keys() - own - deprecated:
        if name in DEFAULTS:
            continue
        with pytest.raises(InvalidRequest) as caught:
            Cluster(1, **{name: None})  # type: ignore[arg-type]
        assert "no such argument" not in caught.value.message, name
