from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from jupyter_aistack.system.process_users import uid_of, uid_of_same
from jupyter_aistack.system.processes import identity_of

SWITCH = (
    "import os, sys; os.setuid(23001); print('ready', flush=True); sys.stdin.read()"
)


def test_a_process_acts_as_its_user() -> None:
    assert uid_of(os.getpid()) == os.geteuid()
    assert uid_of(2**22 + 5) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_process_that_has_changed_its_user_is_the_new_users() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", SWITCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert uid_of(process.pid) == 23001


def test_no_later_process_is_taken_for_one_of_its_number() -> None:
    own = identity_of(os.getpid())
    assert own.started is not None
    assert uid_of_same(own) == os.geteuid()
    assert uid_of_same(replace(own, started=own.started - 5.0)) is None
    assert uid_of_same(replace(own, started=None)) is None
    assert uid_of_same(replace(own, boot_id="another machine")) is None
