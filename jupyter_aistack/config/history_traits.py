"""Settings about what has happened: for how long it is kept, and where it goes then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from traitlets import Float, Unicode, Union
from traitlets.config import LoggingConfigurable

from jupyter_aistack.broker.history import HistoryOptions
from jupyter_aistack.broker.setting_values import (
    or_none,
    read_duration,
    read_setting,
    read_wait,
)
from jupyter_aistack.core.model.retention import Retention
from jupyter_aistack.ledger.opening import rule_makers


class HistoryTraits(LoggingConfigurable):
    """The part of `AIStack` about what has happened."""

    retention: Any = Union(
        [Unicode(), Float()],
        default_value="90d",
        allow_none=True,
        help="""For how long ended leases, decided requests, what cells cost and events stay in the ledger, e.g.
        ``90d``; then they go to ``archive_folder``. What was used by day stays in the books. ``None`` keeps all in
        the ledger.""",
    ).tag(config=True)

    archive_folder = Unicode(
        help="""Where old records go: Parquet files where pyarrow is installed, else CSV. The default is a folder
        ``archive`` beside the ledger. Of a ledger that several users share, its owner and root archive.""",
    ).tag(config=True)

    pseudonymize_after: Any = Union(
        [Unicode(), Float()],
        default_value=None,
        allow_none=True,
        help="""How old records of the archive are when the names of people in them become pseudonyms, e.g. ``180d``;
        ``0`` for at once. The key, ``pseudonyms.key`` beside the ledger, gives the same person the same pseudonym:
        whoever deletes it makes that final. ``None`` keeps the names.""",
    ).tag(config=True)

    def build_history(
        self, ledger_url: str, *, beside: Path, archives_all: bool = False
    ) -> HistoryOptions:
        """Where old records go, and when. Of a ledger that several users share they go
        nowhere, unless this process is its owner's, root's or the host's broker; nor
        where the ledger ends with the process.

        Args:
            ledger_url: the ledger.
            beside: the folder of its files.
            archives_all: this is the broker of all users of the host.

        Raises:
            InvalidRequest: a setting makes no sense; it is named.
        """
        kept = read_setting("retention", self.retention, or_none(read_duration))
        named = read_setting(
            "pseudonymize_after", self.pseudonymize_after, or_none(read_wait)
        )
        retention = Retention(seconds=kept, pseudonym_seconds=named)
        makers = rule_makers(ledger_url)
        is_own = makers is None or os.getuid() in makers
        if ledger_url == "memory:" or not (is_own or archives_all):
            return HistoryOptions(retention=retention)
        chosen = self.archive_folder
        return HistoryOptions(
            folder=Path(chosen) if chosen else beside / "archive",
            key_folder=beside,
            retention=retention,
        )
