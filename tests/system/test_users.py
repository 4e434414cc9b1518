"""A user is who the operating system says, whatever the environment says."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_aistack.system import users
from jupyter_aistack.system.users import (
    current_user,
    groups_of,
    is_first_user_namespace,
    is_root,
    login_of,
    uid_of_login,
)
from tests.fakes.namespaces import container, needs_namespaces


def test_the_environment_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "prof")
    assert current_user() == login_of(os.getuid()) != "prof"


def test_a_user_without_a_name_is_its_number() -> None:
    nobody_has = max(entry.pw_uid for entry in pwd.getpwall()) + 4711
    assert login_of(nobody_has) == f"uid-{nobody_has}"
    assert groups_of(f"uid-{nobody_has}") == frozenset()


@needs_namespaces
def test_root_of_a_user_namespace_is_not_root() -> None:
    setup = "from jupyter_aistack.system.users import *"
    with container(setup, options=("--map-root-user",)) as inside:
        assert inside.ask("__import__('os').getuid()") == 0
        assert inside.ask("is_first_user_namespace()") is False
        assert inside.ask("is_root()") is False
        assert inside.ask("current_user()") == f"uid-{os.getuid()}"


@needs_namespaces
@pytest.mark.skipif(not is_root(), reason="needs root, to become another user")
def test_a_user_who_makes_itself_root_keeps_its_number() -> None:
    code = (
        "from jupyter_aistack.system.users import *; print(current_user(), is_root())"
    )
    prepare = (
        "import os, sys, ctypes; ctypes.CDLL(None, use_errno=True);"
        "os.setgid(65534); os.setuid(65534);"
        "os.execvp('unshare', ['unshare', '--map-root-user', *sys.argv[1:]])"
    )
    told = subprocess.run(
        [sys.executable, "-c", prepare, sys.executable, "-c", code],
        capture_output=True,
        text=True,
    )
    if "denied" in told.stderr or "not permitted" in told.stderr:
        pytest.skip("other users may make no user namespaces, or not read this Python")
    assert told.stdout.split() == ["uid-65534", "False"], told.stderr


def test_the_whole_map_is_that_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps = {
        "machine": [["0", "0", "4294967295"]],
        "own": [["0", "1000", "1"]],
        "many": [["0", "1000", "1"], ["1", "100000", "65536"]],
    }
    monkeypatch.setattr(users, "_user_map", lambda: maps["many"])
    assert not is_first_user_namespace()
    assert [users._outside(uid) for uid in (0, 1, 7)] == [1000, 100000, 100006]
    monkeypatch.setattr(users, "_user_map", lambda: maps["machine"])
    assert is_first_user_namespace()
    monkeypatch.setattr(users, "_user_map", lambda: None)
    assert is_first_user_namespace(), "there are no user namespaces"


def test_no_module_asks_the_environment_who_it_is() -> None:
    package = Path(users.__file__).parent.parent
    asking = ("getpass", "LOGNAME", 'environ["USER"]', 'environ.get("USER"', "getlogin")
    strays = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(word in path.read_text() for word in asking)
    ]
    assert strays == []


def test_a_login_has_the_number_that_it_was_made_of() -> None:
    for uid in (0, 23001):
        assert uid_of_login(login_of(uid)) == uid
    assert uid_of_login("nobody-of-this-host") is None
    assert uid_of_login("uid-x") is None
