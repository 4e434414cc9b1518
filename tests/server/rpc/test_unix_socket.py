"""The Unix socket, with real processes at the other end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from jupyter_aistack.broker.api.line_server import MAX_LINE_BYTES
from jupyter_aistack.server.app import ServerContext
from jupyter_aistack.server.rpc.unix_socket import SocketServer, remove_stale
from jupyter_aistack.system.users import current_user

Say = Callable[..., Awaitable[Any]]

# Calls the socket and prints the answer; with a depth, from that many processes below.
CALLER = """
import json, os, socket, subprocess, sys
path, line, depth, uid = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if depth:
    below = [sys.executable, "-c", os.environ["CALLER"], path, line, str(depth - 1), str(uid)]
    sys.exit(subprocess.run(below).returncode)
if uid >= 0:
    os.setuid(uid)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(path)
    connection.sendall(line.encode() + b"\\n")
    print(connection.makefile().readline(), end="")
"""


async def call_from_child(
    path: str, verb: str, *, depth: int = 0, uid: int = -1, **payload: Any
) -> tuple[int, str]:
    """Exit status and output of a child process that makes one call."""
    line = json.dumps({"verb": verb, "payload": payload})
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, path, line, str(depth), str(uid),
        env={**os.environ, "CALLER": CALLER}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, errors = await child.communicate()
    return child.returncode or 0, (out or errors).decode()


async def exchange(path: str, *lines: bytes) -> list[Any]:
    """The answers to lines sent on one connection from this process."""
    reader, writer = await asyncio.open_unix_connection(path, limit=2**24)
    answers = []
    try:
        for line in lines:
            writer.write(line + b"\n")
            answers.append(json.loads(await asyncio.wait_for(reader.readline(), 10)))
    finally:
        writer.close()
    return answers


@pytest.fixture
def path(context: ServerContext) -> str:
    return context.socket_path


def test_socket_is_the_owners_alone_and_its_path_is_short(path: str) -> None:
    status = Path(path).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert stat.S_ISSOCK(status.st_mode)
    assert len(path) <= 100


async def test_socket_goes_with_the_server(
    path: str, server: Any, context: ServerContext
) -> None:
    await server.extension_manager.stop_all_extensions()
    assert not Path(path).exists()
    assert context.socket_path == ""
    assert context.broker.inventory().devices, (
        "kernels still need the broker to release"
    )


async def test_one_connection_carries_many_calls(path: str) -> None:
    host, leases = await exchange(
        path, b'{"verb": "host", "payload": {}}', b'{"verb": "leases"}'
    )
    assert host["result"]["simulated"] is True
    assert leases == {"result": {"leases": []}}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"nonsense", "JSON"),
        (b"\xff", "UTF-8"),
        (b"", "JSON"),
        (b"[]", "object"),
        (b'{"verb": "fly"}', "verb"),
        (b"{}", "verb"),
        (b'{"verb": "host", "payload": []}', "payload"),
        (b'{"verb": "host", "token": "x"}', "token"),
        (b'{"verb": "request", "payload": {"spec": "-1"}}', "spec"),
    ],
)
async def test_broken_line_is_answered_and_the_connection_goes_on(
    path: str, line: bytes, word: str
) -> None:
    refused, host = await exchange(path, line, b'{"verb": "host"}')
    assert refused["error"]["code"] == "InvalidRequest"
    assert word in refused["error"]["message"]
    assert "result" in host


async def test_endless_line_ends_the_connection_with_a_sentence(path: str) -> None:
    (answer,) = await exchange(path, b"x" * (MAX_LINE_BYTES + 10))
    assert answer["error"]["code"] == "InvalidRequest"
    assert str(MAX_LINE_BYTES) in answer["error"]["message"]


async def test_process_that_is_no_kernel_holds_for_itself(path: str) -> None:
    status, text = await call_from_child(path, "request", spec="1/4")
    holder = json.loads(text)["result"]["lease"]["holder"]
    assert status == 0
    assert (holder["kind"], holder["id"], holder["user"]) == (
        "process",
        f"pid-{holder['pid']}",
        current_user(),
    )


async def test_caller_cannot_pass_for_another(path: str) -> None:
    for claimed in (
        {"kind": "kernel", "id": "not-mine"},
        {"label": "x", "user": "root"},
        {"label": "x", "pid": 1},
    ):
        _, text = await call_from_child(path, "request", spec="1/4", holder=claimed)
        assert json.loads(text)["error"]["code"] == "InvalidRequest"
    _, text = await call_from_child(path, "request", spec="1/4", holder={"label": "x"})
    holder = json.loads(text)["result"]["lease"]["holder"]
    assert (holder["user"], holder["label"]) == (current_user(), "x")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_other_user_cannot_open_the_socket_and_is_refused_even_if_they_could(
    path: str,
) -> None:
    for folder in Path(path).parents:  # tests run in a folder that is closed to others
        if (
            folder.stat().st_uid == os.getuid()
            and folder != Path("/")
            and not folder.stat().st_mode & 0o001
        ):
            folder.chmod(0o711)
    status, text = await call_from_child(path, "leases", uid=65534)
    assert status != 0
    assert "PermissionError" in text
    Path(path).chmod(0o666)
    status, text = await call_from_child(path, "leases", uid=65534)
    assert json.loads(text)["error"]["code"] == "PermissionDenied"


KERNEL_CELL = """
import json, os, socket, subprocess, sys
CALLER = {caller!r}
def call(depth):
    line = json.dumps({{"verb": "mine", "payload": {{}}}})
    argv = [sys.executable, "-c", CALLER, {path!r}, line, str(depth), "-1"]
    environment = {{**os.environ, "CALLER": CALLER}}
    return json.loads(subprocess.run(argv, env=environment, capture_output=True, text=True).stdout)
