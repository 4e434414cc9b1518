"""A user's process that asks a host broker for leases and gives them back, again and
again; whatever gets lost on the way is asked for once more.

It is started as root and becomes that user, with nothing but the standard library: other
users may not be able to read the rest. What it was told is in its journal, a line each.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from typing import Any

JSON = dict[str, Any]
SPECS = ("1/4", "1/4", "1/2", "1")
PATIENCE_SECONDS = (0.0, 0.0, 3.0)
HOLD_SECONDS = 0.02
RETRY_SECONDS = 0.1
ANSWER_SECONDS = 60.0
UNANSWERED = frozenset({"LedgerUnavailable", "LedgerConflict", "LedgerError", "Lost"})
"""Errors that say nothing of what was asked for."""


class Client:
    """One process and its journal.

    Args:
        socket_path: of the broker.
        name: of its journal and its keys.
        journal: descriptor of the journal.
    """

    def __init__(self, socket_path: str, name: str, journal: int) -> None:
        self._path = socket_path
        self._name = name
        self._journal = journal
        self._chance = random.Random(name)
        self._connection: socket.socket | None = None
        self._answers: Any = None

    def run(self, operations: int) -> None:
        """Ask so often."""
        for number in range(operations):
            self._operate(f"{self._name}-{number}")
            self._note("done", key=f"{self._name}-{number}")

    def _operate(self, key: str) -> None:
        self._note("asks", key=key)
        payload = {
            "spec": self._chance.choice(SPECS),
            "patience_seconds": self._chance.choice(PATIENCE_SECONDS),
            "idempotency_key": key,
        }
        answer = self._ask("request", payload)
        while "error" not in answer and answer["request"]["state"] == "queued":
            time.sleep(HOLD_SECONDS)
            answer = self._ask("wait_for", {"request_id": answer["request"]["id"]})
        if "error" in answer:
            self._note("refused", key=key, code=answer["error"]["code"])
        elif answer["lease"] is None:
            self._note("refused", key=key, code=answer["request"]["code"])
        else:
            self._use(key, answer["lease"]["id"])

    def _use(self, key: str, lease_id: str) -> None:
        self._note("handed", key=key, lease=lease_id)
        time.sleep(self._chance.uniform(0, 2 * HOLD_SECONDS))
        answer = self._ask("release", {"lease_id": lease_id})
        outcome = answer["error"]["code"] if "error" in answer else answer["outcome"]
        self._note("given-back", key=key, lease=lease_id, outcome=outcome)

    def _note(self, word: str, **facts: str) -> None:
        os.write(self._journal, json.dumps({"word": word, **facts}).encode() + b"\n")

    # -- asking ------------------------------------------------------------------------

    def _ask(self, verb: str, payload: JSON) -> JSON:
        """The result of a call, or why it was refused; asked until it is answered."""
        while True:
            answer = self._try(verb, payload)
            error = answer.get("error")
            if error is None:
                result: JSON = answer["result"]
                return result
            if error["code"] not in UNANSWERED:
                return answer
            time.sleep(RETRY_SECONDS)

    def _try(self, verb: str, payload: JSON) -> JSON:
        try:
            if self._connection is None:
                self._connect()
            return self._say({"verb": verb, "payload": payload})
        except (OSError, ValueError):
            self._disconnect()
            return {"error": {"code": "Lost"}}

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(self._path)
        self._connection = connection
        self._answers = connection.makefile()
        self._say({"protocol": [1, 1], "client": "stress"})

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _say(self, message: JSON) -> JSON:
        assert self._connection is not None
        self._connection.sendall(json.dumps(message).encode() + b"\n")
        answer: JSON = json.loads(self._answers.readline())
        return answer


def main() -> None:
    """Become the user that is named, and ask."""
    path, journal, name, uid, operations = sys.argv[1:]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptor = os.open(journal, flags, 0o600)
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
    Client(path, name, descriptor).run(int(operations))


if __name__ == "__main__":
    main()
