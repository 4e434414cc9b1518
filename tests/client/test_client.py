from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest

from jupyter_aistack.client import client as clients
from jupyter_aistack.client.client import Client, LeaseHandle, request
from jupyter_aistack.client.durations import lease_seconds, patience_seconds
from jupyter_aistack.client.embedded import EmbeddedTransport
from jupyter_aistack.client.lease_guard import own_lease
from jupyter_aistack.client.runtime import attach as attaching
from jupyter_aistack.client.transports import SocketTransport, Transport
from jupyter_aistack.core.model.condition import conditions_text
from jupyter_aistack.exceptions import (
    AcquireTimeout,
    AIStackError,
    InvalidRequest,
    LeaseError,
    LeaseLost,
    LedgerUnavailable,
    QuotaExceeded,
    Refused,
    UnknownProfile,
    UnknownQueue,
    Unsatisfiable,
)


@pytest.fixture
def gpu_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    client = Client(EmbeddedTransport())
    yield client
    client.close()


@pytest.fixture
def second(gpu_client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Another process's view of the same ledger, as far as the broker can tell."""
    monkeypatch.setenv("AISTACK_KERNEL", "kernel-2")
    client = Client(EmbeddedTransport())
    yield client
    client.close()


def test_a_lease_is_held_inside_the_with_and_given_back_after(
    gpu_client: Client,
) -> None:
    with gpu_client.request("1/4") as lease:
        assert (lease.state, lease.spec, lease.enforced_by) == (
            "active",
            "1/4",
            "simulated",
        )
        assert os.environ["AISTACK_LEASE"] == lease.id
        assert [result["id"] for result in gpu_client.leases()] == [lease.id]
        assert "nothing: the device is simulated" in repr(lease)
    assert gpu_client.leases() == []
    assert "AISTACK_LEASE" not in os.environ
    assert lease.release().lease["outcome"] == "released"  # type: ignore[index]


def test_a_lease_says_up_to_what_it_may_be_used(gpu_client: Client) -> None:
    with gpu_client.request("1/4", up_to="1/1", attach=False) as lease:
        assert ", 20.0 GiB, up to 1/1, " in repr(lease)


class LostAnswers(Transport):
    """Passes on what is asked, and loses the answer to requests.

    Args:
        inner: where to.
        error: what is raised instead.
    """

    kind = "lost"

    def __init__(self, inner: Transport, error: BaseException) -> None:
        self.inner = inner
        self.error = error

    def close(self) -> None:
        self.inner.close()

    def call(self, verb: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        answer = self.inner.call(verb, payload)
        if verb == "request":
            raise self.error
        return answer


@pytest.mark.parametrize(
    "error",
    [
        LedgerUnavailable("no Jupyter server answers"),
        AIStackError("the Jupyter server closed the connection"),
        KeyboardInterrupt(),
        RuntimeError("out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lease_whose_asker_got_no_answer_is_taken_back(
    gpu_client: Client, error: BaseException
) -> None:
    lost = Client(LostAnswers(EmbeddedTransport(), error))
    with gpu_client.request("1/2", attach=False):
        for spec in ("1/4", "1"):  # granted, and queued
            with pytest.raises(type(error)):
                lost.request(spec, attach=False)
    assert gpu_client.leases() == gpu_client.queue() == []
    assert "failed" in [lease["outcome"] for lease in gpu_client.leases(ended=True)]
    lost.close()


def test_a_cpu_slice_binds_this_process_and_lets_go_of_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "cpu")
    before = os.sched_getaffinity(0)
    client = Client(EmbeddedTransport())
    try:
        with client.request("cpu:1") as lease:
            assert os.sched_getaffinity(0) == set(lease.prepared.cores)
            assert len(lease.prepared.cores) == 1
            assert os.environ["OMP_NUM_THREADS"] == "1"
            assert (
                lease.verified,
                lease.enforced_by,
                conditions_text(lease.conditions),
            ) == (True, "C", "")
    finally:
        client.close()
    assert os.sched_getaffinity(0) == before


def test_a_second_slice_for_the_same_process_is_refused_with_the_way_out(
    gpu_client: Client,
) -> None:
    with (
        gpu_client.request("1/4") as lease,
        pytest.raises(LeaseError, match=f"{lease.id}.*release it"),
    ):
        gpu_client.request("1/2")


def end(client: Client, lease: LeaseHandle) -> None:
    """As the panel's Release does."""
    client.call("release", lease_id=lease.id)


def test_a_lease_that_has_ended_does_not_stand_in_the_way(
    gpu_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    first = gpu_client.request("1/4")
    end(gpu_client, first)
    with gpu_client.request("1/2") as lease:
        assert os.environ["AISTACK_LEASE"] == lease.id
    assert (
        f"the lease {first.id} has ended: released; this kernel runs without a device now"
        in caplog.text
    )
    assert "AISTACK_LEASE" not in os.environ


@pytest.mark.parametrize("seconds", [5, numpy.int64(5), numpy.float32(5)])
def test_seconds_may_be_a_number_of_any_type(seconds: Any) -> None:
    read = [lease_seconds(seconds), patience_seconds(seconds)]
    assert json.dumps(read) == "[5.0, 5.0]"
    assert patience_seconds(0 * seconds) == 0.0


def test_no_patience_may_be_written_as_a_command_line_has_it() -> None:
    assert patience_seconds("0") == patience_seconds("0s") == 0.0
    with pytest.raises(InvalidRequest, match="is not a duration"):
        patience_seconds(False)


def test_an_extension_is_at_least_a_second(gpu_client: Client) -> None:
    with gpu_client.request("1/4", duration="1h") as lease:
        with pytest.raises(
            InvalidRequest,
            match=r"duration: 0\.1 is too short; it is at least 1 second",
        ):
            lease.extend(0.1)
        before = lease.lease["ends_at"]  # type: ignore[index]
        assert lease.extend("1min").lease["ends_at"] == before + 60  # type: ignore[index]


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), LeaseError("it has ended"), RuntimeError("a bug")],
    ids=repr,
)
def test_an_attachment_that_fails_leaves_nothing_behind(
    gpu_client: Client, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    # threadpoolctl sets it when it is imported, for as long as the process lives.
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "True")
    environment = dict(os.environ)
    monkeypatch.setattr(attaching, "verify", fail)
    with pytest.raises(type(error)):
        gpu_client.request("1/4")
    assert clients.attached() is None
    assert dict(os.environ) == environment
    assert gpu_client.leases() == []


def test_ctrl_c_need_not_wait_for_a_driver_that_starts_slowly(
    gpu_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []

    def start_slowly(_: object, __: object, on_slow: Callable[[float], None]) -> None:
        on_slow(2.0)
        os.kill(os.getpid(), signal.SIGINT)
        on_slow(3.0)
        raise AssertionError("it was waited for")

    monkeypatch.setattr(attaching, "verify", start_slowly)
    with pytest.raises(KeyboardInterrupt):
        gpu_client.request("1/4", on_check=told.append)
    assert told == [2.0, 3.0]
    assert (clients.attached(), gpu_client.leases()) == (None, [])


def test_a_server_that_dies_meanwhile_leaves_this_process_as_it_was(
    gpu_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise LedgerUnavailable("nobody answers")

    held = gpu_client.request("1/4", attach=False)
    environment = dict(os.environ)
    with monkeypatch.context() as patch:
        patch.setattr(gpu_client, "call", die)
        with pytest.raises(LedgerUnavailable):
            held.attach()
        assert clients.attached() is None
        assert dict(os.environ) == environment
    held.release()


def test_a_lease_this_process_was_born_with_is_kept_when_it_cannot_be_attached(
    gpu_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = gpu_client.request("1/4", attach=False)
    monkeypatch.setattr(attaching, "LAUNCH_LEASES", frozenset({held.id}))
    monkeypatch.setattr(attaching, "verify", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        held.attach()
    assert [lease["id"] for lease in gpu_client.leases()] == [held.id]
    held.release()


def test_what_a_process_is_born_with_is_read_once() -> None:
    code = "import os; os.environ.update(AISTACK_LEASE='l-9'); print(*sorted(attach.LAUNCH_LEASES))"
    code = f"from jupyter_aistack.client.runtime import attach; {code}"
    env = {**os.environ, "AISTACK_LEASE": "l-1,l-2"}
    assert subprocess.check_output(
        [sys.executable, "-c", code], env=env, text=True
    ).split() == ["l-1", "l-2"]


def test_not_waiting_returns_the_place_in_the_queue(
    gpu_client: Client, second: Client
) -> None:
    first = gpu_client.request("1", attach=False)
    waiting = second.request("1/2", wait=False, attach=False)
    assert (waiting.is_granted, waiting.state, waiting.request["position"]) == (
        False,
        "queued",
        1,
    )
    assert (
        waiting.reason
        == "needs 1/2 of a GPU; what is in its way has no end that is known"
    )
    first.release()
    assert waiting.refresh().is_granted


def test_waiting_ends_when_the_other_releases_and_tells_why_it_waits(
    gpu_client: Client, second: Client
) -> None:
    first = gpu_client.request("1", attach=False)
    told: list[tuple[int | None, str]] = []

    def release(position: int | None, reason: str) -> None:
        told.append((position, reason))
        threading.Thread(target=first.release).start()

    assert second.request("1/2", attach=False, on_wait=release).is_granted
    assert told[0] == (
        1,
        "needs 1/2 of a GPU; what is in its way has no end that is known",
    )


def test_a_wait_that_nobody_watches_is_told_on_stderr(
    gpu_client: Client,
    second: Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("jupyter_aistack.client.waiting.SILENT_SECONDS", 0.0)
    first = gpu_client.request("1", attach=False)
    with pytest.raises(AcquireTimeout):
        second.request("1/2", attach=False, timeout=0.2)
    assert capsys.readouterr().err == (
        "aistack waits for 1/2, number 1 in the queue: needs 1/2 of a GPU; what is in "
        "its way has no end that is known\n"
    )
    first.release()


def test_a_timeout_leaves_nothing_behind(gpu_client: Client, second: Client) -> None:
    first = gpu_client.request("1", attach=False)
    with pytest.raises(AcquireTimeout, match="waits for 1/2") as caught:
        second.request("1/2", attach=False, timeout=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert second.queue() == []
    first.release()


def test_a_timeout_of_zero_does_not_wait(gpu_client: Client, second: Client) -> None:
    first = gpu_client.request("1", attach=False, timeout=0)
    with pytest.raises(AcquireTimeout, match="waits for 1/2"):
        second.request("1/2", attach=False, timeout=0)
    assert second.queue() == []
    first.release()


def test_patience_that_ends_on_the_other_side_is_a_timeout_too(
    gpu_client: Client, second: Client
) -> None:
    gpu_client.request("1", attach=False)
    with pytest.raises(AcquireTimeout, match="waits for 1/2"):
        LeaseHandle(
            second, second.call("request", spec="1/2", patience_seconds=0.05)
        ).wait()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AcquireTimeout", AcquireTimeout),
        ("Refused", Refused),
        ("QuotaExceeded", QuotaExceeded),
    ],
)
def test_why_a_waiting_request_was_turned_down_decides_the_error(
    gpu_client: Client,
    second: Client,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    error: type[Exception],
) -> None:
    def reject(held: LeaseHandle) -> None:
        held.request = {**held.request, "state": "rejected", "code": code}

    gpu_client.request("1", attach=False)
    waiting = second.request("1/2", attach=False, wait=False)
    monkeypatch.setattr(LeaseHandle, "refresh", reject)
    with pytest.raises(error) as caught:
        waiting.wait()
    assert type(caught.value) is error


def test_an_interrupt_while_waiting_takes_the_request_back(
    gpu_client: Client, second: Client
) -> None:
    gpu_client.request("1", attach=False)

    def interrupt(position: int | None, reason: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        second.request("1/2", attach=False, on_wait=interrupt)
    assert second.queue() == []


def test_a_request_taken_back_by_somebody_else_is_said_so(
    gpu_client: Client, second: Client
) -> None:
    gpu_client.request("1", attach=False)

    def cancel(position: int | None, reason: str) -> None:
        gpu_client.cancel(gpu_client.queue()[0]["id"])

    with pytest.raises(Refused, match="withdrawn"):
        second.request("1/2", attach=False, on_wait=cancel)


@pytest.mark.parametrize(
    ("spec", "options", "error", "field"),
    [
        ("banana", {}, InvalidRequest, "spec"),
        ("nan", {}, InvalidRequest, "spec"),
        ("1000000000", {}, InvalidRequest, "spec"),
        ("2", {}, Unsatisfiable, "spec"),
        ("1g.18gb", {}, UnknownProfile, "spec"),
        ("1/4", {"queue": "nowhere"}, UnknownQueue, "queue"),
        ("1/4", {"duration": "soon"}, InvalidRequest, "duration"),
        ("1/4", {"duration": [1]}, InvalidRequest, "duration"),
        ("1/4", {"duration": True}, InvalidRequest, "duration"),
        ("1/4", {"duration": 0.5}, InvalidRequest, "duration"),
        ("1/4", {"duration": 10**400}, InvalidRequest, "duration"),
        ("1/4", {"timeout": float("nan")}, InvalidRequest, "timeout"),
        ("1/4", {"timeout": -1}, InvalidRequest, "timeout"),
        ("1/4", {"timeout": "never"}, InvalidRequest, "timeout"),
        (
            "1/4",
            {"holder": {"kind": "ghost", "id": "x"}},
            InvalidRequest,
            "holder.kind",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    gpu_client: Client,
    spec: str,
    options: dict[str, object],
    error: type[Exception],
    field: str,
) -> None:
    with pytest.raises(error) as caught:
        gpu_client.request(spec, attach=False, **options)  # type: ignore[arg-type]
    assert caught.value.facts["field"] == field  # type: ignore[attr-defined]
    assert len(str(caught.value).splitlines()) == 1
    assert gpu_client.leases() == []
    assert gpu_client.queue() == []


def test_the_socket_of_a_dead_server_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        LedgerUnavailable,
        match=r"AISTACK_SOCKET: no Jupyter server answers at .*gone\.sock",
    ):
        Client(SocketTransport(str(tmp_path / "gone.sock"))).host()


def test_a_ledger_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(
        "AISTACK_LEDGER", f"sqlite:///{tmp_path / 'file' / 'ledger.sqlite'}"
    )
    with pytest.raises(LedgerUnavailable, match="ledger_url"):
        Client(EmbeddedTransport()).leases()


def test_a_process_that_dies_with_a_lease_loses_it_at_once(gpu_client: Client) -> None:
    code = """
import os, signal
from jupyter_aistack import request
print(request("1", attach=False).id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    lease_id = done.stdout.strip()
    assert lease_id.startswith("l-"), done.stderr
    assert gpu_client.request("1", attach=False, timeout=10).is_granted
    ended = {lease["id"]: lease["outcome"] for lease in gpu_client.leases(ended=True)}
    assert ended[lease_id] == "abandoned"


def test_the_front_door_uses_one_client_per_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    monkeypatch.setattr(clients, "_connected", None)
    with request("1/8", attach=False, label="by hand") as lease:
        assert clients.connect() is clients.connect()
        assert lease.lease["holder"]["label"] == "by hand"  # type: ignore[index]
    clients.connect().close()


def test_the_front_door_tells_its_arguments_without_a_self() -> None:
    signature = inspect.signature(request)
    assert list(signature.parameters)[:3] == ["spec", "wait", "timeout"]
    assert (
        request.__name__,
        "AcquireTimeout: not within" in (request.__doc__ or ""),
    ) == ("request", True)


def test_a_lease_on_a_closed_device_is_still_the_kernels_own() -> None:
    """Nothing can be prepared on a device that is closed."""
    worker = {"id": "l-1", "holder": {"id": "w-1", "kind": "worker"}}
    own = {"id": "l-2", "holder": {"id": "k-1", "kind": "kernel"}}
    mine: dict[str, Any] = {"owner": "k-1", "leases": [worker, own], "prepared": {}}
    assert own_lease(mine) == own
    assert own_lease({**mine, "leases": [worker]}) is None


def test_a_lease_that_is_said_to_be_lost_is_dropped(gpu_client: Client) -> None:
    class Forgetful:
        def call(self, verb: str, **payload: object) -> Any:
            raise LeaseLost("lease l-1 has ended (failed); request a new one")

    answer = gpu_client.call("request", spec="1/4")
    handle = LeaseHandle(Forgetful(), answer)
    assert handle.drop() == "lease l-1 has ended (failed); request a new one"
