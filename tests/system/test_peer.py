"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_aistack.system import peer as peer_module
from jupyter_aistack.system.peer import Peer, has_peer_credentials, peer_of

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


def test_a_user_without_a_number_here_may_be_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nobody = Peer(pid=1, uid=peer_module.overflow_uid())
    monkeypatch.setattr(peer_module.os, "getuid", lambda: nobody.uid)
    monkeypatch.setattr(peer_module, "is_first_user_namespace", lambda: True)
    assert nobody.is_own_user, "a server may run as nobody"
    monkeypatch.setattr(peer_module, "is_first_user_namespace", lambda: False)
    assert not nobody.is_own_user
    assert not Peer(pid=1, uid=0).is_own_user
