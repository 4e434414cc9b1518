"""A process that submits a request to a ledger and prints as JSON what became of it:
``python -m tests.fakes.storage.writer URL [ID]``.
"""

from __future__ import annotations

import json
import os
import resource
import sys

import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401

from jupyter_aistack.core.model.request import Holder, HolderKind, Request
from jupyter_aistack.core.model.spec import parse_spec
from jupyter_aistack.exceptions import LedgerUnavailable
from jupyter_aistack.ledger.opening import open_ledger
from jupyter_aistack.ledger.sql.ledger import SQLLedger


def submit(url: str, request_id: str) -> dict[str, object]:
    """Submit a request, and read it again."""
    holder = Holder(kind=HolderKind.PROCESS, id="pid-1", user="ann", host="box")
    request = Request(
        id=request_id, spec=parse_spec("1/2"), holder=holder, submitted_at=0.0
    )
    try:
        ledger = open_ledger(url)
        assert isinstance(ledger, SQLLedger)
        ledger.submit(request)
        return {"requests": [each.id for each in ledger.read("box", 0.0).requests]}
    except LedgerUnavailable as error:
        return {"message": error.message, "problem": error.facts["problem"]}


def become(user: int) -> None:
    """Be another user from now on, in no other group than that of this number."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def main() -> None:
    """All is imported first: other users may not read where it lies."""
    limit = int(os.environ.get("FAKE_STORAGE_LIMIT", "0"))
    user = int(os.environ.get("FAKE_STORAGE_USER", "0"))
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if user:
        become(user)
    url, *rest = sys.argv[1:]
    print(json.dumps(submit(url, rest[0] if rest else "r-1")))


if __name__ == "__main__":
    main()
