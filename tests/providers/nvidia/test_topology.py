"""What joins a host's GPUs: the real nvidia-ml-py over a fake driver."""

from __future__ import annotations

import pytest

from tests.fakes.nvml.states import SETUP, h200, instance

LINKS = "link a=0 b=1\nlink a=2 b=3\n"
FOUR = "".join(h200(index, numa=index // 2) for index in range(4))
SHOW = "[(d.id, sorted(d.peers), d.domain) for d in provider.discover('box')]"


def test_gpus_know_whom_they_reach_by_nvlink_and_where_they_sit(fake_nvml) -> None:
    assert fake_nvml.python(FOUR + LINKS, SETUP)(SHOW) == [
        ("GPU-0", ["GPU-1"], "numa-0"),
        ("GPU-1", ["GPU-0"], "numa-0"),
        ("GPU-2", ["GPU-3"], "numa-1"),
        ("GPU-3", ["GPU-2"], "numa-1"),
    ]


def test_a_node_beyond_the_first_word_is_read(fake_nvml) -> None:
    assert fake_nvml.python(h200(numa=70), SETUP)(SHOW) == [("GPU-0", [], "numa-70")]


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetP2PStatus", "nvmlDeviceGetMemoryAffinity"]
)
@pytest.mark.parametrize("code", [3, 4, 13, 15, 999])
def test_what_a_driver_does_not_say_is_unknown_and_breaks_nothing(
    fake_nvml, function: str, code: int
) -> None:
    result = fake_nvml.python(f"{FOUR}{LINKS}fail {function} {code}\n", SETUP)(SHOW)
    is_numa = function.endswith("Affinity")
    assert [(peers == [], domain == "") for _, peers, domain in result] == [
        (not is_numa, is_numa)
    ] * 4


def test_a_driver_too_old_to_have_the_functions_is_no_problem(fake_nvml) -> None:
    child = fake_nvml.python(FOUR + LINKS, SETUP)
    child.run(
        "import pynvml; del pynvml.nvmlDeviceGetP2PStatus, pynvml.nvmlDeviceGetMemoryAffinity"
    )
    assert child(SHOW) == [(f"GPU-{index}", [], "") for index in range(4)]
    assert child("[d.problem for d in provider.discover('box')]") == [""] * 4


def test_a_gpu_that_is_lost_or_cut_into_instances_is_joined_to_nothing(
    fake_nvml,
) -> None:
    child = fake_nvml.python(FOUR + LINKS, SETUP)
    assert child(SHOW)[1] == ("GPU-1", ["GPU-0"], "numa-0")
    fake_nvml.change(
        h200(0, numa=0)
        + h200(1, mig=1, numa=0)
        + instance(0, gpu=1)
        + h200(2, lost=15)
        + h200(3)
        + LINKS
    )
    assert child("[sorted(d.peers) for d in provider.discover('box')]") == [
        [],
        [],
        [],
        [],
    ]


def test_pairs_are_asked_for_once_a_minute(fake_nvml) -> None:
    setup = (
        "from jupyter_aistack.providers.nvidia.provider import GPUProvider\nnow = [1000.0]\n"
        "provider = GPUProvider(clock=lambda: now[0])\n"
    )
    child = fake_nvml.python(FOUR, setup)
    assert child(SHOW)[0] == ("GPU-0", [], "numa-0")
    fake_nvml.change(FOUR + LINKS)
    assert child(SHOW)[0] == ("GPU-0", [], "numa-0")
    child.run("now[0] += 61")
    assert child(SHOW)[0] == ("GPU-0", ["GPU-1"], "numa-0")


def test_a_request_for_several_gets_those_that_are_joined(fake_nvml) -> None:
    from jupyter_aistack.core.model.device import Inventory
    from jupyter_aistack.core.model.spec import parse_spec
    from jupyter_aistack.core.placement.placement import place

    crossed = "link a=0 b=2\nlink a=1 b=3\n"
    devices = fake_nvml.python("".join(map(h200, range(4))) + crossed, SETUP)(
        "provider.discover('box')"
    )
    pieces = place(parse_spec("2"), Inventory(host="box", devices=devices), [])
    assert isinstance(pieces, tuple)
    assert {slice_.device_id for slice_ in pieces} in (
        {"GPU-0", "GPU-2"},
        {"GPU-1", "GPU-3"},
    )
