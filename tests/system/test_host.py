"""A machine is known by its run, and only called by its name."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jupyter_aistack.system import host
from jupyter_aistack.system.host import this_host
from jupyter_aistack.system.processes import boot_id
from tests.fakes.namespaces import container, needs_namespaces


@needs_namespaces
def test_containers_of_one_machine_are_one_host_under_two_names() -> None:
    setup = (
        "from dataclasses import asdict",
        "from jupyter_aistack.system.host import this_host",
    )
    with container(*setup, hostname="lab-7f3a") as inside:
        told = inside.ask("asdict(this_host())")
    assert (told["id"], told["name"]) == (boot_id(), "lab-7f3a")
    assert this_host().id == told["id"]
    assert this_host().name == socket.gethostname()


def test_what_stays_after_a_start_is_read_from_the_first_file_that_says_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    missing = tmp_path / "missing"
    told = tmp_path / "told"
    told.write_text("0b5e\n")
    monkeypatch.setattr(host, "MACHINE_FILES", (missing, empty, told))
    assert this_host().machine == "0b5e"
    monkeypatch.setattr(host, "MACHINE_FILES", (missing, empty))
    assert this_host().machine == ""
