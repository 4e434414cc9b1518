"""A host broker as its own process, and processes of several users that speak to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.waiting import wait_until

ALICE, BOB, CAROL, DAVE = 23001, 23002, 23003, 23004
"""Users without a name; only root can become one of them."""
PROVIDERS = "simulated:2xH100-80GB"
GREETING = {"protocol": [1, 1], "client": "a test"}

SPEAKER = """
import json, os, socket, sys
path, greeting, uid = sys.argv[1:]
if uid:
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
print("ready", flush=True)
for line in sys.stdin:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(path)
            connection.sendall(greeting.encode() + b"\\n" + line.encode())
            answers = connection.makefile()
            first, second = answers.readline(), answers.readline()
        print(second.strip() or first.strip() or "{}", flush=True)
    except OSError as error:
        print(json.dumps({"lost": str(error)}), flush=True)
"""
"""Sends each line of its input to a broker, and prints the answer."""


@dataclass
class Speaker:
    """A process of a user that holds what it asks for."""

    process: subprocess.Popen[str]
    uid: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, verb: str, *, caller: Any = None, **payload: Any) -> Any:
        """The whole answer to a call."""
        self.send(verb, caller=caller, **payload)
        return self.hear()

    def send(self, verb: str, *, caller: Any = None, **payload: Any) -> None:
        message = {"verb": verb, "payload": payload}
        if caller is not None:
            message["caller"] = caller
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, verb: str, **payload: Any) -> Any:
        """The result of a call that is answered."""
        answer = self.say(verb, **payload)
        assert "result" in answer, answer
        return answer["result"]

    def request(self, spec: str = "1/4", **payload: Any) -> Any:
        """The lease that is granted at once."""
        lease = self.ask("request", spec=spec, **payload)["lease"]
        assert lease is not None, "nothing is free"
        return lease

    def end(self) -> None:
        """Kill it, and wait till it is gone."""
        self.process.kill()
        self.process.wait()


@dataclass
class LiveBroker:
    """A host broker, which may be killed and started again."""

    folder: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    owner: int | None = None
    program: tuple[str, ...] = ("jupyter_aistack.cli",)
    launcher: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    speakers: list[Speaker] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "broker.sock"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self) -> list[str]:
        ledger = f"sqlite:///{self.folder / 'state' / 'ledger.sqlite'}"
        own = ["--socket", str(self.path), "--ledger", ledger]
        command = [*self.launcher, sys.executable, "-m", *self.program, "broker", *own]
        return [*command, *self.options]

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it, and do not wait."""
        environment = {**os.environ, "AISTACK_PROVIDERS": PROVIDERS, **self.environment}
        environment.pop("AISTACK_LEDGER", None)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), env=environment, stdout=log, stderr=log
            )
        return self.process

    def start(self) -> None:
        """Start it, and wait till it answers."""
        process = self.spawn()
        before = self.log.count("listens at")

        def listens() -> bool:
            assert process.poll() is None, self.log
            return self.log.count("listens at") > before

        wait_until(listens, otherwise=lambda: self.log)

    def kill(self) -> None:
        """As a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As systemd would; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def speaker(self, uid: int | None = None, *, token: str = "") -> Speaker:
        """A process of a user, of this test's own without one, that shows a token."""
        own = os.getuid() if uid is None else uid
        process = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-c",
                SPEAKER,
                str(self.path),
                json.dumps({**GREETING, "token": token} if token else GREETING),
                "" if uid is None else str(uid),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        speaker = Speaker(process, own)
        self.speakers.append(speaker)
        return speaker


@contextmanager
def live_broker(folder: Path, *options: str, **fields: Any) -> Iterator[LiveBroker]:
    """A host broker in `folder`, which others may enter, and its end."""
    for name in (folder, folder / "state"):
        name.mkdir(exist_ok=True)
    folder.chmod(0o755)
    (folder / "state").chmod(0o700)
    broker = LiveBroker(folder, options, **fields)
    if broker.owner is not None:
        for name in (folder, folder / "state"):
            os.chown(name, broker.owner, broker.owner)
    try:
        broker.start()
        yield broker
    finally:
        for speaker in broker.speakers:
            speaker.end()
        if broker.process is not None and broker.process.poll() is None:
            broker.stop()
