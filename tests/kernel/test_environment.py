"""The environment a kernel gets, as values."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.enforcement.device_visibility import hidden_environment
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.kernel.combine import combine_preparations
from jupyter_aistack.kernel.environment import (
    SECRETS,
    expected,
    with_slice,
    without_secrets,
)
from jupyter_aistack.providers.amd.visibility import VISIBILITY as AMD
from jupyter_aistack.providers.nvidia.visibility import VISIBILITY as NVIDIA

GPU = Preparation(
    environment={
        "CUDA_VISIBLE_DEVICES": "GPU-1",
        "AISTACK_LEASE": "l-1",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.24",
    },
    memory_limit_bytes=20,
    expects=Expectation(visible=("GPU-1",)),
    visibility=(NVIDIA,),
)
CPU = Preparation(
    environment={"AISTACK_LEASE": "l-2", "OMP_NUM_THREADS": "2"},
    cores=(2, 3),
    memory_limit_bytes=4,
    expects=Expectation(cores=(2, 3), threads="2"),
)


def test_devices_are_set_whatever_was_there() -> None:
    env = with_slice({"CUDA_VISIBLE_DEVICES": "0,1,2", "AISTACK_LEASE": "l-0"}, GPU)
    assert (env["CUDA_VISIBLE_DEVICES"], env["AISTACK_LEASE"]) == ("GPU-1", "l-1")


def test_setting_the_user_made_for_a_framework_is_kept() -> None:
    assert (
        with_slice({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1"}, GPU)[
            "XLA_PYTHON_CLIENT_MEM_FRACTION"
        ]
        == "0.1"
    )


def test_setting_the_user_made_cannot_widen_the_slice() -> None:
    assert (
        with_slice({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}, GPU)[
            "XLA_PYTHON_CLIENT_MEM_FRACTION"
        ]
        == "0.24"
    )


def test_lower_thread_count_wins() -> None:
    counts = {
        own: with_slice({"OMP_NUM_THREADS": own}, CPU)["OMP_NUM_THREADS"]
        for own in ("1", "2", "64", "0", "all")
    }
    assert counts == {"1": "1", "2": "2", "64": "2", "0": "2", "all": "2"}


def test_thread_count_of_the_user_is_what_verification_expects() -> None:
    env = with_slice({"OMP_NUM_THREADS": "1"}, CPU)
    assert expected(CPU, env) == Expectation(cores=(2, 3), threads="1")


def test_what_was_there_is_not_changed_in_place() -> None:
    before = {"OMP_NUM_THREADS": "64"}
    with_slice(before, CPU)
    assert before == {"OMP_NUM_THREADS": "64"}


def test_two_leases_add_up() -> None:
    other = Preparation(
        environment={
            "CUDA_VISIBLE_DEVICES": "GPU-2",
            "AISTACK_LEASE": "l-3",
            "OMP_NUM_THREADS": "1",
        },
        cores=(1,),
        memory_limit_bytes=1,
        expects=Expectation(visible=("GPU-2",), cores=(1,), threads="1"),
        visibility=(NVIDIA,),
    )
    both = combine_preparations([GPU, CPU, other])
    assert both.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert both.environment["AISTACK_LEASE"] == "l-1,l-2,l-3"
    assert both.environment["OMP_NUM_THREADS"] == "3"
    assert both.cores == (1, 2, 3)
    assert both.memory_limit_bytes == 25
    assert both.expects == Expectation(
        visible=("GPU-1", "GPU-2"), cores=(2, 3, 1), threads="3"
    )


def shown(uuid: str, memory: int) -> Preparation:
    return Preparation(
        environment={"CUDA_VISIBLE_DEVICES": uuid},
        memory_limit_bytes=memory,
        expects=Expectation(visible=(uuid,), memory_total=memory),
        visibility=(NVIDIA,),
    )


@pytest.mark.parametrize(
    ("parts", "visible", "total"),
    [
        ([shown("GPU-1", 80), shown("GPU-2", 40)], ["GPU-1", "GPU-2"], 120),
        ([shown("GPU-1", 80), shown("GPU-1", 80)], ["GPU-1"], 80),
        ([shown("MIG-1", 16), shown("MIG-2", 32)], ["MIG-1"], 32),
        ([shown("GPU-1", 80), shown("MIG-2", 16)], ["GPU-1"], 80),
    ],
    ids=["two GPUs", "two shares of one", "two instances", "a GPU and an instance"],
)
def test_what_two_leases_show_together(
    parts: list[Preparation], visible: list[str], total: int
) -> None:
    both = combine_preparations(parts)
    assert (
        both.environment["CUDA_VISIBLE_DEVICES"].split(",")
        == list(both.expects.visible or ())
        == visible
    )
    assert both.expects.memory_total == total


def amd(uuid: str) -> Preparation:
    own = {
        "ROCR_VISIBLE_DEVICES": uuid,
        "HIP_VISIBLE_DEVICES": "0",
        "GPU_DEVICE_ORDINAL": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return Preparation(environment=own, memory_limit_bytes=192, visibility=(AMD,))


def test_two_amd_gpus_are_numbered_anew_for_hip() -> None:
    both = combine_preparations([amd("GPU-a0"), amd("GPU-a1"), GPU]).environment
    assert (both["ROCR_VISIBLE_DEVICES"], both["HIP_VISIBLE_DEVICES"]) == (
        "GPU-a0,GPU-a1",
        "0,1",
    )
    assert both["GPU_DEVICE_ORDINAL"] == "0,1"
    assert both["CUDA_VISIBLE_DEVICES"] == "GPU-1"


def test_cores_alone_show_none_of_the_hosts_gpus() -> None:
    before = {"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "3"}
    env = with_slice({**before, **hidden_environment([NVIDIA, AMD])}, CPU)
    assert {
        name: env[name] for name in (*before, "ROCR_VISIBLE_DEVICES")
    } == dict.fromkeys((*before, "ROCR_VISIBLE_DEVICES"), "")
    assert (
        with_slice({**before, **hidden_environment([NVIDIA, AMD])}, amd("GPU-a0"))[
            "HIP_VISIBLE_DEVICES"
        ]
        == "0"
    )
    assert hidden_environment([]) == {}
    assert "ROCR_VISIBLE_DEVICES" not in hidden_environment([NVIDIA])


def test_two_shares_of_one_kernel_have_the_tighter_cap_of_both() -> None:
    small = Preparation(
        environment={
            "CUDA_VISIBLE_DEVICES": "GPU-2",
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1",
        }
    )
    for parts in ([GPU, small], [small, GPU]):
        assert (
            combine_preparations(parts).environment["XLA_PYTHON_CLIENT_MEM_FRACTION"]
            == "0.1"
        )


def test_named_secrets_are_dropped_and_nothing_else() -> None:
    assert without_secrets(
        {"TOKEN": "x", "PATH": "/bin"}, ["TOKEN"], has_socket=False
    ) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql+psycopg://ann:s3cret@db/aistack",
        "postgresql://db/aistack?user=ann&password=s3cret",
        "postgresql://ann@db/aistack?sslpassword=s3cret",
    ],
)
def test_address_of_a_ledgers_server_is_dropped_where_the_jupyter_server_answers_for_it(
    secret: str,
) -> None:
    plain = "sqlite:////srv/ledger.sqlite"
    assert without_secrets({"AISTACK_LEDGER": secret}, [], has_socket=True) == {}
    assert without_secrets({"AISTACK_LEDGER": secret}, [], has_socket=False) == {
        "AISTACK_LEDGER": secret
    }
    assert without_secrets({"AISTACK_LEDGER": plain}, [], has_socket=True) == {
        "AISTACK_LEDGER": plain
    }


def test_password_of_the_ledgers_server_is_a_secret() -> None:
    assert without_secrets(
        {"PGPASSWORD": "s3cret", "PGHOST": "db"}, SECRETS, has_socket=True
    ) == {"PGHOST": "db"}
