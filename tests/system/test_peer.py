"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_aistack.system.peer import has_peer_credentials, peer_of

pytestmark = pytest.mark.skipif(
    not has_peer_credentials(), reason="this system does not name a socket's peer"
)

CONNECT = (
    "import socket, sys; line = socket.socket(socket.AF_UNIX);"
    " line.connect(sys.argv[1]); line.recv(1)"
)


def test_both_ends_of_a_pair_are_this_process() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        assert peer_of(left) == (os.getpid(), os.getuid())


def test_another_process_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with subprocess.Popen([sys.executable, "-c", CONNECT, path]) as child:
            connection, _ = listener.accept()
            with connection:
                peer = peer_of(connection)
    assert peer.pid == child.pid
    assert peer.uid == os.getuid()
