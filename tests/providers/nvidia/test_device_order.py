"""CUDA's own order of the GPUs, asked of a driver library in a child."""

from __future__ import annotations

import os
from pathlib import Path

from jupyter_aistack.providers.nvidia.device_order import cuda_order

FIRST = "11111111-1111-1111-1111-111111111111"
SECOND = "abababab-abab-abab-abab-abababababab"


def environment(driver: str, **more: str) -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": driver, "FAKE_CUDA": "ok", **more}


def test_all_are_listed_whatever_the_launcher_shows(driver) -> None:
    shown = environment(driver, CUDA_VISIBLE_DEVICES="1")
    assert cuda_order(shown) == (FIRST, SECOND)


def test_a_driver_that_does_not_start_does_not_say(driver) -> None:
    assert cuda_order(environment(driver, FAKE_CUDA="broken")) is None


def test_without_a_driver_nobody_says(tmp_path) -> None:
    nowhere = tmp_path / "libcuda.so.1"
    nowhere.touch()
    assert cuda_order(environment(str(tmp_path))) is None


def test_the_order_is_not_asked_through_a_server_of_mps(
    driver: str, tmp_path: Path
) -> None:
    for name in ("control", "starting"):
        (tmp_path / name).touch()
    given = environment(
        driver,
        CUDA_MPS_PIPE_DIRECTORY=str(tmp_path),
        FAKE_CUDA_NOT_READY=str(tmp_path / "starting"),
    )
    assert cuda_order(given) is not None
    assert (tmp_path / "starting").exists()
