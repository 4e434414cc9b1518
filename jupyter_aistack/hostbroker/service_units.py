"""What systemd is told of the host broker, and the example of its settings."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system.broker_path import DEFAULT_PATH

from .admin_file import DEFAULT_FILE
from .listening import BACKLOG, FOLDER_MODE, SOCKET_MODE

UNIT_FOLDER = Path("/etc/systemd/system")
SERVICE_NAME = "aistack-broker.service"
SOCKET_NAME = "aistack-broker.socket"
SOCKET_FOLDER = Path(DEFAULT_PATH).parent
TMPFILES_PATH = Path("/etc/tmpfiles.d/aistack.conf")
ROOT_NAME = "root"
LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
"""What useradd(8) takes."""

MARK = "# by jupyter aistack broker install, unchanged while this holds: "
"""How the first line of each file begins, in the comments that all of them know."""

SERVICE = """\
[Unit]
Description=Slices of GPUs for Jupyter: the broker of this host
Requires={socket_name}
After=network.target {socket_name}
# A ledger that does not answer for long is no reason to give up.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
{user}WatchdogSec=60
TimeoutStartSec=300
Restart=on-failure
RestartSec=2
# What it has started for those who hold slices lives on while it is started again.
KillMode=process
StateDirectory=aistack
StateDirectoryMode=0700
LimitNOFILE=65536
OOMScoreAdjust=-500
NoNewPrivileges=yes
ProtectSystem={protect}
LockPersonality=yes
RestrictRealtime=yes

[Install]
WantedBy=multi-user.target
"""
SOCKET = """\
[Unit]
Description=Where Jupyter asks the broker of this host

[Socket]
ListenStream={path}
SocketMode={socket_mode:04o}
DirectoryMode={folder_mode:04o}
Backlog={backlog}

[Install]
WantedBy=sockets.target
"""
TMPFILES = "d {folder} {folder_mode:04o} {user} {user} -\n"
EXAMPLE = """\
# Settings of the broker of this host. It alone reads them, and only while nobody but
# root can write this file. After a change: systemctl reload aistack-broker, or wait a
# few seconds; `jupyter aistack broker check` names the line that is wrong.

# Who may change what belongs to others: logins and @groups.
# c.AIStack.admins = ["alice", "@gpu-admins"]

# Queues, and what each is owed. There is always a queue "default".
# c.AIStack.queues = {
#     "default": {"idle": {"badge": "30min", "notice": "55min", "reclaim": "60min"}},
#     "class": {"quota": 2, "members": ["@students"]},
# }

# What a user may have; "*" is for all who are not named.
# c.AIStack.user_limits = {"*": {"devices": 1, "hours_per_week": 40}}

# Whether users see the names of others.
# c.AIStack.show_names = True
"""


@dataclass(frozen=True, kw_only=True)
class ServiceFile:
    """A file of the service.

    Attributes:
        path: where it belongs.
        content: what it says.
        is_example: the administrator is to change it, so it is never written over.
    """

    path: Path
    content: str
    is_example: bool = False

    @property
    def marked(self) -> str:
        """The content below a line by which it is known that nobody has changed it."""
        return f"{MARK}{_digest(self.content)}\n{self.content}"


def is_unchanged(text: str) -> bool:
    """Whether a file is as some version of this package has written it."""
    first, _, content = text.partition("\n")
    return first == f"{MARK}{_digest(content)}"


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def service_files(python: str, user: str = ROOT_NAME) -> tuple[ServiceFile, ...]:
    """The files that make the broker a service.

    Args:
        python: the interpreter in which jupyter_aistack is installed.
        user: as whom it runs.

    Raises:
        InvalidRequest: that is no login.
    """
    if not LOGIN.fullmatch(user):
        raise InvalidRequest(
            f"user: {user!r} is no login: letters, digits, - and _", field="user"
        )
    is_root = user == ROOT_NAME
    service = SERVICE.format(
        command=f"{_quoted(python)} -m jupyter_aistack.cli broker",
        socket_name=SOCKET_NAME,
        user="" if is_root else f"User={user}\nReadWritePaths={SOCKET_FOLDER}\n",
        # Root writes where control groups and what shares a GPU out have their files.
        protect="full" if is_root else "strict",
    )
    socket = SOCKET.format(
        path=DEFAULT_PATH,
        socket_mode=SOCKET_MODE,
        folder_mode=FOLDER_MODE,
        backlog=BACKLOG,
    )
    folder = TMPFILES.format(folder=SOCKET_FOLDER, folder_mode=FOLDER_MODE, user=user)
    return (
        ServiceFile(path=UNIT_FOLDER / SERVICE_NAME, content=service),
        ServiceFile(path=UNIT_FOLDER / SOCKET_NAME, content=socket),
        ServiceFile(path=TMPFILES_PATH, content=folder),
        ServiceFile(path=DEFAULT_FILE, content=EXAMPLE, is_example=True),
    )


def _quoted(word: str) -> str:
    """A word of a command as systemd reads it; see systemd.service(5)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.replace("%", "%%").replace("$", "$$")