def me(verb, **payload):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect({path!r})
        line = json.dumps({{"verb": verb, "payload": payload}})
        connection.sendall(line.encode() + b"\\n")
        return json.loads(connection.makefile().readline())
told = {{"request": me("request", spec="1/4"), "own": me("mine"), "below": [call(0), call(2)]}}
print(json.dumps({{**told, "environment": dict(os.environ)}}))
"""


async def run_cell(server: Any, kernel_id: str, code: str) -> str:
    """What a cell prints, run in a kernel of the server."""
    client = server.kernel_manager.get_kernel(kernel_id).client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    printed: list[str] = []

    def hook(message: Any) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = await client.execute_interactive(code, output_hook=hook, timeout=60)
    client.stop_channels()
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(printed)


async def test_a_kernel_is_known_by_its_process_and_so_is_each_below_it(
    path: str, server: Any, jp_fetch: Any, jp_create_notebook: Any
) -> None:
    jp_create_notebook("deep.ipynb")
    session = {
        "path": "deep.ipynb",
        "name": "deep.ipynb",
        "type": "notebook",
        "kernel": {"name": "python3"},
    }
    response = await jp_fetch(
        "api", "sessions", method="POST", body=json.dumps(session)
    )
    kernel_id = json.loads(response.body)["kernel"]["id"]
    code = KERNEL_CELL.format(caller=CALLER, path=path)
    text = json.loads(await run_cell(server, kernel_id, textwrap.dedent(code)))
    lease = text["request"]["result"]["lease"]
    holder = lease["holder"]
    assert (holder["kind"], holder["id"], holder["label"]) == (
        "kernel",
        kernel_id,
        "deep.ipynb",
    )
    assert [own["id"] for own in text["own"]["result"]["leases"]] == [lease["id"]]
    # What a kernel starts holds what it asks for itself: not what the kernel holds.
    assert [answer["result"]["leases"] for answer in text["below"]] == [[], []]
    token = server.identity_provider.token
    assert token
    assert [name for name, value in text["environment"].items() if token in value] == []
    await server.kernel_manager.shutdown_kernel(kernel_id, now=True)


def test_socket_of_a_dead_server_is_cleaned_up_and_others_are_left(
    tmp_path: Path,
) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path("/tmp") / f"aistack-test-{os.getpid()}"
    folder.mkdir()
    try:
        stale, own, other = (
            folder / f"aistack-{name}.sock"
            for name in (dead.stdout.strip(), os.getpid(), "x")
        )
        for path in (stale, own):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        other.write_text("not a socket")
        remove_stale(folder)
        assert sorted(folder.iterdir()) == sorted([own, other])
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


async def test_long_runtime_folder_gives_way_to_a_short_private_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    context: ServerContext,
    server: Any,
) -> None:
    from jupyter_aistack.server.kernels import KernelRegistry

    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    sockets = SocketServer(context, KernelRegistry(server), str(folder))
    path = await sockets.start()
    assert len(path) <= 100
    assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
    assert "result" in (await exchange(path, b'{"verb": "host"}'))[0]
    await sockets.close()
    assert not Path(path).parent.exists()


async def test_broker_that_cannot_be_built_is_explained_on_the_socket(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"this is no database" * 1000)
    monkeypatch.setenv("AISTACK_LEDGER", f"sqlite:///{broken}")
    (answer,) = await exchange(path, b'{"verb": "host"}')
    assert "ledger" in answer["error"]["message"]
