"""The file in which an administrator writes the broker's settings: read by the broker
alone, and by it only where nobody else can have written it.
"""

from __future__ import annotations

import ast
import os
import stat
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitlets import TraitError
from traitlets.config import Config

from jupyter_aistack.config.loading import refused_trait
from jupyter_aistack.exceptions import InvalidRequest
from jupyter_aistack.system.permissions import is_guarded

from .settings import BrokerSettings

DEFAULT_FILE = Path("/etc/jupyter/aistack_config.py")
SECTION = "AIStack"
MAX_BYTES = 2**20
ROOT = 0


@dataclass(frozen=True, kw_only=True)
class FileMark:
    """By what it is known that a file has changed.

    Attributes:
        inode: device and inode.
        size: in bytes.
        changed_at: when its content or its rights were changed, in nanoseconds.
    """

    inode: tuple[int, int]
    size: int
    changed_at: int


class AdminFile:
    """The settings of a host broker.

    Args:
        path: the file; None for the usual one, which may be missing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or DEFAULT_FILE
        self._may_be_missing = path is None

    def mark(self) -> FileMark | None:
        """What changes with the file; None where there is none."""
        try:
            return _mark_of(self.path.stat())
        except OSError:
            return None

    def load(self) -> BrokerSettings:
        """The settings, each of them checked.

        Raises:
            InvalidRequest: the file cannot be read, is not closed to others, or says
                what makes no sense; file, line and reason are named.
        """
        source = self._read()
        try:
            config = self._executed(source)
            settings = BrokerSettings(config=config)
            settings.check()
        except InvalidRequest as error:
            raise self._refused(error, source) from None
        except TraitError as error:
            field = refused_trait(config.get(SECTION, {}))
            wrong = InvalidRequest(f"{field}: {error}", field=field)
            raise self._refused(wrong, source) from None
        return settings

    def _read(self) -> str:
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise self._unreadable("it is no file")
                content = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            if self._may_be_missing:
                return ""
            raise self._unreadable("there is no such file") from None
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from None
        if not is_guarded(self.path, {ROOT, os.getuid()}):
            raise self._unreadable(
                "others than root and the broker's user may change it, or a folder above "
                "it; chown root and chmod go-w"
            )
        if len(content) > MAX_BYTES:
            raise self._unreadable(f"it has more than {MAX_BYTES} bytes")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise self._unreadable("it is not written in UTF-8") from None

    def _executed(self, source: str) -> Config:
        """What the file says, as Jupyter's configuration files say it."""
        config = Config()
        names = {"c": config, "get_config": lambda: config, "__file__": str(self.path)}
        try:
            exec(compile(source, str(self.path), "exec"), names)
        except SyntaxError as error:
            raise self._failed(error.lineno, f"not Python: {error.msg}") from None
        except (Exception, SystemExit) as error:  # exit() would end the broker
            line = _line_in(error, str(self.path))
            raise self._failed(line, f"{type(error).__name__}: {error}") from None
        _check_names(config)
        return config

    def _failed(self, line: int | None, why: str) -> InvalidRequest:
        return InvalidRequest(
            f"{self.path}, line {line or 1}: {why}",
            field="config",
            file=str(self.path),
            line=line or 1,
        )

    def _refused(self, error: InvalidRequest, source: str) -> InvalidRequest:
        """An error about a setting, with the file and the line that says it."""
        if "line" in error.facts:
            return error
        names = ("field", "entry", "entry_field")
        path = [str(error.facts[name]) for name in names if error.facts.get(name)]
        line = line_of_setting(source, *path)
        where = f"{self.path}, line {line}" if line else str(self.path)
        facts = {**error.facts, "file": str(self.path), "line": line}
        return InvalidRequest(f"{where}: {error.message}", **facts)

    def _unreadable(self, why: str) -> InvalidRequest:
        return InvalidRequest(
            f"{self.path}: {why}", field="config", file=str(self.path)
        )


def line_of_setting(source: str, *path: str) -> int | None:
    """The line that says a setting, or as much of the way to it as can be followed;
    None where it is said nowhere.

    Args:
        source: the file's text.
        path: the setting, the entry of its table and the entry's field.
    """
    line = None
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and path:
            for target in node.targets:
                if isinstance(target, ast.Attribute) and target.attr == path[0]:
                    line = _line_in_table(node.value, path[1:]) or node.lineno
    return line


def _line_in_table(table: ast.expr, path: tuple[str, ...]) -> int | None:
    if not path or not isinstance(table, ast.Dict):
        return None
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == path[0]:
            return _line_in_table(value, path[1:]) or key.lineno
    return None


def _line_in(error: BaseException, file: str) -> int | None:
    """The last line of a file that was executed when an error came up."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return lines[-1] if lines else None


def _check_names(config: Mapping[str, Any]) -> None:
    """Refuse what nothing reads: a name that is misspelt must not pass for a rule."""
    for section in config:
        if section != SECTION:
            raise InvalidRequest(
                f"{section}: the host broker reads c.{SECTION} alone", field=section
            )
    known = set(BrokerSettings.class_trait_names(config=True))
    for name in config.get(SECTION, {}):
        if name not in known:
            raise InvalidRequest(
                f"{name}: there is no such setting; there is "
                f"{', '.join(sorted(known))}",
                field=name,
            )


def _mark_of(status: os.stat_result) -> FileMark:
    return FileMark(
        inode=(status.st_dev, status.st_ino),
        size=status.st_size,
        changed_at=status.st_ctime_ns,
    )
