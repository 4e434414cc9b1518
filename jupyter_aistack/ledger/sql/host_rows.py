"""The tables of machines, as one transaction sees and changes them."""

from __future__ import annotations

from jupyter_aistack.core.model.device_health import DeviceFault
from jupyter_aistack.core.model.host import HostIdentity, HostReport

from . import codec
from .transaction import SQLTransaction


class HostRows(SQLTransaction):
    """Machines, what they report, and the faults of their devices."""

    def hosts(self) -> list[HostIdentity]:
        return [
            codec.host_from_row(row) for row in self._select(self._statements.hosts)
        ]

    def keep_host(self, host: HostIdentity, *, is_new: bool = False) -> None:
        self._written.is_partly_known = True
        row = codec.host_to_row(host)
        if is_new:
            self._execute(self._statements.insert_host, **row)
        else:
            key = {"of_id": row["id"], "of_name": row["name"]}
            self._execute(self._statements.update_host, **row, **key)

    def remove_host(self, host_id: str) -> None:
        self._written.is_partly_known = True
        self._execute(self._statements.delete_host, key=host_id)

    def host_reports(self) -> list[HostReport]:
        rows = self._select(self._statements.host_reports)
        read = codec.host_report_from_row
        return self._reader.readable("host report", rows, read)

    def keep_host_report(self, report: HostReport, *, is_new: bool = False) -> None:
        row = codec.host_report_to_row(report)
        if is_new:
            self._execute(self._statements.insert_host_report, **row)
            return
        key = {"of_host": row["host"], "of_allowance": row["allowance"]}
        self._execute(self._statements.update_host_report, **row, **key)

    def remove_host_reports(self, host: str) -> None:
        self._execute(self._statements.delete_host_reports, of_host=host)

    def device_faults(self, host: str) -> list[DeviceFault]:
        rows = self._select(self._statements.device_faults, of_host=host)
        return list(map(self._reader.device_fault, rows))

    def keep_device_fault(self, fault: DeviceFault) -> None:
        row = codec.device_fault_to_row(fault)
        self._execute(self._statements.insert_device_fault, **row)

    def remove_device_faults(self, host: str, device_id: str) -> None:
        key = {"of_host": host, "of_device_id": device_id}
        self._execute(self._statements.delete_device_faults, **key)
