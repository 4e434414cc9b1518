"""MPS protocol 3: named servers and namespaces (NVIDIA MPS documentation, "MPS v3
Interface", release 615).

Each lease has a namespace with both limits of its own, and its clients reach that by
the directory they name. A namespace without limits has the whole GPU, so both are set
and read back before any client is given the directory.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from jupyter_aistack.exceptions import ProviderError

from .control import MPSControl, MPSLimit, MPSServer
from .limits import STRAY_MIB, STRAY_PERCENT
from .users import PASSABLE, give_to, is_passable

_CSV = "--format=csv,noheader"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG])i?B?", re.IGNORECASE)
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024}
TOLERANCE = 1.01
"""A limit may be read back in a larger unit, rounded."""


class Protocol3(MPSControl):
    """A daemon that speaks protocol 3."""

    protocol = 3
    needs_server = True

    @property
    def server(self) -> str:
        """The name of the daemon's one server."""
        return f"g{self.index}"

    def arguments(self) -> tuple[str, ...]:
        is_for_all = is_passable(self.folder.path)
        return ("-d", "-p", "3", *(("-m",) if is_for_all else ()))

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "CUDA_MPS_PROTOCOL_VERSION": "3"}

    def servers(self) -> tuple[MPSServer, ...]:
        rows = (row for row in self._rows("server", "list") if len(row) >= 4)
        return tuple(
            MPSServer(name=row[0], pid=_integer(row[2]), status=row[3].upper())
            for row in rows
        )

    def open_server(self, limits: Sequence[MPSLimit]) -> None:
        self._do("server", "create", self.server, f"--allowed-devices={self.gpu}")

    def limit_orphan_memory(self) -> None:
        self._do("server", "set", self.server, *_limits(STRAY_PERCENT, STRAY_MIB))

    def hold(self, limit: MPSLimit, limits: Sequence[MPSLimit]) -> Path:
        is_new = limit.name not in self._namespaces()
        if is_new:
            self._do("namespace", "create", limit.name, f"--server={self.server}")
        try:
            self._do(
                "namespace",
                "set",
                limit.name,
                f"--server={self.server}",
                *_limits(limit.percent, limit.mib),
            )
            directory = self._checked(limit)
            if limit.uid is not None:
                directory.parent.chmod(PASSABLE)
            give_to(directory, limit.uid)
            return directory
        except ProviderError:
            if is_new:
                self._do(
                    "namespace",
                    "delete",
                    limit.name,
                    f"--server={self.server}",
                    "--force",
                )
            raise

    def drop(self, name: str, limits: Sequence[MPSLimit]) -> None:
        if name in self._namespaces() and not self.clients(name):
            self._do("namespace", "delete", name, f"--server={self.server}")

    def sweep(self, kept: Collection[str]) -> None:
        for name in self._namespaces().keys() - {*kept, "default"}:
            self.drop(name, ())

    def clients(
        self, name: str = "", *, servers: Sequence[MPSServer] | None = None
    ) -> frozenset[int]:
        rows = self._rows("client", "list", f"--server={self.server}")
        # The namespace's column differs between releases; nothing but a lease is called
        # by such a name.
        return frozenset(
            _integer(row[0]) for row in rows if not name or name in row[1:7]
        )

    def terminate(self, pid: int) -> None:
        self._do("client", "terminate", str(pid))

    def quit(self) -> None:
        self._do("-q")

    def _checked(self, limit: MPSLimit) -> Path:
        """The namespace's directory, once both its limits are what they should be."""
        row = self._namespaces().get(limit.name, [])
        if len(row) < 5:
            raise ProviderError("MPS does not list the namespace it has just made")
        mib = _size_mib(row[3])
        most = _number(row[4])
        if (
            mib is None
            or mib > limit.mib * TOLERANCE
            or most is None
            or most > limit.percent * TOLERANCE
        ):
            raise ProviderError(
                f"MPS does not keep the limits it was given: it lists {row[3]} and {row[4]} percent"
            )
        directory = Path(
            self._do(
                "namespace", "get", limit.name, self.server, "pipe-directory"
            ).strip()
        )
        if not (directory / "control").exists():
            raise ProviderError(
                f"MPS names a directory in which no daemon listens: {directory}"
            )
        return directory

    def _namespaces(self) -> dict[str, list[str]]:
        return {
            row[0]: row
            for row in self._rows("namespace", "list", f"--server={self.server}")
        }

    def _rows(self, *words: str) -> list[list[str]]:
        lines = self._do(*words, _CSV).splitlines()
        return [
            [field.strip() for field in line.split(",")]
            for line in lines
            if "," in line
        ]

    def _do(self, *words: str) -> str:
        return self._ask("-p", "3", *words)


def _limits(percent: int, mib: int) -> tuple[str, str]:
    return f"--active-thread-percentage={percent}", f"--pinned-memory-limit={mib}M"


def _size_mib(text: str) -> float | None:
    match = _SIZE.fullmatch(text)
    return float(match[1]) * _MIB[match[2].upper()] if match else None


def _number(text: str) -> float | None:
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        return None


def _integer(text: str) -> int:
    return int(text) if text.isdecimal() else 0
