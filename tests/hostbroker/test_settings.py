"""What a host broker does otherwise than a broker in a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_aistack.broker.api.caller import Caller
from jupyter_aistack.broker.api.service import Service
from jupyter_aistack.core.suspend.capability import BY_SERVERS_ALONE
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.hostbroker.settings import BrokerSettings
from jupyter_aistack.system.sqlite_files import sqlite_url
from jupyter_aistack.testing import holder

ANN = Caller(user="ann", uid=1000)


@pytest.mark.parametrize("setting", ["off", "auto"])
def test_who_asks_why_nothing_is_suspended_is_not_sent_to_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("AISTACK_PROVIDERS", "simulated:1xH100-80GB")
    settings = BrokerSettings(suspend=setting)
    monkeypatch.delenv("AISTACK_LEDGER")
    broker = settings.build_broker_on(sqlite_url(tmp_path / "host.sqlite"))
    service = Service(broker)
    host = service.call("host", {}, ANN)
    assert host["suspend"]["why"] == BY_SERVERS_ALONE.why

    lease_id = broker.submit("1/4", holder(host=broker.host)).lease_id
    with pytest.raises(LeaseError, match="where the host's broker grants"):
        service.call("suspend", {"lease_id": lease_id}, ANN)
    broker.close()
