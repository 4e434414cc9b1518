from __future__ import annotations

from jupyter_aistack.core.model.stray import Stray
from jupyter_aistack.server.rest.stray_metrics import stray_counts, stray_memory

STRAYS = (
    Stray(device_id="GPU-0", pid=1, user="bob", memory_bytes=3),
    Stray(device_id="GPU-0", pid=2, user="bob", memory_bytes=4),
    Stray(device_id="GPU-0", pid=3, user="ann", memory_bytes=5),
    Stray(device_id="GPU-0", pid=4, user="ann", memory_bytes=None),
)


def test_processes_are_counted_by_device_and_user() -> None:
    assert stray_counts("box", STRAYS) == [
        (("box", "GPU-0", "bob"), 2),
        (("box", "GPU-0", "ann"), 2),
    ]


def test_a_sum_that_is_not_known_is_left_out() -> None:
    assert stray_memory("box", STRAYS) == [(("box", "GPU-0", "bob"), 7)]
