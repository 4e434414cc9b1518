"""Which drivers can take a checkpoint."""

from __future__ import annotations

import pytest

from jupyter_aistack.providers.nvidia.checkpoint.drivers import why_not


@pytest.mark.parametrize(
    ("driver", "machine", "says"),
    [
        ("580.126.09", "x86_64", ""),
        ("575.57.08", "x86_64", ""),
        (
            "570.158.01",
            "x86_64",
            "driver 570.158.01 is older than 575.57.8 (NVIDIA/cuda-checkpoint#34",
        ),
        ("580.126.09", "aarch64", "older than 595"),
        (
            "595.71.05",
            "x86_64",
            "killing a process that was restored hangs the host (NVIDIA/cuda-checkpoint#53)",
        ),
        ("610.57.04", "x86_64", "locking a process of many threads may crash it"),
        ("unknown", "x86_64", "the driver's version is not known: 'unknown'"),
    ],
)
def test_drivers_are_judged_by_what_was_reported(
    driver: str, machine: str, says: str
) -> None:
    assert (
        (why_not(driver, machine) == "")
        if not says
        else (says in why_not(driver, machine))
    )
