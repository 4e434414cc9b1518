"""Devices as people name them."""

from __future__ import annotations

import pytest

from jupyter_aistack.core.model.device import Device, DeviceKind, Inventory, MIGInstance
from jupyter_aistack.core.placement.device_names import device_named
from jupyter_aistack.exceptions import InvalidRequest


def device(id_: str, index: int, kind: DeviceKind = DeviceKind.GPU) -> Device:
    mig = (MIGInstance(uuid=f"MIG-{id_}", profile="1g.18gb", memory_bytes=1),)
    return Device(
        id=id_, host="box", kind=kind, index=index, name="X", memory_bytes=8, mig=mig
    )


BOX = Inventory(
    host="box",
    devices=(
        device("GPU-aaaa1111", 0),
        device("GPU-aaaa2222", 1),
        device("CPU-box", 0, DeviceKind.CPU),
    ),
)


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("GPU-aaaa2222", "GPU-aaaa2222"),
        ("0", "GPU-aaaa1111"),
        ("1", "GPU-aaaa2222"),
        ("GPU-aaaa1", "GPU-aaaa1111"),
        ("MIG-GPU-aaaa2222", "GPU-aaaa2222"),
        ("cpu", "CPU-box"),
        ("CPU-box", "CPU-box"),
    ],
)
def test_a_device_is_called_by_id_number_kind_or_instance(text: str, id_: str) -> None:
    assert device_named(text, BOX).id == id_


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "2",
            "device: none is called '2'; there is 0 (GPU-aaaa1111), 1 (GPU-aaaa2222)",
        ),
        ("GPU-aaaa", "device: several are called 'GPU-aaaa'; there is 0"),
        ("GPU", "device: none is called 'GPU'"),
        ("", "device: none is called ''"),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        device_named(text, BOX)
    assert caught.value.message.startswith(sentence)
