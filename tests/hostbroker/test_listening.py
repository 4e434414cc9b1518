from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.hostbroker.listening import listen
from jupyter_aistack.system.broker_path import MAX_PATH_BYTES


def test_everybody_may_connect_and_nobody_hold_the_lock(folder: Path) -> None:
    held = listen(folder / "s")
    assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o666
    assert stat.S_IMODE((folder / "s.lock").stat().st_mode) == 0o600
    with pytest.raises(InvalidRequest, match=rf"process {os.getpid()} listens at"):
        listen(folder / "s")
    held.close()
    listen(folder / "s").close()


def test_a_broker_that_ends_leaves_its_socket(folder: Path) -> None:
    """Nobody may take the host for one without a broker: its leases are still held."""
    listen(folder / "s").close()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(folder / "s"))


def test_the_folder_is_made_where_it_is_missing(folder: Path) -> None:
    held = listen(folder / "aistack" / "s")
    assert stat.S_IMODE((folder / "aistack").stat().st_mode) == 0o755
    held.close()


def test_a_path_that_is_too_long_is_refused_with_its_length(folder: Path) -> None:
    path = folder / ("s" * MAX_PATH_BYTES)
    with pytest.raises(InvalidRequest, match=rf"{len(str(path))} bytes"):
        listen(path)


def test_a_folder_that_others_may_change_is_refused(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(InvalidRequest, match="others than root"):
        listen(folder / "s")


def test_a_folder_that_cannot_be_made_is_refused(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(InvalidRequest, match=r"file/sub: the folder cannot be made"):
        listen(folder / "file" / "sub" / "s")


def test_what_is_no_socket_stays(folder: Path) -> None:
    (folder / "s").write_text("precious")
    with pytest.raises(InvalidRequest, match="no socket"):
        listen(folder / "s")
    assert (folder / "s").read_text() == "precious"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_socket_of_another_user_stays(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "s"))
        os.chown(folder / "s", 23001, 23001)
        with pytest.raises(InvalidRequest, match="belongs to uid 23001"):
            listen(folder / "s")
        assert (folder / "s").exists()


def test_a_socket_that_answers_without_a_lock_is_a_broker_too(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "s"))
        other.listen()
        with pytest.raises(InvalidRequest, match=rf"process {os.getpid()} listens"):
            listen(folder / "s")


def test_a_stale_socket_is_replaced(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "s"))
    held = listen(folder / "s")
    assert held.is_in_place
    held.close()


def test_a_socket_of_systemd_is_left_in_place(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "s"))
        made.listen()
        held = listen(folder / "s", made)
        held.close()
    assert (folder / "s").exists()


def test_a_socket_in_anothers_place_is_not_taken_away(folder: Path) -> None:
    held = listen(folder / "s")
    (folder / "s").unlink()
    (folder / "s").write_text("another")
    assert not held.is_in_place
    held.close()
    assert (folder / "s").exists()
